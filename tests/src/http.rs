//! The HTTP API on a test database, without sockets: requests go straight into the router.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::{Body, BodyDataStream, Bytes, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use tram_controller::api::{Api, events, router};
use tram_controller::clock::Clock;
use tram_controller::domain::access::Role;
use tram_controller::domain::credential::Language;
use tram_controller::domain::day::Day;
use tram_controller::domain::endpoint::Pace;
use tram_controller::domain::session::Policy;
use tram_controller::domain::site::{Level, Site, UnitType};
use tram_controller::domain::time::Time;
use tram_controller::fleet::Fleet;
use tram_controller::identity::password::Passwords;
use tram_controller::identity::secret::Secret;
use tram_controller::services::users::{self, NewUser};
use tram_controller::services::{App, Ctx};
use tram_controller::store::Store;
use tram_controller::telemetry;
use tram_wire::ids::{InstallationId, UserId};
use uuid::Uuid;

/// The address browsers reach the API under test at.
pub const ORIGIN: &str = "https://tram.test:8443";
/// The password of every account [`TestApi::add_user`] makes.
pub const PASSWORD: &str = "tàu điện leng keng";
/// A commune of the small tree every [`TestApi`] begins with.
pub const COMMUNE: &str = "00004";
/// Its district.
pub const DISTRICT: &str = "001";
/// A commune of another district.
pub const ELSEWHERE: &str = "00463";

/// The API with its router.
pub struct TestApi {
    /// What handlers share.
    pub api: Api,
    /// All routes.
    pub router: Router,
}

impl TestApi {
    /// On a migrated database, with a clock that only tests move and a small tree of sites.
    ///
    /// # Errors
    /// The database's.
    pub async fn new(store: &Store) -> Result<Self> {
        Self::with_gateway(store, Router::new()).await
    }

    /// Like [`TestApi::new`], with the gateway's routes too.
    ///
    /// # Errors
    /// The database's.
    pub async fn with_gateway(store: &Store, gateway: Router) -> Result<Self> {
        let app = App {
            store: store.clone(),
            // Noon in Hanoi on a Tuesday.
            clock: Clock::manual(Time::from_micros(1_479_186_000_000_000)),
            installation: InstallationId(Uuid::now_v7()),
            image_dir: "/nonexistent/images".into(),
            data_dir: "/nonexistent/data".into(),
            passwords: Passwords::cheap_for_tests(),
            public_url: ORIGIN.into(),
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
        };
        let api = Api {
            app,
            fleet: Fleet::default(),
            events: Arc::new(events::Hub::default()),
            metrics: telemetry::metrics()?,
        };
        let mut tx = store.begin().await?;
        for site in small_tree() {
            tx.put_site(&site).await?;
        }
        tx.commit().await?;
        let router = router::router(api.clone(), gateway);
        Ok(Self { api, router })
    }

    /// Use cases' surroundings.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.api.app
    }

    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        let clock = &self.api.app.clock;
        clock.set(clock.now().plus(time));
    }

    /// Makes an account with [`PASSWORD`]; officers in [`COMMUNE`], others everywhere.
    ///
    /// # Errors
    /// The service's.
    pub async fn add_user(&self, username: &str, role: Role) -> Result<UserId> {
        self.add_user_at(username, role, (role == Role::Officer).then_some(COMMUNE)).await
    }

    /// Makes an account with [`PASSWORD`] at a site.
    ///
    /// # Errors
    /// The service's.
    pub async fn add_user_at(&self, username: &str, role: Role, site: Option<&str>) -> Result<UserId> {
        let new = NewUser {
            username: username.into(),
            display_name: username.into(),
            role,
            site_code: site.map(Into::into),
            language: Language::Vi,
            password: Secret::from_text(PASSWORD),
        };
        let ctx = Ctx::local_admin(self.app().clock.now());
        Ok(users::create(self.app(), &ctx, &new).await?.user.id)
    }

    /// A browser nobody has signed in with.
    #[must_use]
    pub fn browser(&self) -> Browser<'_> {
        Browser { api: self, cookie: None, csrf: None, ip: "192.0.2.7".into(), origin: Some(ORIGIN.into()) }
    }

    /// A browser signed in with [`PASSWORD`].
    ///
    /// # Errors
    /// If the sign-in is refused.
    pub async fn sign_in(&self, username: &str) -> Result<Browser<'_>> {
        let mut browser = self.browser();
        let answer = browser.log_in(username, PASSWORD).await?;
        ensure!(answer.status == StatusCode::OK, "{username} can't sign in: {answer:?}");
        Ok(browser)
    }

    /// A browser of a fresh account with this role.
    ///
    /// # Errors
    /// If the account can't be made or can't sign in.
    pub async fn signed_in(&self, role: Role) -> Result<Browser<'_>> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let username = format!("{role}{}", NEXT.fetch_add(1, Ordering::SeqCst));
        self.add_user(&username, role).await?;
        self.sign_in(&username).await
    }
}

/// One browser: keeps the cookie and sends what a browser and the console send. Fields may be bent.
#[derive(Clone)]
pub struct Browser<'a> {
    api: &'a TestApi,
    /// The session cookie's value.
    pub cookie: Option<String>,
    /// Sent as `x-tram-csrf` with changes.
    pub csrf: Option<String>,
    /// Where it seems to be.
    pub ip: String,
    /// Sent as `Origin` with changes.
    pub origin: Option<String>,
}

/// What came back.
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body as it is.
    pub bytes: Bytes,
    /// Body as JSON; null if it is none.
    pub json: Value,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status, String::from_utf8_lossy(&self.bytes))
    }
}

impl Answer {
    /// The problem's code; empty if it is no problem.
    #[must_use]
    pub fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }
}

impl Browser<'_> {
    /// Signs in and keeps the cookie.
    ///
    /// # Errors
    /// If the API breaks its own format.
    pub async fn log_in(&mut self, username: &str, password: &str) -> Result<Answer> {
        let answer = self.post("/api/v1/login", json!({"username": username, "password": password})).await?;
        if answer.status == StatusCode::OK {
            let cookie = answer.headers.get(header::SET_COOKIE).context("no cookie")?.to_str()?;
            let value =
                cookie.strip_prefix("tram_session=").and_then(|c| c.split(';').next()).context("wrong cookie")?;
            self.cookie = Some(value.to_owned());
            self.csrf = answer.json["csrf"].as_str().map(Into::into);
        }
        Ok(answer)
    }

    /// GET.
    ///
    /// # Errors
    /// If the router fails.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path, None).await
    }

    /// GET without a look at what came: status, length, and the time until the last byte.
    ///
    /// # Errors
    /// If the router fails.
    pub async fn timed(&self, path: &str) -> Result<(StatusCode, usize, Duration)> {
        let mut request = Request::builder().uri(path).header(header::HOST, "tram.test:8443");
        if let Some(cookie) = &self.cookie {
            request = request.header(header::COOKIE, format!("tram_session={cookie}"));
        }
        let mut request = request.body(Body::empty())?;
        request.extensions_mut().insert(ConnectInfo(SocketAddr::new(self.ip.parse()?, 40_000)));
        let router = self.api.router.clone();
        let began = std::time::Instant::now();
        let response = router.oneshot(request).await?;
        let status = response.status();
        let bytes = to_bytes(response.into_body(), 64 << 20).await?.len();
        Ok((status, bytes, began.elapsed()))
    }

    /// The stream of changes, behind its first event.
    ///
    /// # Errors
    /// If it is refused, or does not begin as it should.
    pub async fn follow(&self) -> Result<BodyDataStream> {
        let mut request = Request::get("/api/v1/events").header(header::HOST, "tram.test:8443");
        if let Some(cookie) = &self.cookie {
            request = request.header(header::COOKIE, format!("tram_session={cookie}"));
        }
        let mut request = request.body(Body::empty())?;
        request.extensions_mut().insert(ConnectInfo(SocketAddr::new(self.ip.parse()?, 40_000)));
        let response = self.api.router.clone().oneshot(request).await?;
        ensure!(response.status() == StatusCode::OK, "{}", response.status());
        let mut stream = response.into_body().into_data_stream();
        let first = stream.next().await.transpose()?.unwrap_or_default();
        ensure!(first.starts_with(b"event: resync"), "{first:?}");
        Ok(stream)
    }

    /// POST with a JSON body.
    ///
    /// # Errors
    /// If the router fails.
    pub async fn post(&self, path: &str, body: Value) -> Result<Answer> {
        self.send(Method::POST, path, Some(("application/json", body.to_string().into_bytes()))).await
    }

    /// PATCH with a JSON body.
    ///
    /// # Errors
    /// If the router fails.
    pub async fn patch(&self, path: &str, body: Value) -> Result<Answer> {
        self.send(Method::PATCH, path, Some(("application/json", body.to_string().into_bytes()))).await
    }

    /// DELETE.
    ///
    /// # Errors
    /// If the router fails.
    pub async fn delete(&self, path: &str) -> Result<Answer> {
        self.send(Method::DELETE, path, None).await
    }

    /// Any request; the body with its content type.
    ///
    /// # Errors
    /// If the router fails.
    pub async fn send(&self, method: Method, path: &str, body: Option<(&str, Vec<u8>)>) -> Result<Answer> {
        let mut request = Request::builder().method(&method).uri(path).header(header::HOST, "tram.test:8443");
        if let Some(cookie) = &self.cookie {
            request = request.header(header::COOKIE, format!("tram_session={cookie}"));
        }
        if method != Method::GET {
            if let Some(csrf) = &self.csrf {
                request = request.header("x-tram-csrf", csrf);
            }
            if let Some(origin) = &self.origin {
                request = request.header(header::ORIGIN, origin);
            }
        }
        let body = match body {
            Some((kind, bytes)) => {
                request = request.header(header::CONTENT_TYPE, kind);
                Body::from(bytes)
            }
            None => Body::empty(),
        };
        self.answer(request.body(body)?).await
    }

    /// Sends a request just as it is.
    ///
    /// # Errors
    /// If the router fails.
    pub async fn answer(&self, mut request: Request<Body>) -> Result<Answer> {
        let from = SocketAddr::new(self.ip.parse()?, 40_000);
        request.extensions_mut().insert(ConnectInfo(from));
        let response = self.api.router.clone().oneshot(request).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = to_bytes(response.into_body(), 64 << 20).await?;
        let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if let Some(kind) = headers.get(header::CONTENT_TYPE).filter(|_| status.is_client_error()) {
            ensure!(kind == "application/problem+json", "{status} {kind:?} {bytes:?}");
        }
        Ok(Answer { status, headers, bytes, json })
    }
}

/// Two districts of Hanoi with a few communes, two of one name.
#[must_use]
pub fn small_tree() -> Vec<Site> {
    use Level::{Commune, District, Province};
    use UnitType::{Huyen, Phuong, Quan, ThanhPho, Xa};
    let rows: [(&str, &str, UnitType, Level, Option<&str>); 8] = [
        ("01", "Hà Nội", ThanhPho, Province, None),
        (DISTRICT, "Ba Đình", Quan, District, Some("01")),
        ("017", "Đông Anh", Huyen, District, Some("01")),
        (COMMUNE, "Trúc Bạch", Phuong, Commune, Some(DISTRICT)),
        ("00006", "Vĩnh Phúc", Phuong, Commune, Some(DISTRICT)),
        (ELSEWHERE, "Cổ Loa", Xa, Commune, Some("017")),
        ("00454", "Đông Anh", UnitType::ThiTran, Commune, Some("017")),
        ("00460", "Vĩnh Ngọc", Xa, Commune, Some("017")),
    ];
    let from: Day = "2016-01-01".parse().unwrap_or_else(|e| unreachable!("{e}"));
    let site = |(code, short, kind, level, parent): (&str, &str, UnitType, Level, Option<&str>)| {
        let first: String = kind.as_str().chars().take(1).flat_map(char::to_uppercase).collect();
        let rest: String = kind.as_str().chars().skip(1).collect();
        Site {
            code: code.into(),
            name: format!("{first}{rest} {short}"),
            short_name: short.into(),
            kind,
            level,
            parent_code: parent.map(Into::into),
            phase: None,
            alt_name: None,
            valid_from: from,
            valid_to: None,
        }
    };
    rows.into_iter().map(site).collect()
}
