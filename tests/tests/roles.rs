//! Who may call what: every operation of the committed OpenAPI, as everybody.
//!
//! The table below is the specification. An operation that is in the API and not in the table, or the other
//! way round, fails; so does every cell that answers otherwise.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode, header};
use serde_json::{Value, json};
use tower::ServiceExt;
use tram_controller::domain::access::Role;
use tram_controller::domain::approval::Approval;
use tram_controller::domain::diagnosis::DiagnosisState;
use tram_controller::domain::incident::{Cause, Confidence, Judgement, Scope, Severity};
use tram_controller::domain::notify::{Channel, When};
use tram_controller::domain::rings::{RolloutState, UpdateRing};
use tram_controller::domain::ticket::Binding;
use tram_controller::domain::time::Time;
use tram_controller::services::Ctx;
use tram_controller::services::notify::{self, NewRule};
use tram_controller::services::runbooks::{self, Subject};
use tram_controller::store::Store;
use tram_controller::store::calls::NewCall;
use tram_controller::store::diagnosis::NewDiagnosis;
use tram_controller::store::endpoints::NewToken;
use tram_controller::store::enrolments::NewEnrolment;
use tram_controller::store::gateways::Me;
use tram_controller::store::updates::Release;
use tram_tests::db;
use tram_tests::http::{Browser, COMMUNE, DISTRICT, ORIGIN, PASSWORD, TestApi};
use tram_tests::office::{Office, Plan};
use tram_wire::call::code;
use tram_wire::diagnosis::Work;
use tram_wire::ids::{EndpointId, IncidentId, OrderId, UserId};
use tram_wire::instance::Marks;
use uuid::Uuid;

/// As whom, in the order of the table's letters: nobody; the officer whose session it is; support of another
/// district; support of the desktop's district; operator.
const CALLERS: [&str; 5] = ["nobody", "officer", "support elsewhere", "support", "operator"];

/// Operation and one letter for each of [`CALLERS`]: `y` let in (whatever the answer then is), `1` sign in
/// first (401), `3` not for this role (403), `4` not there for this caller (404), `2` names what is not there
/// for this caller (422). What destroys comes last,
/// since all callers share one world.
const TABLE: [(&str, &str); 115] = [
    ("audit_list", "1333y"),
    ("desktops_get_one", "134yy"),
    ("desktops_list", "13yyy"),
    ("desktops_screenshot", "1333y"),
    ("endpoints_create_token", "132yy"),
    ("endpoints_get_one", "134yy"),
    ("endpoints_list", "13yyy"),
    ("endpoints_list_tokens", "13yyy"),
    ("enrolments_list", "13yyy"),
    ("enrolments_get_one", "134yy"),
    ("enrolments_approve", "134yy"),
    ("enrolments_refuse", "134yy"),
    ("endpoints_get_health", "134yy"),
    ("endpoints_get_samples", "134yy"),
    ("endpoints_list_services", "13yyy"),
    ("endpoints_look", "134yy"),
    ("endpoints_ask_diagnosis", "134yy"),
    ("diagnoses_catalogue", "13yyy"),
    ("diagnoses_list", "13yyy"),
    ("diagnoses_get_one", "134yy"),
    ("diagnoses_approve", "134yy"),
    ("diagnoses_deny", "134yy"),
    ("diagnoses_cancel", "134yy"),
    ("sessions_course", "134yy"),
    ("events_stream", "1yyyy"),
    ("hosts_get_one", "13yyy"),
    ("hosts_list", "13yyy"),
    ("images_get_one", "13yyy"),
    ("images_list", "13yyy"),
    ("overview_get_one", "13yyy"),
    ("pools_get_one", "134yy"),
    ("pools_list", "13yyy"),
    ("sign_in_login", "yyyyy"),
    ("sign_in_me", "1yyyy"),
    ("sign_in_change_me", "1yyyy"),
    ("sites_get_one", "134yy"),
    ("sites_list", "13yyy"),
    ("incidents_list", "13yyy"),
    ("incidents_by_site", "13yyy"),
    ("incidents_get_one", "134yy"),
    ("incidents_acknowledge", "134yy"),
    ("incidents_note", "134yy"),
    ("incidents_hand_over", "134yy"),
    ("incidents_list_site_facts", "13yyy"),
    ("incidents_set_site_facts", "134yy"),
    ("incidents_calendar", "13yyy"),
    ("incidents_set_calendar", "1333y"),
    ("calls_list", "13yyy"),
    ("calls_find", "13yyy"),
    ("calls_expect", "134yy"),
    ("calls_get_one", "134yy"),
    ("calls_step", "134yy"),
    ("calls_attach", "134yy"),
    ("calls_note", "134yy"),
    ("time_travel_look", "134yy"),
    ("sla_report", "134yy"),
    ("sla_export", "134yy"),
    ("runbooks_list", "13yyy"),
    ("runbooks_runs", "134yy"),
    ("runbooks_start", "134yy"),
    ("runbooks_answer", "134yy"),
    ("runbooks_leave", "134yy"),
    ("notify_list", "13yyy"),
    ("notify_log", "1333y"),
    ("notify_create", "1333y"),
    ("notify_change", "1333y"),
    ("notify_test", "1333y"),
    ("gateways_list", "13yyy"),
    ("gateways_drain", "1333y"),
    ("gateways_undrain", "1333y"),
    ("updates_list", "13yyy"),
    ("updates_get_one", "13yyy"),
    ("updates_pause", "1333y"),
    ("updates_resume", "1333y"),
    ("updates_abort", "1333y"),
    ("support_get_one", "yyyyy"),
    ("users_list", "1333y"),
    ("sessions_list", "1yyyy"),
    ("sessions_get_one", "1y4yy"),
    ("sessions_connect", "1y333"),
    ("sessions_ticket", "1y333"),
    ("sessions_present", "1y333"),
    ("sessions_list_assists", "1y4yy"),
    ("sessions_ask_assist", "134yy"),
    ("sessions_assist_ticket", "134yy"),
    ("sessions_ask_control", "134yy"),
    ("sessions_answer_assist", "1y333"),
    ("sessions_end_assist", "1y4yy"),
    ("pools_set_policy", "1333y"),
    ("desktops_start", "1333y"),
    ("hosts_change", "1333y"),
    ("hosts_create", "1333y"),
    ("hosts_issue_node", "1333y"),
    ("images_change", "1333y"),
    ("users_create", "1333y"),
    ("users_change", "1333y"),
    ("sites_import", "1333y"),
    ("sites_import_lines", "1333y"),
    ("sites_set_line", "1333y"),
    ("endpoints_add_service", "1333y"),
    ("endpoints_remove_service", "13334"),
    ("pools_create", "1333y"),
    ("pools_change", "1333y"),
    ("desktops_reset", "1333y"),
    ("desktops_stop", "1333y"),
    ("sessions_end", "1y4yy"),
    ("desktops_rebuild", "1333y"),
    ("endpoints_new_machine", "1333y"),
    ("endpoints_same_machine", "1333y"),
    ("endpoints_set_metered", "1333y"),
    ("endpoints_revoke", "1333y"),
    ("pools_delete", "1333y"),
    ("notify_delete", "1333y"),
    ("hosts_delete", "1333y"),
    ("sign_in_logout", "yyyyy"),
];

/// What the operations are about.
struct World {
    host: Uuid,
    image: String,
    pool: Uuid,
    desktop: Uuid,
    endpoint: Uuid,
    incident: Uuid,
    call: Uuid,
    run: Uuid,
    rule: Uuid,
    gateway: Uuid,
    release: Uuid,
    diagnosis: Uuid,
    enrolment: Uuid,
    session: Uuid,
    user: UserId,
}

/// One operation of the document.
struct Operation {
    id: String,
    method: String,
    path: String,
}

fn operations() -> Result<Vec<Operation>> {
    let document: Value = serde_json::from_str(include_str!("../../controller/openapi/v1.json"))?;
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().context("no paths")? {
        for (method, operation) in methods.as_object().context("no methods")? {
            let Some(id) = operation["operationId"].as_str() else { continue };
            found.push(Operation { id: id.into(), method: method.to_uppercase(), path: path.clone() });
        }
    }
    Ok(found)
}

#[test]
fn the_table_and_the_api_have_the_same_operations() -> Result<()> {
    let api: BTreeSet<String> = operations()?.into_iter().map(|o| o.id).collect();
    let table: BTreeSet<String> = TABLE.iter().map(|(id, _)| (*id).to_owned()).collect();
    ensure!(api == table, "not in both: {:?}", api.symmetric_difference(&table).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn everybody_may_do_what_the_table_says_and_nothing_else() -> Result<()> {
    for db in db::both().await? {
        let api = TestApi::new(&db.store).await?;
        let officer = api.add_user("officer", Role::Officer).await?;
        api.add_user_at("elsewhere", Role::Support, Some("017")).await?;
        api.add_user_at("support", Role::Support, Some(DISTRICT)).await?;
        api.add_user("operator", Role::Operator).await?;
        let mut callers = vec![api.browser()];
        for name in ["officer", "elsewhere", "support", "operator"] {
            callers.push(api.sign_in(name).await?);
        }
        let world = furnish(&api, &db.store, officer).await?;
        let connected = callers[1].post("/api/v1/connect", json!({})).await?;
        let session = connected.json["session"]["id"].as_str().context("no session")?.parse()?;
        let world = World { session, ..world };

        let all = operations()?;
        for (id, letters) in TABLE {
            let operation = all.iter().find(|o| o.id == id).with_context(|| id.to_owned())?;
            for ((caller, name), letter) in callers.iter().zip(CALLERS).zip(letters.chars()) {
                let status = ask(&api, caller, operation, &world).await?;
                let as_said = match letter {
                    '1' => status == StatusCode::UNAUTHORIZED,
                    '3' => status == StatusCode::FORBIDDEN,
                    '4' => status == StatusCode::NOT_FOUND,
                    '2' => status == StatusCode::UNPROCESSABLE_ENTITY,
                    // Let in: the request as such was understood, and nobody asked who is asking.
                    _ => !matches!(status.as_u16(), 400 | 401 | 403 | 404 | 405 | 415),
                };
                ensure!(as_said, "{id} as {name}: {status}, the table says {letter}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn lists_show_support_their_own_sites_only() -> Result<()> {
    for db in db::both().await? {
        let api = TestApi::new(&db.store).await?;
        let officer = api.add_user("officer", Role::Officer).await?;
        api.add_user_at("elsewhere", Role::Support, Some("017")).await?;
        api.add_user_at("support", Role::Support, Some(DISTRICT)).await?;
        furnish(&api, &db.store, officer).await?;
        let (near, far) = (api.sign_in("support").await?, api.sign_in("elsewhere").await?);
        near.post("/api/v1/endpoint-tokens", json!({"site_code": COMMUNE})).await?;
        api.sign_in("officer").await?.post("/api/v1/connect", json!({})).await?;
        for list in ["desktops", "endpoints", "pools", "sessions", "endpoint-tokens", "enrolments"] {
            let (own, other) =
                (near.get(&format!("/api/v1/{list}")).await?, far.get(&format!("/api/v1/{list}")).await?);
            let rows = |answer: &Value| answer["items"].as_array().map(Vec::len);
            assert!(rows(&own.json).is_some_and(|n| n > 0), "{list}: {own:?}");
            assert_eq!(rows(&other.json), Some(0), "{list}: {other:?}");
        }
    }
    Ok(())
}

/// A pool with two desktops and an endpoint, all in [`COMMUNE`].
async fn furnish(api: &TestApi, store: &Store, user: UserId) -> Result<World> {
    let office = Office::build(store, api.app().clock.clone(), Plan { officers: 0, ..Plan::default() }).await?;
    let Binding::Endpoint { id: endpoint, .. } = office.add_endpoint("desk-1").await? else {
        anyhow::bail!("an endpoint is bound as one")
    };
    let incident = open_incident(store, api.app().clock.now()).await?;
    let pool = store.pool(office.pool).await?.context("the pool is there")?;
    Ok(World {
        host: office.host.0,
        image: pool.image_id.to_string(),
        pool: office.pool.0,
        desktop: office.desktops[0].0,
        endpoint: endpoint.0,
        incident: incident.0,
        call: support_call(store, endpoint, api.app().clock.now()).await?,
        run: runbook_run(api, incident).await?,
        rule: notify_rule(api).await?,
        gateway: gateway(store).await?,
        release: release(store, api.app().clock.now()).await?,
        diagnosis: diagnosis(store, endpoint, api.app().clock.now()).await?,
        enrolment: enrolment(store, api.app().clock.now()).await?,
        session: Uuid::nil(),
        user,
    })
}

/// Digits of the computer that waits for approval.
const DIGITS: &str = "048213";

/// A computer that waits for approval.
async fn enrolment(store: &Store, now: Time) -> Result<Uuid> {
    let (id, hello, marks) = (EndpointId(Uuid::now_v7()), json!({}), Marks::default());
    let until = now.plus(Duration::from_secs(3600));
    let mut tx = store.begin().await?;
    let token = NewToken {
        id: Uuid::now_v7(),
        hash: [7; 32],
        site_code: COMMUNE,
        uses: 1,
        approval: Approval::Manual,
        serials: &[],
        note: "",
        created_by: "operator",
        expires_at: until,
    };
    tx.add_endpoint_token(&token, now).await?;
    let new = NewEnrolment {
        id,
        token: token.id,
        key: [7; 32],
        site_code: COMMUNE,
        name: "mot-cua-09",
        digits: DIGITS,
        hello: &hello,
        hardware: None,
        marks: &marks,
        address: "192.0.2.9",
        expected: &[],
        expires_at: until,
    };
    tx.add_enrolment(&new, now).await?;
    tx.commit().await?;
    Ok(id.0)
}

/// Something that was asked of it, and waits for a second person.
async fn diagnosis(store: &Store, endpoint: EndpointId, now: Time) -> Result<Uuid> {
    let id = OrderId(Uuid::now_v7());
    let work = Work::parse("capture", serde_json::Map::new(), Vec::new())?;
    let due = now.plus(std::time::Duration::from_secs(600));
    let (by, state) = ("somebody", DiagnosisState::Asked);
    let new = NewDiagnosis { id, endpoint, work: &work, state, by, name: by, reason: "why", due };
    let mut tx = store.begin().await?;
    tx.add_diagnosis(&new, now).await?;
    tx.commit().await?;
    Ok(id.0)
}

/// Something wrong at [`COMMUNE`].
async fn open_incident(store: &Store, now: Time) -> Result<IncidentId> {
    let id = IncidentId(Uuid::now_v7());
    let judgement = Judgement {
        cause: Cause::SiteLine,
        scope: Scope::Site(COMMUNE.into()),
        detail: String::new(),
        severity: Severity::Crit,
        confidence: Confidence::Medium,
        evidence: Vec::new(),
        doubts: Vec::new(),
        sites: vec![COMMUNE.into()],
        endpoints: Vec::new(),
    };
    let mut tx = store.begin().await?;
    tx.open_incident(id, &judgement, false, now).await?;
    tx.commit().await?;
    Ok(id)
}

/// A use of a runbook for an incident.
async fn runbook_run(api: &TestApi, incident: IncidentId) -> Result<Uuid> {
    let ctx = Ctx::local_admin(api.app().clock.now());
    Ok(runbooks::start(api.app(), &ctx, "site_dark", Subject::Incident(incident)).await?.id)
}

/// An officer's call from [`COMMUNE`].
async fn support_call(store: &Store, endpoint: EndpointId, now: Time) -> Result<Uuid> {
    let id = Uuid::now_v7();
    let code = code(endpoint, 1);
    let new = NewCall {
        id,
        endpoint,
        desk_id: Some(Uuid::now_v7()),
        number: 1,
        code: &code,
        site_code: COMMUNE,
        incident: None,
    };
    let mut tx = store.begin().await?;
    tx.add_call(&new, now).await?;
    tx.commit().await?;
    Ok(id)
}

/// A gateway of its own that has just been heard.
async fn gateway(store: &Store) -> Result<Uuid> {
    let id = Uuid::now_v7();
    let me = Me {
        name: "gw-1".into(),
        web_url: ORIGIN.into(),
        agent_url: ORIGIN.into(),
        embedded: false,
        local_hosts: true,
    };
    let mut tx = store.begin().await?;
    tx.gateway_beat(id, &me, 0, false).await?;
    tx.commit().await?;
    Ok(id)
}

/// A release of the agent that spreads.
async fn release(store: &Store, now: Time) -> Result<Uuid> {
    let id = Uuid::now_v7();
    let release = Release {
        id,
        counter: 1,
        version: "1.0".into(),
        arch: "x86_64".into(),
        sha256: "0".repeat(64),
        size: 1,
        widest: UpdateRing::All,
        manifest: "{}".into(),
        signatures: sqlx::types::Json(Vec::new()),
        hotfix: false,
        any_time: false,
        state: RolloutState::Running,
        reason: String::new(),
        ring: UpdateRing::Lab,
        ring_since: now.micros(),
        forgiven_at: now.micros(),
        expires_at: now.micros() + 1,
        created_by: "somebody".into(),
        created_at: now.micros(),
        changed_at: now.micros(),
    };
    let mut tx = store.begin().await?;
    tx.add_program(&release.sha256, b"x").await?;
    tx.add_release(&release).await?;
    tx.commit().await?;
    Ok(id)
}

/// Somebody who wants to be told of incidents.
async fn notify_rule(api: &TestApi) -> Result<Uuid> {
    let new = NewRule {
        name: "duty".into(),
        enabled: true,
        channel: Channel::Sms,
        target: "0912345678".into(),
        severity: Severity::Crit,
        causes: Vec::new(),
        site_code: None,
        at_times: When::Always,
        ends: true,
    };
    let ctx = Ctx::local_admin(api.app().clock.now());
    Ok(notify::put_rule(api.app(), &ctx, None, new).await?.id)
}

/// A request that would be understood, as this caller; only its status, since one answer never ends.
async fn ask(api: &TestApi, caller: &Browser<'_>, operation: &Operation, w: &World) -> Result<StatusCode> {
    let id = match operation.id.split('_').next() {
        Some("hosts") => w.host.to_string(),
        Some("images") => w.image.clone(),
        Some("pools") => w.pool.to_string(),
        Some("desktops") => w.desktop.to_string(),
        Some("endpoints") => w.endpoint.to_string(),
        Some("sessions") => w.session.to_string(),
        Some("incidents") => w.incident.to_string(),
        Some("calls") => w.call.to_string(),
        Some("runbooks") => w.run.to_string(),
        Some("notify") => w.rule.to_string(),
        Some("gateways") => w.gateway.to_string(),
        Some("updates") => w.release.to_string(),
        Some("diagnoses") => w.diagnosis.to_string(),
        Some("enrolments") => w.enrolment.to_string(),
        _ => w.user.0.to_string(),
    };
    let mut path = operation.path.replace("{id}", &id).replace("{code}", COMMUNE);
    path += &match operation.id.as_str() {
        "runbooks_runs" | "time_travel_look" => format!("?incident={}", w.incident),
        "sla_report" => "?month=2016-10".to_owned(),
        "sla_export" => "?month=2016-10&format=csv".to_owned(),
        _ => String::new(),
    };
    let mut request = Request::builder().method(operation.method.as_str()).uri(path).header(header::ORIGIN, ORIGIN);
    if let Some(cookie) = &caller.cookie {
        request = request.header(header::COOKIE, format!("tram_session={cookie}"));
    }
    if let Some(csrf) = &caller.csrf {
        request = request.header("x-tram-csrf", csrf);
    }
    let body = match body_of(&operation.id, w) {
        Some(Value::String(csv)) => {
            request = request.header(header::CONTENT_TYPE, "text/csv");
            Body::from(csv)
        }
        Some(json) => {
            request = request.header(header::CONTENT_TYPE, "application/json");
            Body::from(json.to_string())
        }
        None => Body::empty(),
    };
    let mut request = request.header(header::HOST, "tram.test:8443").body(body)?;
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 7], 40_000))));
    Ok(api.router.clone().oneshot(request).await?.status())
}

fn body_of(operation: &str, w: &World) -> Option<Value> {
    Some(match operation {
        "sign_in_login" => json!({"username": "officer", "password": PASSWORD}),
        "sign_in_change_me" => json!({"language": "en"}),
        "endpoints_create_token" => json!({"site_code": COMMUNE}),
        "endpoints_ask_diagnosis" => json!({"action": "clock"}),
        "endpoints_new_machine" => json!({"copy": "x", "reason": "another box"}),
        "endpoints_same_machine" => json!({"reason": "a new board"}),
        "endpoints_revoke" => json!({"reason": "lost"}),
        "enrolments_approve" => json!({"code": DIGITS}),
        "enrolments_refuse" => json!({"reason": "not ours"}),
        "hosts_change" => json!({"enabled": true}),
        "hosts_create" => json!({"name": "another", "uri": "node://another.example"}),
        "hosts_issue_node" => json!({"name": "another", "names": ["another.example"]}),
        "images_change" => json!({"retired": false}),
        "users_create" => json!({"username": "new", "display_name": "New", "role": "support", "password": PASSWORD}),
        "users_change" => json!({"display_name": "An officer"}),
        // Well-formed and wrong: who is let in is told so by line, and nothing changes.
        "sites_import" | "sites_import_lines" => json!("wrong,columns\n1,2\n"),
        "endpoints_set_metered" => json!({"metered": null}),
        "sites_set_line" => json!({"down_kbit": 4000}),
        "endpoints_add_service" => json!({"name": "portal", "kind": "https", "host": "dichvucong.hanoi.example"}),
        "pools_create" => {
            json!({"name": "another", "site_code": COMMUNE, "image_id": w.image, "size": 1, "persistent": false})
        }
        "pools_change" => json!({"size": 2}),
        "sessions_ask_assist" => json!({"reason": "the printer"}),
        "sessions_answer_assist" => json!({"assist": Uuid::nil(), "question": "watch", "allow": true}),
        // The next one of this endpoint; support opens the one after that.
        "calls_expect" => json!({"endpoint": w.endpoint, "code": code(w.endpoint.into(), 4)}),
        "runbooks_start" => json!({"runbook": "site_dark", "incident": w.incident}),
        "runbooks_answer" => json!({"step": "power", "answer": "yes"}),
        "calls_step" => json!({"do": "take"}),
        "calls_attach" => json!({"incident": w.incident}),
        "calls_note" | "incidents_note" => json!({"text": "the carrier was called"}),
        "incidents_hand_over" => json!({"party": "carrier", "answer_minutes": 60}),
        "incidents_set_site_facts" => json!({"carrier": "VNPT"}),
        "incidents_set_calendar" => json!([]),
        "notify_create" | "notify_change" => {
            json!({"name": operation, "channel": "sms", "target": "0912345678", "severity": "crit", "at_times": "always"})
        }
        "sessions_connect" | "sessions_ticket" | "pools_set_policy" | "updates_pause" | "updates_resume"
        | "updates_abort" => json!({}),
        _ => return None,
    })
}
