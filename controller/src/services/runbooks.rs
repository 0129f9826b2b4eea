//! Runbooks: which there are, and using them for an incident or a call.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::counter;
use serde_json::{Value, json};
use sqlx::types::Json;
use tram_wire::check::{CheckState, Finding};
use tram_wire::ids::{EndpointId, IncidentId};
use uuid::Uuid;

use super::{App, Ctx, Error, Result, audit, calls, incidents};
use crate::domain::access::Role;
use crate::domain::endpoint::EndpointState;
use crate::domain::runbook::{self, RunState};
use crate::domain::time::Time;
use crate::identity::shelf::{Book, Refused};
use crate::nudge::Kind;
use crate::store::runbooks::{Given, Run};
use crate::store::{StoreError, Tx};

/// Longest note beside an answer.
const NOTE_MOST: usize = 2000;
/// For so long it may still turn out that a runbook helped.
const HELPS_WITHIN: Duration = Duration::from_secs(24 * 3600);

/// What a runbook is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An incident.
    Incident(IncidentId),
    /// An officer's call.
    Call(Uuid),
}

fn staff(ctx: &Ctx) -> Result<()> {
    ctx.require(&[Role::Operator, Role::Support])
}

async fn shelf(app: &App) -> Result<(Vec<Book>, Vec<Refused>)> {
    let shelf = app.runbooks.clone();
    tokio::task::spawn_blocking(move || shelf.read()).await.map_err(|e| Error::Internal(Box::new(e)))
}

/// How often a runbook was used, and how often it helped.
pub type Counts = BTreeMap<String, (i64, i64)>;

/// All runbooks, files that are refused, and how they fared.
///
/// # Errors
/// [`Error::Forbidden`] for officers.
pub async fn list(app: &App, ctx: &Ctx) -> Result<(Vec<Book>, Vec<Refused>, Counts)> {
    staff(ctx)?;
    let (books, refused) = shelf(app).await?;
    let mut counts = Counts::new();
    for (name, state, n) in app.store.runbook_counts().await? {
        let count = counts.entry(name).or_default();
        count.0 += n;
        count.1 += if state == RunState::Fixed.as_str() { n } else { 0 };
    }
    Ok((books, refused, counts))
}

/// Uses for an incident or a call, the newest first, with their answers.
///
/// # Errors
/// [`Error::NotFound`], also out of scope.
pub async fn runs(app: &App, ctx: &Ctx, of: Subject) -> Result<Vec<(Run, Vec<Given>)>> {
    let (incident, call) = match of {
        Subject::Incident(id) => {
            incidents::get(app, ctx, id).await?;
            (Some(id), None)
        }
        Subject::Call(id) => {
            calls::get(app, ctx, id).await?;
            (None, Some(id))
        }
    };
    let mut out = Vec::new();
    for run in app.store.runbook_runs(incident, call).await? {
        let answers = app.store.runbook_answers(run.id).await?;
        out.push((run, answers));
    }
    Ok(out)
}

/// Begins to use a runbook.
///
/// # Errors
/// [`Error::NotFound`] for the runbook (`R-100`), the incident or the call.
pub async fn start(app: &App, ctx: &Ctx, runbook: &str, of: Subject) -> Result<Run> {
    staff(ctx)?;
    let about = about(app, ctx, of).await?;
    let found = shelf(app).await?.0.into_iter().find(|b| b.runbook.id == runbook);
    let book = found.ok_or_else(|| Error::NotFound("R-100", "there is no such runbook, or it is refused".into()))?;
    let run = Run {
        id: Uuid::now_v7(),
        runbook: book.runbook.id.clone(),
        book: Json(book.runbook),
        incident_id: if let Subject::Incident(id) = of { Some(id.0) } else { None },
        call_id: if let Subject::Call(id) = of { Some(id) } else { None },
        endpoint_id: about.endpoint.map(|e| e.0),
        site_code: about.site,
        failed: Json(about.failed),
        state: RunState::Running,
        started_by: ctx.caller.name().to_owned(),
        started_at: ctx.now.micros(),
        answered_at: None,
        over_at: None,
    };
    let mut tx = app.store.begin().await?;
    tx.add_run(&run).await?;
    happened(&mut tx, &run, ctx.caller.name(), RunState::Running, ctx.now).await?;
    audit(
        &mut tx,
        ctx,
        "runbook.start",
        &run.id.to_string(),
        json!({"runbook": run.runbook, "version": run.book.0.version}),
    )
    .await?;
    tx.commit().await?;
    Ok(run)
}

/// What a use is about.
struct About {
    endpoint: Option<EndpointId>,
    site: String,
    failed: Vec<String>,
}

async fn about(app: &App, ctx: &Ctx, of: Subject) -> Result<About> {
    match of {
        Subject::Incident(id) => {
            let (i, sites, _) = incidents::get(app, ctx, id).await?;
            let endpoint = i.scope.strip_prefix("endpoint:").and_then(|id| id.parse().ok());
            let failed = if endpoint.is_some() && !i.detail.is_empty() { vec![i.detail] } else { Vec::new() };
            Ok(About { endpoint, site: sites.into_iter().next().unwrap_or_default(), failed })
        }
        Subject::Call(id) => {
            let (c, ..) = calls::get(app, ctx, id).await?;
            let findings = c.snapshot.map(|mut s| s["findings"].take()).unwrap_or_default();
            let failed = states(findings).into_iter().filter(|(_, good)| !good).map(|(check, _)| check).collect();
            Ok(About { endpoint: Some(c.endpoint_id), site: c.site_code, failed })
        }
    }
}

/// Checks by name, and whether they are good.
fn states(findings: Value) -> BTreeMap<String, bool> {
    let all: Vec<Finding> = serde_json::from_value(findings).unwrap_or_default();
    let mut out = BTreeMap::new();
    for f in all.into_iter().filter(|f| f.state != CheckState::Unknown) {
        // A check may find several things: it is good if all are.
        *out.entry(f.check).or_insert(true) &= f.state == CheckState::Ok;
    }
    out
}

async fn find(app: &App, ctx: &Ctx, id: Uuid) -> Result<Run> {
    staff(ctx)?;
    let run = app.store.runbook_run(id).await?.ok_or_else(not_found)?;
    // Whoever may see what it is for, may see it.
    match (run.incident_id, run.call_id) {
        (Some(i), _) => _ = incidents::get(app, ctx, i.into()).await.map_err(|_| not_found())?,
        (_, Some(c)) => _ = calls::get(app, ctx, c).await.map_err(|_| not_found())?,
        (None, None) => {}
    }
    Ok(run)
}

/// Writes down what was answered; after the last question it shows whether it helped.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Conflict`] `R-101` if it is over, or another question's turn; [`Error::Invalid`] `R-102`.
pub async fn answer(app: &App, ctx: &Ctx, id: Uuid, step: &str, answer: &str, note: &str) -> Result<Run> {
    let run = find(app, ctx, id).await?;
    let note = note.trim();
    if note.chars().count() > NOTE_MOST || note.chars().any(|c| c.is_control() && c != '\n') {
        return Err(Error::field("note", "R-102", format!("write at most {NOTE_MOST} characters")));
    }
    if run.state != RunState::Running {
        return Err(turn());
    }
    let mut tx = app.store.begin().await?;
    let mut given = tx.answers_of_run(id).await?;
    let asked = run.book.0.next(&given).ok().flatten().filter(|s| s.id == step).ok_or_else(turn)?;
    if asked.answers.is_empty() && note.is_empty() {
        return Err(Error::field("note", "R-102", "write down what was said"));
    }
    if !asked.answers.is_empty() && asked.answers.iter().all(|a| a.id != answer) {
        return Err(Error::field("answer", "R-102", "choose one of the answers of this question"));
    }
    let answer = if asked.answers.is_empty() { "" } else { answer };
    let n = i64::try_from(given.len()).unwrap_or(i64::MAX);
    let kept = Given {
        run_id: id,
        step: step.to_owned(),
        answer: answer.to_owned(),
        note: note.to_owned(),
        actor: ctx.caller.name().to_owned(),
        at: ctx.now.micros(),
    };
    tx.add_answer(n, &kept).await.map_err(|e| match e {
        StoreError::Duplicate(_) => turn(),
        e => e.into(),
    })?;
    // Whoever else looks at it sees the answer, too.
    run.incident_id.into_iter().for_each(|id| tx.touch(Kind::Incident, id));
    run.call_id.into_iter().for_each(|id| tx.touch(Kind::Call, id));
    given.push((step.to_owned(), answer.to_owned()));
    if matches!(run.book.0.next(&given), Ok(None)) {
        tx.move_run(id, RunState::Running, RunState::Answered, ctx.now).await?;
        happened(&mut tx, &run, ctx.caller.name(), RunState::Answered, ctx.now).await?;
    }
    audit(
        &mut tx,
        ctx,
        "runbook.answer",
        &id.to_string(),
        json!({"runbook": run.runbook, "step": step, "answer": answer}),
    )
    .await?;
    tx.commit().await?;
    let run = app.store.runbook_run(id).await?.ok_or_else(not_found)?;
    judge(app, &run, ctx.now).await?;
    app.store.runbook_run(id).await?.ok_or_else(not_found)
}

/// Gives a use up.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Conflict`] `R-101` if it is over.
pub async fn leave(app: &App, ctx: &Ctx, id: Uuid) -> Result<Run> {
    let run = find(app, ctx, id).await?;
    let mut tx = app.store.begin().await?;
    if !tx.move_run(id, RunState::Running, RunState::Left, ctx.now).await? {
        return Err(turn());
    }
    happened(&mut tx, &run, ctx.caller.name(), RunState::Left, ctx.now).await?;
    audit(&mut tx, ctx, "runbook.leave", &id.to_string(), json!({"runbook": run.runbook})).await?;
    tx.commit().await?;
    app.store.runbook_run(id).await?.ok_or_else(not_found)
}

/// Looks whether uses that were answered have helped meanwhile.
///
/// # Errors
/// Those of the store.
pub async fn settle(app: &App, now: Time) -> Result<()> {
    for run in app.store.answered_runs(now.minus(HELPS_WITHIN)).await? {
        judge(app, &run, now).await?;
    }
    Ok(())
}

/// *Fixed* is only what is good again, whoever says otherwise.
async fn judge(app: &App, run: &Run, now: Time) -> Result<()> {
    if run.state != RunState::Answered || !is_good(app, run).await? {
        return Ok(());
    }
    let mut tx = app.store.begin().await?;
    if tx.move_run(run.id, RunState::Answered, RunState::Fixed, now).await? {
        happened(&mut tx, run, "system", RunState::Fixed, now).await?;
    }
    Ok(tx.commit().await?)
}

async fn is_good(app: &App, run: &Run) -> Result<bool> {
    if let Some(id) = run.incident_id
        && let Some(i) = app.store.incident(id.into()).await?
        && i.over_at.is_some_and(|at| at >= run.started_at)
        // What another incident explains is not good, only told elsewhere.
        && i.merged_into.is_none()
    {
        return Ok(true);
    }
    let Some(endpoint) = run.endpoint() else { return Ok(false) };
    let Some(e) = app.store.endpoint(endpoint).await? else { return Ok(false) };
    let heard = e.state == EndpointState::Online && e.reported_at.is_some_and(|at| Some(at) > run.answered_at);
    Ok(runbook::is_good(&run.failed.0, &states(e.findings), heard))
}

async fn happened(tx: &mut Tx, run: &Run, actor: &str, state: RunState, now: Time) -> Result<()> {
    counter!("runbook_runs_total", "runbook" => run.runbook.clone(), "state" => state.as_str()).increment(1);
    let detail = json!({"run": run.id, "runbook": run.runbook, "title": run.book.0.title, "state": state});
    if let Some(id) = run.incident_id {
        tx.incident_event(id.into(), "runbook", actor, detail.clone(), now).await?;
    }
    if let Some(id) = run.call_id {
        tx.call_event(id, "runbook", actor, detail, now).await?;
    }
    Ok(())
}

fn turn() -> Error {
    Error::Conflict("R-101", "another question's turn has come, or it is over; look again".into())
}

fn not_found() -> Error {
    Error::NotFound("R-103", "there is no such use of a runbook, or it isn't in your sites".into())
}
