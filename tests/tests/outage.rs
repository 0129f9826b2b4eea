//! The database is away: officers with leases still reach their desktops through the gateway, others do not, and
//! afterwards everything is written down once. The agent's own tunnel against the agents' listener and a gateway
//! before a simulated host; PostgreSQL behind a cable that is cut.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep, timeout};
use tram_agent::identity::Identity;
use tram_agent::session::control::{Control, ControlError};
use tram_agent::session::tunnel::{Line, OpenError, Over, Session};
use tram_controller::domain::session::{Policy, SessionState};
use tram_controller::fleet::Fleet;
use tram_controller::gateway::Gateway;
use tram_controller::identity::lease_keys::LeaseKeys;
use tram_controller::identity::secret::Secret;
use tram_controller::nudge::Bus;
use tram_controller::services::{App, Ctx, broker, endpoints};
use tram_controller::store::Store;
use tram_controller::store::sessions::Filter;
use tram_tests::db::{self, DbCable, TestDb};
use tram_tests::office::{Office, Plan};
use tram_tests::tunnels::{Commune, ask, rectangle, shake_hands};
use tram_tunnel::Stream;
use tram_wire::desk::SignIn;
use tram_wire::lease::{Lease, Signed};
use tram_wire::session::{Denial, Protocol};
use tram_wire::tunnel::Class;

const PATIENCE: Duration = Duration::from_secs(90);
const PASSWORD: &str = "hoa sen trang 88";

/// A commune whose database can be taken away.
struct World {
    commune: Commune,
    cable: DbCable,
    /// The database, seen from where it is.
    direct: Office,
    _db: TestDb,
}

impl World {
    async fn open(policy: Policy) -> Result<Self> {
        let db = db::postgres().await?;
        let cable = DbCable::to(&db).await?;
        let store = Store::open(&cable.url, Bus::default()).await?;
        let commune = Commune::open(&store, Plan::default(), "picture", policy).await?;
        let office = &commune.gate.office;
        let hash = office.app.passwords.hash(&Secret::from_text(PASSWORD)).await?;
        office.sql(&format!("UPDATE users SET password_hash = '{hash}'")).await?;
        let direct = Office {
            app: App { store: db.store.clone(), ..office.app.clone() },
            host: office.host,
            pool: office.pool,
            desktops: office.desktops.clone(),
            officers: office.officers.clone(),
        };
        Ok(Self { commune, cable, direct, _db: db })
    }

    /// The n-th officer works at an endpoint and has a lease.
    async fn works(&self, n: usize, at: &Identity) -> Result<(Session, Signed)> {
        let control = Control::new(at)?;
        let me = control.sign_in(&SignIn { username: format!("officer{n}"), password: PASSWORD.into() }).await?;
        let ticket = control.connect(&me.token, true).await?.ticket.context("the desktop runs")?;
        let session = Session::open(self.commune.door(at)?, &ticket.ticket).await?;
        let leased = control.lease(&me.token).await?;
        Ok((session, leased.lease.context("a lease")?))
    }

    /// By a lease, as an agent does it: again as long as nobody can tell.
    async fn by_lease(&self, at: &Identity, lease: &Signed) -> Result<Session, Denial> {
        let until = Instant::now() + PATIENCE;
        loop {
            match Session::open_by_lease(self.commune.door(at).unwrap(), lease.clone()).await {
                Ok(session) => return Ok(session),
                Err(OpenError::Refused(d)) if d != Denial::Unavailable => return Err(d),
                Err(e) => assert!(Instant::now() < until, "neither yes nor no: {e}"),
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Cut off from the database, which the gateway has seen as it is.
    async fn outage(&self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        let now = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)";
        let now = self.direct.count(now).await?;
        while self.commune.gate.gateway.leases_seen_at().is_none_or(|at| at.micros() <= now) {
            ensure!(Instant::now() < until, "the gateway does not look");
            sleep(Duration::from_millis(50)).await;
        }
        self.cable.cut();
        Ok(())
    }

    fn forged(&self, lease: &Signed, change: impl FnOnce(&mut Lease)) -> Result<Signed> {
        let mut claims = lease.unproved()?;
        change(&mut claims);
        Ok(LeaseKeys::open(&self.commune.app.data_dir)?.sign(&claims)?)
    }

    async fn audited(&self, what: &str) -> Result<i64> {
        self.direct.count(&format!("SELECT COUNT(*) FROM audit WHERE {what}")).await
    }

    async fn until_audited(&self, n: i64, what: &str) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while self.audited(what).await? != n {
            ensure!(Instant::now() < until, "{what}: {} times, not {n}", self.audited(what).await?);
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

fn vnc(session: &Session) -> Result<Stream> {
    Ok(session.stream(Protocol::Vnc, Class::Input, Class::Display)?)
}

/// The desktop as it looks, after a letter was typed if so wished.
async fn looks(stream: &mut Stream, typed: Option<u8>) -> Result<Vec<u8>> {
    let size = shake_hands(stream).await?;
    if let Some(letter) = typed {
        stream.write_all(&[4, 1, 0, 0, 0, 0, 0, letter]).await?;
    }
    ask(stream, size).await?;
    timeout(PATIENCE, rectangle(stream)).await?
}

async fn ends(session: &Session) -> Result<Over> {
    let mut status = session.status();
    let over = timeout(PATIENCE, status.wait_for(|s| matches!(s.line, Line::Over(_)))).await;
    match over.context("it goes on")??.line {
        Line::Over(over) => Ok(over),
        _ => bail!("not over"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_the_same_desktop_is_reached_and_all_is_told_once() -> Result<()> {
    let w = World::open(Policy::default()).await?;
    let here = w.commune.device().await?;
    let (session, lease) = w.works(0, &here).await?;
    let id = session.id();
    let before = looks(&mut vnc(&session)?, Some(b'a')).await?;
    session.leave().await;
    w.outage().await?;

    // The controller says neither yes nor no, and new tickets can't be had.
    let refused =
        Control::new(&here)?.sign_in(&SignIn { username: "officer0".into(), password: PASSWORD.into() }).await;
    assert!(refused.as_ref().is_err_and(ControlError::is_away), "{refused:?}");
    let session = w.by_lease(&here, &lease).await.map_err(|d| anyhow::anyhow!("{d:?}"))?;
    assert_eq!(session.id(), id);
    let mut stream = vnc(&session)?;
    assert!(looks(&mut stream, None).await? == before, "another desktop, or another state of it");
    // Again from the same computer: the former connection gives way.
    let second = w.by_lease(&here, &lease).await.map_err(|d| anyhow::anyhow!("{d:?}"))?;
    assert_eq!(ends(&session).await?, Over::Ended(4004));
    let mut stream = vnc(&second)?;
    assert!(looks(&mut stream, None).await? == before);
    assert_eq!(w.audited("action LIKE 'session.lease%'").await?, 0);
    // A controller that reaches the database before the gateway does sees nobody there, for much too long.
    w.direct.sql("UPDATE sessions SET disconnected_at = 1").await?;
    assert_eq!(broker::reap(&w.direct.app, false).await?, 0, "it ended what it knows nothing of");

    w.cable.mend();
    w.until_audited(2, "action = 'session.lease' AND actor = 'officer0' AND result = 'ok'").await?;
    w.until_audited(1, "action = 'session.lease_back'").await?;
    w.until_audited(2, "action = 'session.lease_end'").await?;
    let row = w.direct.app.store.session(id).await?.context("row")?;
    assert_eq!(row.state, SessionState::Active);
    assert!(row.leased_at.is_some() && row.epoch > 1, "{row:?}");
    let until = Instant::now() + PATIENCE;
    while w.direct.app.store.untold().await? > 0 {
        ensure!(Instant::now() < until, "the gateway does not say that it has told everything");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(broker::reap(&w.direct.app, true).await?, 0, "it goes on");
    // The connection is one like any other now: it goes on, and its end is seen.
    stream.write_all(&[4, 1, 0, 0, 0, 0, 0, b'b']).await?;
    ask(&mut stream, (1, 1)).await?;
    timeout(PATIENCE, rectangle(&mut stream)).await??;
    second.leave().await;
    let until = Instant::now() + PATIENCE;
    while w.direct.app.store.session(id).await?.context("row")?.state != SessionState::Disconnected {
        ensure!(Instant::now() < until, "its end was not seen");
        sleep(Duration::from_millis(50)).await;
    }
    // With the database there, the lease is judged by it: as good as a ticket.
    let third = w.by_lease(&here, &lease).await.map_err(|d| anyhow::anyhow!("{d:?}"))?;
    assert!(looks(&mut vnc(&third)?, None).await? != before, "what was typed shows");
    w.until_audited(3, "action = 'session.lease'").await?;
    assert_eq!(w.audited("action = 'session.lease_end'").await?, 2, "told once");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_opens_nothing_for_anybody_else_or_at_another_time() -> Result<()> {
    let w = World::open(Policy::default()).await?;
    let (here, there, gone) = (w.commune.device().await?, w.commune.device().await?, w.commune.device().await?);
    let (session, lease) = w.works(0, &here).await?;
    // An endpoint that was withdrawn, and a session that was ended, some time before.
    let (other, ended) = w.works(1, &gone).await?;
    let admin = Ctx::local_admin(w.commune.app.clock.now());
    endpoints::revoke(&w.commune.app, &admin, gone.endpoint_id, "stolen").await?;
    assert_eq!(ends(&other).await?, Over::Ended(4000));
    let claims = ended.unproved()?;
    // With the database there it is refused at the door, by its certificate.
    let dialled = Session::open_by_lease(w.commune.door(&gone)?, ended.clone()).await;
    assert!(dialled.is_err());
    session.leave().await;
    w.outage().await?;

    let hour = 3_600_000;
    let flipped = |at: usize| {
        let mut text = lease.lease.clone().into_bytes();
        text[at] ^= 1;
        String::from_utf8(text).map(|lease_text| Signed { lease: lease_text, ..lease.clone() })
    };
    let stranger = tempfile::tempdir()?;
    let bad = [
        ("a flipped bit", flipped(lease.lease.find("officer0").context("a name")?)?),
        ("a later end", Signed { lease: lease.lease.replace("\"expires_ms\":1", "\"expires_ms\":2"), ..lease.clone() }),
        ("a forged key", LeaseKeys::open(stranger.path())?.sign(&lease.unproved()?)?),
        ("no signature", Signed { signature: String::new(), ..lease.clone() }),
        ("over", w.forged(&lease, |l| (l.issued_ms, l.expires_ms) = (l.issued_ms - 2 * hour, l.issued_ms - hour))?),
        ("not yet", w.forged(&lease, |l| l.not_before_ms += hour)?),
        ("another endpoint's", w.forged(&lease, |l| l.endpoint = there.endpoint_id)?),
        ("another installation's", w.forged(&lease, |l| l.installation = uuid::Uuid::nil().into())?),
        ("a desktop that was made anew", w.forged(&lease, |l| l.generation += 1)?),
        ("an ended session's, of before the last look", w.forged(&lease, |l| (l.id, l.issued_ms) = (claims.id, 1))?),
    ];
    for (what, bad) in &bad {
        assert_eq!(w.by_lease(&here, bad).await.err(), Some(Denial::Lease), "{what}");
    }
    assert_eq!(w.by_lease(&there, &lease).await.err(), Some(Denial::Lease), "another endpoint's certificate");
    assert_eq!(w.by_lease(&gone, &ended).await.err(), Some(Denial::Lease), "a withdrawn endpoint");
    let stopped = w.forged(&lease, |l| l.host = uuid::Uuid::nil().into())?;
    assert_eq!(w.by_lease(&here, &stopped).await.err(), Some(Denial::Desktop), "a host nobody knows");
    // The right one works, and then the desktop is taken: for another place even with a lease of its own.
    let held = w.by_lease(&here, &lease).await.map_err(|d| anyhow::anyhow!("{d:?}"))?;
    let certificate = match Commune::binding(&there)? {
        tram_controller::domain::ticket::Binding::Endpoint { certificate, .. } => certificate,
        tram_controller::domain::ticket::Binding::Browser(_) => bail!("an endpoint is no browser"),
    };
    let theirs = w.forged(&lease, |l| {
        l.endpoint = there.endpoint_id;
        l.certificate = tram_controller::domain::lease::hex(&certificate);
    })?;
    assert_eq!(w.by_lease(&there, &theirs).await.err(), Some(Denial::Elsewhere));
    assert!(!looks(&mut vnc(&held)?, None).await?.is_empty());

    let refused = bad.len() as i64 + 4;
    w.cable.mend();
    w.until_audited(refused, "action = 'lease.refuse' AND result = 'G-112'").await?;
    // What nobody signed names nobody.
    assert_eq!(w.audited("action = 'lease.refuse' AND actor = ''").await?, 4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_withdrawn_meanwhile_is_cut_when_the_database_is_back() -> Result<()> {
    let w = World::open(Policy::default()).await?;
    let (a, b) = (w.commune.device().await?, w.commune.device().await?);
    let (first, lease_a) = w.works(0, &a).await?;
    let (second, lease_b) = w.works(1, &b).await?;
    first.leave().await;
    second.leave().await;
    w.outage().await?;
    let first = w.by_lease(&a, &lease_a).await.map_err(|d| anyhow::anyhow!("{d:?}"))?;
    let second = w.by_lease(&b, &lease_b).await.map_err(|d| anyhow::anyhow!("{d:?}"))?;
    // Elsewhere the database is there: an account is switched off, an endpoint withdrawn long ago.
    w.direct.sql("UPDATE users SET disabled = TRUE WHERE username = 'officer0'").await?;
    let b_id = b.endpoint_id;
    w.direct.sql(&format!("UPDATE endpoints SET state = 'revoked', revoked_at = 1 WHERE id = '{b_id}'")).await?;
    w.cable.mend();
    assert_eq!(ends(&first).await?, Over::Ended(4000));
    assert_eq!(ends(&second).await?, Over::Ended(4000));
    w.until_audited(2, "action = 'session.lease_end'").await?;
    assert_eq!(w.audited("action = 'session.lease_back'").await?, 0);
    let live = w.direct.app.store.sessions(&Filter::live()).await?.0;
    assert!(live.iter().all(|s| s.state != SessionState::Active), "{live:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_was_killed_tells_of_it_when_it_is_back() -> Result<()> {
    let w = World::open(Policy::default()).await?;
    let (here, there) = (w.commune.device().await?, w.commune.device().await?);
    let (session, lease) = w.works(0, &here).await?;
    session.leave().await;
    w.outage().await?;
    let session = w.by_lease(&here, &lease).await.map_err(|d| anyhow::anyhow!("{d:?}"))?;
    assert_eq!(w.by_lease(&there, &lease).await.err(), Some(Denial::Lease));
    w.commune.gate.vanish();
    w.cable.mend();
    assert_eq!(w.audited("action = 'session.lease'").await?, 0);
    // Two of them on one folder: each event is still taken in once.
    let app = w.commune.gate.office.app.clone();
    for _ in 0..2 {
        let next = Gateway::new(app.clone(), Fleet::default(), Policy::default());
        tokio::spawn(async move { next.watch().await });
    }
    w.until_audited(1, "action = 'session.lease'").await?;
    w.until_audited(1, "action = 'lease.refuse'").await?;
    let until = Instant::now() + PATIENCE;
    while app.data_dir.join("lease-events.jsonl").exists() {
        ensure!(Instant::now() < until, "what was told is still kept");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(w.audited("action = 'session.lease' OR action = 'lease.refuse'").await?, 2);
    drop(session);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_can_be_switched_off() -> Result<()> {
    let w = World::open(Policy { lease: Duration::ZERO, ..Policy::default() }).await?;
    let here = w.commune.device().await?;
    assert!(w.works(0, &here).await.is_err(), "a lease was issued");
    Ok(())
}
