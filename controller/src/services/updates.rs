//! Releases of the agent: taking one in, letting it spread, holding it, and what an endpoint is told.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use metrics::{counter, gauge};
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::types::Json;
use tram_wire::ids::EndpointId;
use tram_wire::update::{Answer, Ask, MAX_SIZE, Manifest, Offer, SignedManifest};
use uuid::Uuid;

use super::{App, Ctx, Error, Result, audit, sla};
use crate::domain::access::Role;
use crate::domain::lease::hex;
use crate::domain::rings::{self, RingCounts, RolloutState, Step, UpdateRing, UpdateStage};
use crate::domain::time::Time;
use crate::identity::releases::ReleaseFault;
use crate::store::StoreError;
use crate::store::endpoints::Endpoint;
use crate::store::updates::{Member, Release, Told};

/// Not heard for so long: not waited for.
const SILENT: Duration = Duration::from_secs(24 * 3600);
/// A computer that keeps a copy and was heard within this time is asked first.
const KEEPER_SEEN: Duration = Duration::from_secs(1800);
/// Where the line is paid by the byte, computers ask so many times less often: a question costs more than what they
/// report in an hour.
const METERED_TIMES: u32 = 4;
/// While a site's copy is on its way, its computers ask again so often.
const SOON_S: u32 = 60;
/// A computer that a release has not reached yet asks so often at least, four times less often where bytes are paid.
const UNDER_WAY: Duration = Duration::from_secs(3600);
/// Longest reason of an operator, and longest word of an endpoint.
const REASON_MOST: usize = 500;

/// Counts of a release by ring.
pub type Counts = BTreeMap<UpdateRing, RingCounts>;

/// All releases with their counts, the newest first.
///
/// # Errors
/// [`Error::Forbidden`] for officers.
pub async fn list(app: &App, ctx: &Ctx) -> Result<Vec<(Release, Counts)>> {
    ctx.require(&[Role::Operator, Role::Support])?;
    let mut all = Vec::new();
    for release in app.store.releases().await? {
        let counts = app.store.ring_counts(&release, ctx.now.minus(SILENT)).await?;
        all.push((release, counts));
    }
    Ok(all)
}

/// A release with what is known of it.
#[derive(Clone, Debug)]
pub struct Known {
    /// It.
    pub release: Release,
    /// How its rings are.
    pub counts: Counts,
    /// Computers in scope that something went wrong with.
    pub failures: Vec<Member>,
    /// Computers that keep a copy for their office.
    pub copies: i64,
    /// Bytes that computers fetched from such copies.
    pub from_peers: i64,
}

/// One release.
///
/// # Errors
/// [`Error::NotFound`] `V-100`, [`Error::Forbidden`].
pub async fn get(app: &App, ctx: &Ctx, id: Uuid) -> Result<Known> {
    ctx.require(&[Role::Operator, Role::Support])?;
    let release = app.store.release(id).await?.ok_or_else(not_found)?;
    let counts = app.store.ring_counts(&release, ctx.now.minus(SILENT)).await?;
    let scope = ctx.caller.scope();
    let failures = app.store.release_failures(id).await?.into_iter().filter(|m| scope.covers(&m.site_code)).collect();
    let (copies, from_peers) = app.store.release_copies(&release).await?;
    Ok(Known { release, counts, failures, copies, from_peers })
}

fn not_found() -> Error {
    Error::NotFound("V-100", "there is no such release".into())
}

/// Takes a signed release in and lets it spread, in place of the one before it.
///
/// # Errors
/// [`Error::Invalid`]: `V-101` the manifest, `V-102` its signatures, `V-103` the program is another one, `V-104` its
/// counter is not larger than the last, `V-105` it has expired.
pub async fn publish(
    app: &App,
    ctx: &Ctx,
    signed: SignedManifest,
    program: &Path,
    (hotfix, any_time): (bool, bool),
) -> Result<Release> {
    ctx.require(&[Role::Operator])?;
    let manifest = app.signers.prove(&signed).map_err(fault)?;
    if manifest.expires_ms <= ctx.now.micros() / 1000 {
        return Err(Error::field("manifest", "V-105", "the manifest has expired; sign a new one"));
    }
    let bytes = read(program, &manifest)?;
    let too_large = |_| Error::field("manifest", "V-101", "a number of the manifest is too large");
    let counter = i64::try_from(manifest.counter).map_err(too_large)?;
    let now = ctx.now.micros();
    let release = Release {
        id: Uuid::now_v7(),
        counter,
        version: manifest.version.clone(),
        arch: manifest.arch.clone(),
        sha256: manifest.sha256.clone(),
        size: i64::try_from(manifest.size).map_err(too_large)?,
        widest: manifest.ring.into(),
        manifest: signed.manifest,
        signatures: Json(signed.signatures),
        hotfix,
        any_time,
        state: RolloutState::Running,
        reason: String::new(),
        ring: UpdateRing::Lab,
        ring_since: now,
        forgiven_at: now,
        expires_at: manifest.expires_ms.saturating_mul(1000),
        created_by: ctx.caller.name().to_owned(),
        created_at: now,
        changed_at: now,
    };
    let members = app.rings.assign(&app.store.update_computers(&release.arch).await?);
    let mut tx = app.store.begin().await?;
    let newest = tx.newest_release().await?;
    if counter <= newest {
        let why = format!("the counter {counter} is not larger than {newest}, the last one: computers would refuse it");
        return Err(Error::field("manifest", "V-104", why));
    }
    tx.add_program(&release.sha256, &bytes).await?;
    tx.supersede_releases(&release.arch, ctx.now).await?;
    match tx.add_release(&release).await {
        Err(StoreError::Duplicate(_)) => {
            return Err(Error::Conflict("V-106", "another release was published at the same time".into()));
        }
        other => other?,
    }
    tx.add_release_members(release.id, &members, ctx.now).await?;
    let keys: Vec<&str> = release.signatures.iter().map(|s| s.key.as_str()).collect();
    let detail = json!({"version": release.version, "counter": counter, "arch": release.arch, "sha256": release.sha256,
        "widest": release.widest, "hotfix": hotfix, "any_time": any_time, "keys": keys, "computers": members.len()});
    audit(&mut tx, ctx, "update.publish", &release.id.to_string(), detail).await?;
    tx.commit().await?;
    Ok(release)
}

fn fault(e: ReleaseFault) -> Error {
    let code = if matches!(e, ReleaseFault::Manifest(..)) { "V-101" } else { "V-102" };
    Error::field("manifest", code, e.to_string())
}

fn read(program: &Path, manifest: &Manifest) -> Result<Vec<u8>> {
    let fault = |why: String| Error::field("program", "V-103", why);
    let size = std::fs::metadata(program).map_err(|e| fault(format!("{}: {e}", program.display())))?.len();
    if size != manifest.size || size > MAX_SIZE {
        return Err(fault(format!("the program has {size} bytes, the manifest says {}", manifest.size)));
    }
    let bytes = std::fs::read(program).map_err(|e| fault(format!("{}: {e}", program.display())))?;
    if hex(&Sha256::digest(&bytes)) != manifest.sha256 {
        return Err(fault("the program is not the one that was signed".to_owned()));
    }
    Ok(bytes)
}

/// What an operator wants of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Hold it: nobody begins any more.
    Pause,
    /// Let it go on; failures so far are forgiven.
    Resume,
    /// Give it up for good. Who runs it goes on with it.
    Abort,
}

impl Wish {
    fn course(self) -> (&'static [RolloutState], RolloutState, &'static str) {
        use RolloutState::{Aborted, Done, Paused, Running, Stopped};
        match self {
            Self::Pause => (&[Running], Paused, "update.pause"),
            Self::Resume => (&[Paused, Stopped], Running, "update.resume"),
            Self::Abort => (&[Running, Paused, Stopped, Done], Aborted, "update.abort"),
        }
    }
}

/// Does what an operator wants of a release.
///
/// # Errors
/// [`Error::NotFound`] `V-100`; [`Error::Conflict`] `V-107` if it is in no state for that; [`Error::Invalid`] `V-108`.
pub async fn wish(app: &App, ctx: &Ctx, id: Uuid, wish: Wish, reason: &str) -> Result<()> {
    ctx.require(&[Role::Operator])?;
    let reason = reason.trim();
    if reason.chars().count() > REASON_MOST || reason.chars().any(char::is_control) {
        return Err(Error::field("reason", "V-108", format!("write at most {REASON_MOST} characters on one line")));
    }
    let release = app.store.release(id).await?.ok_or_else(not_found)?;
    let (from, to, action) = wish.course();
    let mut tx = app.store.begin().await?;
    if !tx.move_release(id, from, to, reason, wish == Wish::Resume, ctx.now).await? {
        let why = format!("the release is {}; that can't be done now", release.state);
        return Err(Error::Conflict("V-107", why));
    }
    audit(&mut tx, ctx, action, &id.to_string(), json!({"version": release.version, "reason": reason})).await?;
    tx.commit().await?;
    counter!("update_wishes_total", "wish" => to.as_str()).increment(1);
    Ok(())
}

/// Lets the next ring in, or stops a release, as the rules say.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn advance(app: &App, now: Time) -> Result<()> {
    for release in app.store.spreading().await? {
        let counts = app.store.ring_counts(&release, now.minus(SILENT)).await?;
        measure(&release, &counts);
        let opened = Time::from_micros(release.ring_since);
        let step = rings::decide(release.ring, release.widest, opened, &counts, &app.rings, now);
        let ctx = Ctx::system(now);
        let mut tx = app.store.begin().await?;
        let (moved, action, detail) = match step {
            Step::Stay => continue,
            Step::Open(next) => {
                let moved = tx.open_ring(release.id, release.ring, next, now).await?;
                (moved, "update.ring", json!({"version": release.version, "ring": next}))
            }
            Step::Stop(ring) => {
                let reason = format!("too many failures in ring {ring}");
                let to = RolloutState::Stopped;
                let moved = tx.move_release(release.id, &[RolloutState::Running], to, &reason, false, now).await?;
                tracing::warn!(version = release.version, %ring, "a release of the agent was stopped");
                (moved, "update.stop", json!({"version": release.version, "ring": ring}))
            }
            Step::Finish => {
                let to = RolloutState::Done;
                let moved = tx.move_release(release.id, &[RolloutState::Running], to, "", false, now).await?;
                (moved, "update.done", json!({"version": release.version}))
            }
        };
        if moved {
            audit(&mut tx, &ctx, action, &release.id.to_string(), detail).await?;
            tx.commit().await?;
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "counts of computers")]
fn measure(release: &Release, counts: &Counts) {
    let mut sum = RingCounts::default();
    for c in counts.values() {
        sum.total += c.total;
        sum.committed += c.committed;
        sum.failed += c.failed;
        sum.busy += c.busy;
    }
    for (what, n) in [("all", sum.total), ("committed", sum.committed), ("failed", sum.failed), ("busy", sum.busy)] {
        gauge!("update_computers", "arch" => release.arch.clone(), "is" => what).set(n as f64);
    }
}

/// What an endpoint's updater is told, after what it said was written down.
///
/// # Errors
/// [`Error::Unavailable`]; [`Error::Invalid`] `V-109` for what no updater says.
pub async fn answer(app: &App, at: &Endpoint, ask: &Ask, now: Time) -> Result<Answer> {
    let plain = |t: &str, most: usize| t.len() <= most && !t.chars().any(char::is_control);
    let p = ask.progress.as_ref();
    let sound = plain(&ask.arch, 32)
        && ask.release.as_deref().is_none_or(|t| plain(t, 64))
        && ask.keeps.as_deref().is_none_or(tram_wire::update::is_sha256)
        && ask.keeps_at.as_deref().is_none_or(|t| t.parse::<std::net::SocketAddr>().is_ok())
        && p.is_none_or(|p| plain(&p.code, 64));
    if !sound {
        return Err(Error::field("ask", "V-109", "this is nothing an updater says"));
    }
    if note(app, at.id, ask, now).await? {
        // At once, before anybody else is told to begin.
        advance(app, now).await?;
    }
    let rings = &app.rings;
    let keep = app.store.keeps_for_site(&at.site_code, at.id).await?;
    let seconds = |d: Duration| u32::try_from(d.as_secs()).unwrap_or(u32::MAX).max(1);
    let again_s = seconds(again(at, app.rings.again));
    let none = Answer { offer: None, again_s, keep };
    let Some(release) = app.store.release_for(&ask.arch).await? else { return Ok(none) };
    if !matches!(release.state, RolloutState::Running | RolloutState::Done) || release.expires_at <= now.micros() {
        return Ok(none);
    }
    let member = member(app, at, &release, now).await?;
    let Some(member) = member else { return Ok(none) };
    let signed = SignedManifest { manifest: release.manifest.clone(), signatures: release.signatures.0.clone() };
    let alive_s = u32::try_from(rings.alive.as_secs()).unwrap_or(u32::MAX).max(1);
    let offer = |wait_s, peers| Offer { signed: signed.clone(), ring: member.ring.into(), wait_s, alive_s, peers };
    let let_in = member.ring <= release.ring;
    if !let_in || member.stage == UpdateStage::Committed {
        // It may have to keep a copy for others all the same.
        let others = keep
            && ask.keeps.as_deref() != Some(release.sha256.as_str())
            && app.store.rings_of_site(release.id, &at.site_code, at.id).await?.iter().any(|r| *r <= release.ring);
        let again_s = if let_in { again_s } else { again_s.min(seconds(again(at, UNDER_WAY))) };
        return Ok(Answer { offer: others.then(|| offer(None, Vec::new())), again_s, ..none });
    }
    let again_s = again_s.min(seconds(again(at, UNDER_WAY)));
    let opened = Time::from_micros(release.ring_since.max(release.created_at));
    let due = rings.due(at.id, release.counter, opened, release.hotfix);
    let hours = if release.any_time { None } else { Some(sla::hours(app).await?) };
    let wait = rings.wait(due, now, hours.as_ref(), app.store.works_at(at.id).await?);
    let peers = match peers(app, at, &release, now).await? {
        Peers::Soon if now < due.plus(rings.peer_patience) => {
            return Ok(Answer { again_s: SOON_S.min(again_s), ..none });
        }
        Peers::Soon | Peers::None => Vec::new(),
        Peers::At(at) => vec![at],
    };
    Ok(Answer { offer: Some(offer(Some(wait.as_secs()), peers)), again_s, ..none })
}

/// How often this computer's updater asks where others do so often.
fn again(at: &Endpoint, others: Duration) -> Duration {
    if at.metered { others * METERED_TIMES } else { others }
}

/// Writes down what an updater said; whether a failure was news.
async fn note(app: &App, id: EndpointId, ask: &Ask, now: Time) -> Result<bool> {
    let mut failed = false;
    let mut tx = app.store.begin().await?;
    tx.updater_said(id, ask, now).await?;
    if let Some(p) = &ask.progress {
        let detail: String = p.detail.chars().filter(|c| !c.is_control()).take(REASON_MOST).collect();
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let told = Told {
            stage: p.stage.into(),
            code: &p.code,
            detail: &detail,
            strikes: i64::from(p.strikes),
            bytes: number(p.bytes),
            from_peer: number(p.from_peer),
        };
        if tx.member_told(number(p.counter), id, &told, now).await? {
            counter!("update_stages_total", "stage" => told.stage.as_str()).increment(1);
            failed = told.stage.failed();
        }
    }
    tx.commit().await?;
    Ok(failed)
}

/// A computer's part in a release; one that came later gets one.
async fn member(app: &App, at: &Endpoint, release: &Release, now: Time) -> Result<Option<Member>> {
    if let Some(member) = app.store.release_member(release.id, at.id).await? {
        return Ok(Some(member));
    }
    let mut tx = app.store.begin().await?;
    tx.add_release_members(release.id, &[(at.id, app.rings.late(at.id, &at.site_code))], now).await?;
    tx.commit().await?;
    Ok(app.store.release_member(release.id, at.id).await?)
}

/// The copy of a site.
enum Peers {
    /// There is none to wait for.
    None,
    /// Its keeper is there and fetches it.
    Soon,
    /// It is there.
    At(String),
}

async fn peers(app: &App, at: &Endpoint, release: &Release, now: Time) -> Result<Peers> {
    let Some(keeper) = app.store.keeper_of(&at.site_code, at.id).await? else { return Ok(Peers::None) };
    let seen = now.since(Time::from_micros(keeper.seen_at));
    let Some(address) = keeper.keeps_at.filter(|_| seen < KEEPER_SEEN.max(again(at, app.rings.again) * 3)) else {
        return Ok(Peers::None);
    };
    Ok(if keeper.keeps.as_deref() == Some(release.sha256.as_str()) { Peers::At(address) } else { Peers::Soon })
}

/// The program of a release, for an endpoint that was told its SHA-256.
///
/// # Errors
/// [`Error::NotFound`] `V-100`.
pub async fn program(app: &App, sha256: &str) -> Result<Vec<u8>> {
    app.store.program(sha256).await?.ok_or_else(not_found)
}
