//! Leases on both databases: who gets one, what makes one void, and how what happened without the database is
//! written down afterwards.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tram_controller::domain::copies::Suspicion;
use tram_controller::domain::lease::{Event, Fault, What};
use tram_controller::domain::session::{Cut, SessionState};
use tram_controller::domain::ticket::Binding;
use tram_controller::identity::lease_keys;
use tram_controller::identity::secret::Secret;
use tram_controller::services::leases::{self, At, Carried};
use tram_controller::services::sign_in::Visit;
use tram_controller::services::users::{self, UserChange};
use tram_controller::services::{App, Ctx, broker, desk, endpoints, gateways};
use tram_tests::db::{self, TestDb};
use tram_tests::office::{Office, Plan};
use tram_wire::ids::SessionId;
use tram_wire::lease::{Lease, Signed};
use uuid::Uuid;

struct World {
    office: Office,
    gateway: Uuid,
    _folder: TempDir,
    _db: TestDb,
}

impl World {
    async fn all() -> Result<Vec<Self>> {
        let mut worlds = Vec::new();
        for db in db::both().await? {
            let clock = tram_controller::clock::Clock::system();
            let mut office = Office::build(&db.store, clock, Plan { desktops: 5, ..Plan::default() }).await?;
            let folder = tempfile::tempdir()?;
            office.app = App { data_dir: folder.path().to_owned(), ..office.app };
            worlds.push(Self { office, gateway: Uuid::now_v7(), _folder: folder, _db: db });
        }
        Ok(worlds)
    }

    fn app(&self) -> &App {
        &self.office.app
    }

    async fn place(&self, name: &str) -> Result<desk::Endpoint> {
        match self.office.add_endpoint(name).await? {
            Binding::Endpoint { id, certificate } => Ok(desk::Endpoint { id, certificate, ip: "192.0.2.9".into() }),
            Binding::Browser(_) => anyhow::bail!("an endpoint is no browser"),
        }
    }

    async fn visit(&self, n: usize) -> Result<Visit> {
        let user = self.app().store.user(self.office.officers[n].0).await?.context("the officer")?;
        Ok(Visit { ctx: self.office.officer(n), user, csrf: String::new(), token_hash: [1; 32] })
    }

    /// The n-th officer works at a place.
    async fn works(&self, n: usize, at: &desk::Endpoint) -> Result<()> {
        let binding = Binding::Endpoint { id: at.id, certificate: at.certificate };
        let (_, ticket) = broker::take_over(self.app(), &self.office.officer(n), &binding).await?;
        let ticket = ticket.context("the desktop runs")?;
        let redeemed = broker::redeem(self.app(), ticket.secret.reveal(), &binding, None).await?.context("redeemed")?;
        let attached = broker::attached(self.app(), redeemed.session_id, self.gateway, &at.ip).await?;
        ensure!(attached.is_ok(), "{attached:?}");
        Ok(())
    }

    async fn issue(&self, n: usize, at: &desk::Endpoint) -> Result<Option<Signed>> {
        Ok(leases::issue(self.app(), at, &self.visit(n).await?).await?.lease)
    }

    async fn issued(&self, n: usize, at: &desk::Endpoint) -> Result<Lease> {
        let signed = self.issue(n, at).await?.context("a lease")?;
        let keys = leases::sight(self.app()).await?.keys.into_iter().collect();
        lease_keys::prove(&signed, &keys).map_err(|f| anyhow::anyhow!("{f}"))
    }

    /// The n-th officer worked at a place, has a lease, and went away without a word.
    async fn works_and_leaves(&self, n: usize, at: &desk::Endpoint, when: i64) -> Result<SessionId> {
        self.works(n, at).await?;
        let session = self.issued(n, at).await?.session;
        let gone = format!("state = 'disconnected', gateway_id = NULL, disconnected_at = {when}");
        let whose = format!("user_id IN (SELECT id FROM users WHERE username = 'officer{n}') AND state <> 'ended'");
        self.office.sql(&format!("UPDATE sessions SET {gone} WHERE {whose}")).await?;
        Ok(session)
    }

    async fn live(&self, lease: &Lease) -> Result<bool> {
        Ok(leases::sight(self.app()).await?.live.contains(&lease.id))
    }

    fn at<'a>(&self, place: &'a desk::Endpoint) -> At<'a> {
        At { endpoint: place.id, certificate: place.certificate, gateway: self.gateway, ip: &place.ip }
    }

    async fn enter(&self, lease: &Lease, place: &desk::Endpoint) -> Result<Result<i64, Fault>> {
        Ok(leases::enter(self.app(), lease, self.at(place)).await?.map(|e| e.epoch))
    }

    async fn audited(&self, what: &str) -> Result<i64> {
        self.office.count(&format!("SELECT COUNT(*) FROM audit WHERE {what}")).await
    }
}

#[tokio::test]
async fn an_identity_in_quarantine_opens_nothing_by_its_lease() -> Result<()> {
    for w in World::all().await? {
        let here = w.place("mot-cua-01").await?;
        w.works_and_leaves(0, &here, 1).await?;
        let id = w.office.count("SELECT COUNT(*) FROM leases").await?;
        assert_eq!(id, 1);
        let sight = leases::sight(w.app()).await?;
        let lease = *sight.live.iter().next().context("it is good")?;
        let now = w.app().clock.now();
        let mut tx = w.app().store.begin().await?;
        ensure!(tx.quarantine_endpoint(here.id, &Suspicion::default(), now).await?);
        tx.commit().await?;
        let sight = leases::sight(w.app()).await?;
        ensure!(sight.void.contains(&lease) && !sight.live.contains(&lease), "also for a gateway without a database");
        let mut tx = w.app().store.begin().await?;
        ensure!(tx.settle_endpoint(here.id, true, now).await?);
        tx.commit().await?;
        ensure!(leases::sight(w.app()).await?.live.contains(&lease));
    }
    Ok(())
}

#[tokio::test]
async fn who_works_at_an_endpoint_gets_a_lease_and_renews_it() -> Result<()> {
    for w in World::all().await? {
        let (here, there) = (w.place("mot-cua-01").await?, w.place("mot-cua-02").await?);
        assert!(w.issue(0, &here).await?.is_none(), "nobody works here yet");
        w.works(0, &here).await?;
        assert!(w.issue(0, &there).await?.is_none(), "they work elsewhere");
        assert!(w.issue(1, &here).await?.is_none(), "somebody else works here");
        let first = w.issued(0, &here).await?;
        assert_eq!((first.username.as_str(), first.endpoint), ("officer0", here.id));
        let minutes = (first.expires_ms - first.issued_ms) / 60_000;
        assert!((700..=720).contains(&minutes), "{first:?}");
        let text = serde_json::to_string(&first)?;
        assert!(!text.contains("sim:") && !text.contains("192.0.2"), "an address is in it: {text}");
        let again = w.issued(0, &here).await?;
        assert_eq!(again.id, first.id);
        // Both end with the session, to within the time between two looks at two clocks.
        assert!(again.expires_ms + 5_000 >= first.expires_ms, "{} {}", again.expires_ms, first.expires_ms);
        assert!(w.live(&first).await?);
        assert_eq!(w.audited("action = 'lease.issue'").await?, 1, "renewals are no news");
        // It never outlives the session.
        let long = 11 * 3600 * 1_000_000_i64;
        w.office.sql(&format!("UPDATE sessions SET assigned_at = assigned_at - {long}")).await?;
        let short = w.issued(0, &here).await?;
        assert!((3_590_000..=3_600_000).contains(&(short.expires_ms - short.issued_ms)), "{short:?}");
        // A desktop that is not running is promised to nobody, and leases can be switched off.
        let off = App {
            policy: tram_controller::domain::session::Policy { lease: Duration::ZERO, ..w.app().policy.clone() },
            ..w.app().clone()
        };
        assert!(leases::issue(&off, &here, &w.visit(0).await?).await?.lease.is_none());
        w.office.sql("UPDATE desktops SET state = 'booting'").await?;
        assert!(w.issue(0, &here).await?.is_none());
    }
    Ok(())
}

#[tokio::test]
async fn a_lease_is_void_as_soon_as_the_database_says_so() -> Result<()> {
    for w in World::all().await? {
        let (here, there) = (w.place("mot-cua-01").await?, w.place("mot-cua-02").await?);
        let admin = Ctx::local_admin(w.app().clock.now());
        // The officer moves to another place: the former lease is void, also after they came back.
        w.works(0, &here).await?;
        let old = w.issued(0, &here).await?;
        w.works(0, &there).await?;
        assert!(!w.live(&old).await?, "moved");
        assert_eq!(w.enter(&old, &here).await?, Err(Fault::Withdrawn));
        w.works(0, &here).await?;
        let new = w.issued(0, &here).await?;
        assert_ne!(new.id, old.id);
        assert!(w.live(&new).await? && !w.live(&old).await?);
        assert_eq!(w.enter(&new, &there).await?, Err(Fault::Withdrawn), "another endpoint");
        let renewed = desk::Endpoint { certificate: [9; 32], ..here.clone() };
        assert_eq!(w.enter(&new, &renewed).await?, Err(Fault::Withdrawn), "another certificate");
        // A browser takes the session over.
        let (_, ticket) = broker::take_over(w.app(), &w.office.officer(0), &Office::browser(0)).await?;
        let ticket = ticket.context("a ticket")?;
        broker::redeem(w.app(), ticket.secret.reveal(), &Office::browser(0), None).await?.context("redeemed")?;
        assert!(!w.live(&new).await?, "moved to a browser");
        // A new password, a disabled account, a withdrawn endpoint, an ended session, an operator.
        let change = |c: UserChange| users::change(w.app(), &admin, w.office.officers[0].0, Box::leak(Box::new(c)));
        w.works(0, &here).await?;
        let lease = w.issued(0, &here).await?;
        change(UserChange { password: Some(Secret::from_text("hoa sen trang 88")), ..UserChange::default() }).await?;
        assert!(!w.live(&lease).await?, "a new password");
        let lease = w.issued(0, &here).await?;
        assert!(w.live(&lease).await?);
        change(UserChange { disabled: Some(true), ..UserChange::default() }).await?;
        assert!(!w.live(&lease).await?, "disabled");
        change(UserChange { disabled: Some(false), ..UserChange::default() }).await?;
        assert!(!w.live(&lease).await?, "once disabled, its leases stay void");
        let lease = w.issued(0, &here).await?;
        endpoints::revoke(w.app(), &admin, here.id, "stolen").await?;
        assert!(!w.live(&lease).await?, "a withdrawn endpoint");
        w.works(1, &there).await?;
        let lease = w.issued(1, &there).await?;
        broker::end(w.app(), &admin, lease.session).await?;
        assert!(!w.live(&lease).await?, "an ended session");
        w.works(1, &there).await?;
        let lease = w.issued(1, &there).await?;
        assert_eq!(leases::revoke(w.app(), &admin, Some("officer1")).await?, 1);
        assert!(!w.live(&lease).await?, "an operator");
        assert!(leases::revoke(w.app(), &w.office.officer(1), None).await.is_err(), "officers may not");
        // Keys that were forgotten prove nothing.
        let signed = w.issue(1, &there).await?.context("a lease")?;
        leases::new_key(w.app(), &admin, true).await?;
        let keys = leases::sight(w.app()).await?.keys.into_iter().collect();
        assert_eq!(lease_keys::prove(&signed, &keys), Err(Fault::Key));
        assert!(w.issued(1, &there).await.is_ok());
        // Time alone.
        let lease = w.issued(1, &there).await?;
        w.office.sql("UPDATE leases SET issued_at = 1, expires_at = 2").await?;
        assert!(!w.live(&lease).await?, "over");
        broker::reap(w.app(), true).await?;
        assert_eq!(w.office.count("SELECT COUNT(*) FROM leases WHERE expires_at = 2").await?, 0);
    }
    Ok(())
}

fn event(w: &World, lease: &Lease, what: What) -> Event {
    Event {
        id: Uuid::now_v7(),
        at: w.app().clock.now().micros(),
        lease: lease.id,
        session: lease.session,
        username: lease.username.clone(),
        endpoint: lease.endpoint,
        desktop: lease.desktop_name.clone(),
        gateway: w.gateway,
        ip: "192.0.2.9".into(),
        what,
    }
}

#[tokio::test]
async fn what_happened_without_the_database_is_written_down_once() -> Result<()> {
    for w in World::all().await? {
        let here = w.place("mot-cua-01").await?;
        w.works(0, &here).await?;
        let lease = w.issued(0, &here).await?;
        let came = event(&w, &lease, What::Entered);
        let left = event(&w, &lease, What::Left { from: came.at, why: "1000".into(), up: 5, down: 7 });
        let refused = event(&w, &lease, What::Refused { why: Fault::Signature });
        for round in 0..3 {
            for e in [&came, &left, &refused] {
                assert_eq!(leases::take_in(w.app(), e).await?, round == 0);
            }
        }
        for what in ["session.lease", "session.lease_end", "lease.refuse"] {
            assert_eq!(w.audited(&format!("action = '{what}' AND actor = 'officer0'")).await?, 1, "{what}");
        }
        let row = w.app().store.session(lease.session).await?.context("row")?;
        assert_eq!((row.leased_at, row.bytes_up, row.bytes_down), (Some(came.at), 5, 7));
        // An event on its way through a file is the same event.
        let text = serde_json::to_string(&left)?;
        assert_eq!(serde_json::from_str::<Event>(&text)?, left);
    }
    Ok(())
}

#[tokio::test]
async fn the_database_is_back_and_says_who_may_go_on() -> Result<()> {
    for w in World::all().await? {
        let (here, there) = (w.place("mot-cua-01").await?, w.place("mot-cua-02").await?);
        w.works(0, &here).await?;
        let lease = w.issued(0, &here).await?;
        let session = lease.session;
        let carried = Carried { lease: lease.id, session, protocols: "vnc".parse().unwrap(), token: [3; 32] };
        // Its former gateway died with the database; nobody came back in time, but for the one by lease.
        let long_ago = w.app().clock.now().minus(Duration::from_secs(86_000)).micros();
        w.office
            .sql(&format!(
                "UPDATE sessions SET state = 'disconnected', gateway_id = NULL, disconnected_at = {long_ago}"
            ))
            .await?;
        let epoch = leases::adopt(w.app(), &carried, w.at(&here)).await?;
        assert!(epoch.is_ok_and(|e| e > 1), "{epoch:?}");
        let row = w.app().store.session(session).await?.context("row")?;
        assert_eq!(row.state, SessionState::Active);
        assert_eq!(broker::reap(w.app(), true).await?, 0);
        // Somebody else is there: at another gateway, from another place.
        w.works(0, &there).await?;
        w.office.sql("UPDATE leases SET revoked_at = NULL, revoked_why = NULL").await?;
        let other = At { gateway: Uuid::now_v7(), ..w.at(&here) };
        assert_eq!(leases::adopt(w.app(), &carried, other).await?, Err(Cut::TakenOver));
        w.office.sql("UPDATE users SET disabled = TRUE").await?;
        assert_eq!(leases::adopt(w.app(), &carried, w.at(&here)).await?, Err(Cut::Ended));
        let unknown = Carried { session: Uuid::now_v7().into(), ..carried };
        assert_eq!(leases::adopt(w.app(), &unknown, w.at(&here)).await?, Err(Cut::Ended));
        // Without somebody by lease, it is over as any other, but not before all gateways have told.
        w.office.sql("UPDATE users SET disabled = FALSE").await?;
        w.office
            .sql(&format!(
                "UPDATE sessions SET state = 'disconnected', gateway_id = NULL, disconnected_at = {long_ago}"
            ))
            .await?;
        assert_eq!(broker::reap(w.app(), false).await?, 0, "gateways had no time to say that they live");
        gateways::alive(w.app(), w.gateway, 2).await?;
        assert_eq!(broker::reap(w.app(), true).await?, 0, "a gateway has something to tell");
        // A lease that is over keeps nothing.
        w.office.sql("UPDATE leases SET issued_at = 1, expires_at = 2").await?;
        let other = w.works_and_leaves(1, &there, long_ago).await?;
        assert_eq!(broker::reap(w.app(), true).await?, 1, "the session with the lease that is over");
        let row = w.app().store.session(session).await?.context("row")?;
        assert_eq!((row.state, row.end_reason.as_deref()), (SessionState::Ended, Some("expired")));
        gateways::alive(w.app(), w.gateway, 0).await?;
        assert_eq!(broker::reap(w.app(), true).await?, 1, "all was told");
        assert_eq!(w.app().store.session(other).await?.context("row")?.state, SessionState::Ended);
        // A gateway that is gone tells nothing any more.
        w.works_and_leaves(0, &here, long_ago).await?;
        gateways::alive(w.app(), w.gateway, 7).await?;
        w.office.sql("UPDATE gateways SET seen_at = 1").await?;
        assert_eq!(broker::reap(w.app(), true).await?, 1, "nobody is waited for");
    }
    Ok(())
}
