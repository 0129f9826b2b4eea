//! A commune with a pool of desktops and its officers, put straight into a database.

use anyhow::{Context, Result};
use tram_controller::clock::Clock;
use tram_controller::domain::access::{Caller, Role, Scope};
use tram_controller::domain::credential::Language;
use tram_controller::domain::endpoint::Pace;
use tram_controller::domain::host::AccelSetting;
use tram_controller::domain::image::{Guest, ImageState};
use tram_controller::domain::session::Policy;
use tram_controller::domain::ticket::Binding;
use tram_controller::domain::time::Time;
use tram_controller::identity::password::Passwords;
use tram_controller::identity::secret;
use tram_controller::services::{App, Ctx};
use tram_controller::store::images::Image;
use tram_controller::store::pools::NewPool;
use tram_controller::store::users::{NewWebSession, UserRow};
use tram_controller::store::{Db, Store};
use tram_wire::ids::{DesktopId, EndpointId, HostId, ImageId, InstallationId, PoolId, UserId};
use uuid::Uuid;

/// The commune's code.
pub const SITE: &str = "00004";

/// Desktops and people of one commune.
pub struct Office {
    /// Use cases on the database it stands in.
    pub app: App,
    /// The host of the desktops.
    pub host: HostId,
    /// Their pool.
    pub pool: PoolId,
    /// The desktops, in order.
    pub desktops: Vec<DesktopId>,
    /// The officers, in order.
    pub officers: Vec<(UserId, String)>,
}

/// What to put there.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Desktops.
    pub desktops: usize,
    /// Officers.
    pub officers: usize,
    /// Desktops are kept for their users.
    pub persistent: bool,
    /// Desktops are running.
    pub running: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self { desktops: 2, officers: 2, persistent: false, running: true }
    }
}

impl Office {
    /// Puts it there.
    ///
    /// # Errors
    /// The database's.
    pub async fn build(store: &Store, clock: Clock, plan: Plan) -> Result<Self> {
        let now = clock.now();
        let (host, pool, image) = (HostId(Uuid::now_v7()), PoolId(Uuid::now_v7()), ImageId(Uuid::now_v7()));
        let mut tx = store.begin().await?;
        tx.put_host(host, "sim-1", "sim:///one", AccelSetting::Auto, now).await?;
        tx.add_image(&Image {
            id: image,
            name: "tram-test".into(),
            version: "1".into(),
            file: "tram-test-1.qcow2".into(),
            state: ImageState::Ready,
            virtual_size_bytes: 1 << 30,
            file_size_bytes: 1 << 20,
            sha256: "0".repeat(64),
            guest: Guest::LinuxBios,
            error: None,
            created_at: now.micros(),
            pools: 0,
        })
        .await?;
        let new = NewPool {
            id: pool,
            name: "commune".into(),
            site_code: SITE.into(),
            image_id: image,
            size: plan.desktops as i64,
            vcpus: 1,
            memory_mib: 512,
            disk_gib: None,
            persistent: plan.persistent,
            start_desktops: true,
        };
        tx.add_pool(&new, now).await?;
        tx.commit().await?;
        let row = store.pool(pool).await?.context("the pool is there")?;
        let desktops: Vec<DesktopId> = (0..plan.desktops).map(|_| DesktopId(Uuid::now_v7())).collect();
        let rows: Vec<_> = desktops.iter().zip(1..).map(|(id, n)| (*id, n, format!("commune-{n:02}"))).collect();
        let mut tx = store.begin().await?;
        tx.add_desktops(&row, &rows, now).await?;
        for id in &desktops {
            tx.place(*id, host, now).await?;
        }
        tx.commit().await?;
        let mut office = Self { app: Self::app(store, clock), host, pool, desktops, officers: Vec::new() };
        for n in 0..plan.officers {
            let name = format!("officer{n}");
            let id = office.add_user(&name, Role::Officer, Some(SITE)).await?;
            office.sign_in(id, &Self::cookie(n)).await?;
            office.officers.push((id, name));
        }
        if plan.running {
            office.sql("UPDATE desktops SET state = 'running'").await?;
        }
        Ok(office)
    }

    /// Use cases on a database, without folders.
    #[must_use]
    pub fn app(store: &Store, clock: Clock) -> App {
        App {
            store: store.clone(),
            clock,
            installation: InstallationId(Uuid::now_v7()),
            image_dir: "/nonexistent/images".into(),
            data_dir: "/nonexistent/data".into(),
            passwords: Passwords::cheap_for_tests(),
            public_url: "https://tram.test".into(),
            agent_url: "https://tram.test:8444".into(),
            policy: Policy::default(),
            support_phone: "024 1022".into(),
            runbooks: tram_controller::identity::shelf::Shelf::default(),
            rings: tram_controller::domain::rings::Rings::default(),
            signers: tram_controller::identity::releases::Signers::default(),
            hours: tram_controller::domain::incident::hours::Hours::default(),
            embedded: true,
            cookie_domain: String::new(),
            pace: Pace::default(),
        }
    }

    /// Adds an account that can't sign in by password.
    ///
    /// # Errors
    /// The database's.
    pub async fn add_user(&self, name: &str, role: Role, site: Option<&str>) -> Result<UserId> {
        let id = UserId(Uuid::now_v7());
        let row = UserRow {
            id,
            username: name,
            display_name: name,
            role,
            site_code: site,
            language: Language::Vi,
            disabled: false,
        };
        let mut tx = self.app.store.begin().await?;
        tx.add_user(&row, "!", self.app.clock.now()).await?;
        tx.commit().await?;
        Ok(id)
    }

    /// The cookie of the n-th officer's browser.
    #[must_use]
    pub fn cookie(n: usize) -> String {
        format!("the browser of officer {n}").replace(' ', "-")
    }

    /// What the n-th officer's browser is bound by.
    #[must_use]
    pub fn browser(n: usize) -> Binding {
        Binding::Browser(secret::hash(&Self::cookie(n)))
    }

    /// Signs somebody in at a browser with this cookie.
    ///
    /// # Errors
    /// The database's.
    pub async fn sign_in(&self, user: UserId, cookie: &str) -> Result<()> {
        let now = self.app.clock.now();
        let mut tx = self.app.store.begin().await?;
        let expires_at = now.plus(std::time::Duration::from_secs(36_000));
        let new = NewWebSession {
            token_hash: secret::hash(cookie),
            user,
            csrf: "",
            expires_at,
            ip: "192.0.2.7",
            endpoint: None,
        };
        tx.open_web_session(&new, now).await?;
        Ok(tx.commit().await?)
    }

    /// Adds an endpoint of the commune; what its viewers are bound by.
    ///
    /// # Errors
    /// The database's.
    pub async fn add_endpoint(&self, name: &str) -> Result<Binding> {
        let (id, now) = (EndpointId(Uuid::now_v7()), self.app.clock.now());
        let mut tx = self.app.store.begin().await?;
        tx.add_endpoint(id, name, SITE, &serde_json::json!({}), now, now).await?;
        tx.commit().await?;
        Ok(Binding::Endpoint { id, certificate: secret::hash(name) })
    }

    /// Runs SQL as it is.
    ///
    /// # Errors
    /// The database's.
    pub async fn sql(&self, sql: &str) -> Result<()> {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        match self.app.store.db() {
            Db::Sqlite { write, .. } => sqlx::raw_sql(sql).execute(write).await.map(|_| ())?,
            Db::Postgres(p) => sqlx::raw_sql(sql).execute(p).await.map(|_| ())?,
        }
        Ok(())
    }

    /// A number from the database.
    ///
    /// # Errors
    /// The database's.
    pub async fn count(&self, sql: &str) -> Result<i64> {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        Ok(match self.app.store.db() {
            Db::Sqlite { write, .. } => sqlx::query_scalar(sql).fetch_one(write).await?,
            Db::Postgres(p) => sqlx::query_scalar(sql).fetch_one(p).await?,
        })
    }

    /// A request of the n-th officer, now.
    #[must_use]
    pub fn officer(&self, n: usize) -> Ctx {
        let (id, username) = self.officers[n].clone();
        self.caller(id, &username, Role::Officer, Scope::Sites(vec![SITE.into()]))
    }

    /// A request of somebody, now.
    #[must_use]
    pub fn caller(&self, id: UserId, username: &str, role: Role, scope: Scope) -> Ctx {
        let caller = Caller::User { id, username: username.into(), role, scope };
        Ctx { caller, ip: "192.0.2.7".into(), now: self.app.clock.now() }
    }
}

/// A clock that stands at a fixed time.
#[must_use]
pub fn noon() -> Clock {
    Clock::manual(Time::from_micros(1_800_000_000_000_000))
}
