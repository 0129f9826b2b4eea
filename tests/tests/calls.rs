//! Calls for support from the desk's message to what support does with them, on both databases.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::body::BodyDataStream;
use axum::http::{Method, StatusCode};
use futures_util::StreamExt;
use serde_json::json;
use tram_controller::domain::access::Role;
use tram_controller::domain::incident::hours::Hours;
use tram_controller::domain::incident::{Cause, Confidence, Judgement, Scope, Severity};
use tram_controller::domain::notify::{Channel, When};
use tram_controller::nudge::{Change, Kind};
use tram_controller::services::desk::Endpoint;
use tram_controller::services::notify::{self, NewRule};
use tram_controller::services::{Ctx, calls};
use tram_tests::db::{self, TestDb};
use tram_tests::http::{Answer, Browser, COMMUNE, DISTRICT, TestApi};
use tram_wire::call::{self, Call, Snapshot};
use tram_wire::check::{CheckState, Finding};
use tram_wire::ids::{EndpointId, IncidentId};
use uuid::Uuid;

/// As long as a busy machine may take.
const PATIENCE: Duration = Duration::from_secs(120);

struct World {
    db: TestDb,
    api: TestApi,
}

impl World {
    async fn both() -> Result<Vec<Self>> {
        let mut worlds = Vec::new();
        for db in db::both().await? {
            let api = TestApi::new(&db.store).await?;
            api.add_user_at("near", Role::Support, Some(DISTRICT)).await?;
            api.add_user_at("far", Role::Support, Some("017")).await?;
            worlds.push(Self { db, api });
        }
        Ok(worlds)
    }

    async fn endpoint(&self, name: &str) -> Result<Endpoint> {
        let (id, now) = (EndpointId(Uuid::now_v7()), self.api.app().clock.now());
        let mut tx = self.db.store.begin().await?;
        tx.add_endpoint(id, name, COMMUNE, &json!({}), now.plus(Duration::from_secs(86_400)), now).await?;
        tx.commit().await?;
        Ok(Endpoint { id, certificate: [0; 32], ip: "203.0.113.9".into() })
    }

    async fn incident(&self, scope: Scope, endpoints: Vec<EndpointId>) -> Result<IncidentId> {
        let id = IncidentId(Uuid::now_v7());
        let judgement = Judgement {
            cause: Cause::SiteLine,
            scope,
            detail: String::new(),
            severity: Severity::Crit,
            confidence: Confidence::Medium,
            evidence: Vec::new(),
            doubts: Vec::new(),
            sites: vec![COMMUNE.into()],
            endpoints,
        };
        let mut tx = self.db.store.begin().await?;
        tx.open_incident(id, &judgement, false, self.api.app().clock.now()).await?;
        tx.commit().await?;
        Ok(id)
    }

    async fn count(&self, sql: &str) -> Result<i64> {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        Ok(match self.db.store.db() {
            tram_controller::store::Db::Sqlite { read, .. } => sqlx::query_scalar(sql).fetch_one(read).await?,
            tram_controller::store::Db::Postgres(p) => sqlx::query_scalar(sql).fetch_one(p).await?,
        })
    }
}

fn made(at: &Endpoint, number: u32) -> Call {
    let finding = Finding {
        check: "gateway".into(),
        state: CheckState::Crit,
        code: "gateway_silent".into(),
        params: [("address".to_owned(), "192.168.1.1\u{0}".to_owned())].into(),
    };
    let snapshot = Snapshot {
        verdict: CheckState::Crit,
        findings: vec![finding],
        cause: "router".into(),
        phase: "lost".into(),
        shown: vec!["K-102".into()],
        agent_version: "0.1.0".into(),
    };
    Call {
        id: Uuid::now_v7(),
        number,
        code: call::code(at.id, number),
        at_ms: 1_795_600_000_000,
        session: None,
        snapshot: Some(snapshot),
    }
}

async fn put(who: &Browser<'_>, path: &str, body: serde_json::Value) -> Result<Answer> {
    who.send(Method::PUT, path, Some(("application/json", body.to_string().into_bytes()))).await
}

async fn step(who: &Browser<'_>, call: &str, body: serde_json::Value) -> Result<(StatusCode, String)> {
    let answer = who.post(&format!("/api/v1/calls/{call}/step"), body).await?;
    Ok((answer.status, answer.json["state"].as_str().unwrap_or(answer.code()).to_owned()))
}

#[tokio::test]
async fn a_call_arrives_once_is_found_by_its_code_and_is_seen_through() -> Result<()> {
    for w in World::both().await? {
        let app = w.api.app();
        let at = w.endpoint("mot-cua-03").await?;
        w.incident(Scope::Endpoint(EndpointId(Uuid::now_v7())), Vec::new()).await?;
        let incident = w.incident(Scope::Site(COMMUNE.into()), vec![at.id]).await?;
        let new = made(&at, 1);
        let kept = calls::receive(app, &at, &new).await?;
        assert_eq!((kept.state.as_str(), kept.by, kept.next), ("open", None, 2));
        // The answer was lost: it is sent again, with and without the snapshot.
        calls::receive(app, &at, &new).await?;
        calls::receive(app, &at, &Call { snapshot: None, ..new.clone() }).await?;
        assert_eq!(w.count("SELECT COUNT(*) FROM support_calls").await?, 1);
        assert_eq!(w.count("SELECT COUNT(*) FROM audit WHERE action = 'call.arrive'").await?, 1);

        let (near, far) = (w.api.sign_in("near").await?, w.api.sign_in("far").await?);
        let spoken = format!("{}%20{}", &new.code[..3], &new.code[3..]);
        let found = near.get(&format!("/api/v1/calls/find?code={spoken}")).await?;
        let id = found.json["calls"][0]["id"].as_str().context("found")?.to_owned();
        assert_eq!(found.json["calls"][0]["incident"], json!(incident), "the worst that names the computer");
        assert_eq!(far.get(&format!("/api/v1/calls/find?code={spoken}")).await?.json["calls"], json!([]));
        assert_eq!(far.get(&format!("/api/v1/calls/{id}")).await?.code(), "T-404");
        assert_eq!(near.get("/api/v1/calls/find?code=12345").await?.code(), "T-201");
        let one = near.get(&format!("/api/v1/calls/{id}")).await?.json;
        assert_eq!(one["snapshot"]["findings"][0]["params"]["address"], "192.168.1.1", "made storable");
        assert_eq!((one["snapshot"]["cause"].as_str(), one["site"]["code"].as_str()), (Some("router"), Some(COMMUNE)));
        assert_eq!(one["incidents"].as_array().map(Vec::len), Some(2));

        // Taken, handed over, solved, taken up again, closed; nothing afterwards.
        assert_eq!(step(&near, &id, json!({"do": "take"})).await?.1, "taken");
        let kept = calls::receive(app, &at, &Call { snapshot: None, ..new.clone() }).await?;
        assert_eq!((kept.state.as_str(), kept.by.as_deref()), ("taken", Some("near")), "the officer sees who");
        let over = json!({"do": "hand_over", "party": "carrier", "answer_minutes": 0});
        assert_eq!(step(&near, &id, over).await?.1, "T-204");
        let over = json!({"do": "hand_over", "party": "carrier", "answer_minutes": 60, "text": "phiếu 12"});
        assert_eq!(step(&near, &id, over).await?.1, "handed_over");
        assert_eq!(step(&near, &id, json!({"do": "solve", "text": "modem"})).await?.1, "solved");
        assert_eq!(step(&near, &id, json!({"do": "take"})).await?.1, "taken");
        assert_eq!(step(&near, &id, json!({"do": "close"})).await?.1, "closed");
        assert_eq!(step(&near, &id, json!({"do": "take"})).await?, (StatusCode::CONFLICT, "T-102".into()));
        let listed = |query: &str| format!("/api/v1/calls?{query}");
        assert_eq!(near.get(&listed("over=false")).await?.json["total"], 0);
        assert_eq!(near.get(&listed("over=true")).await?.json["total"], 1);
        assert_eq!(near.get(&listed(&format!("incident={incident}"))).await?.json["total"], 1);
        assert_eq!(far.get("/api/v1/calls").await?.json["total"], 0);

        // Notes and incidents, also afterwards.
        let note = near.post(&format!("/api/v1/calls/{id}/notes"), json!({"text": " "})).await?;
        assert_eq!(note.code(), "T-203");
        near.post(&format!("/api/v1/calls/{id}/notes"), json!({"text": "đã gọi lại"})).await?;
        let path = format!("/api/v1/calls/{id}/incident");
        put(&near, &path, json!({"incident": null})).await?;
        let again = put(&near, &path, json!({"incident": incident})).await?;
        assert_eq!(again.json["incident"], json!(incident));
        assert_eq!(put(&near, &path, json!({"incident": Uuid::nil()})).await?.code(), "I-404");
        let events = near.get(&format!("/api/v1/calls/{id}")).await?.json["events"].clone();
        let kinds: Vec<_> = events.as_array().into_iter().flatten().filter_map(|e| e["kind"].as_str()).collect();
        let course = ["arrived", "taken", "handed_over", "solved", "taken", "closed", "note", "detached", "attached"];
        assert_eq!(kinds, course);
        let course = near.get(&format!("/api/v1/incidents/{incident}")).await?.json["events"].clone();
        assert_eq!(course[0]["kind"], "call");
    }
    Ok(())
}

#[tokio::test]
async fn an_open_page_hears_of_calls_of_its_sites_and_of_nothing_else() -> Result<()> {
    for w in World::both().await? {
        let (app, hub) = (w.api.app().clone(), w.api.api.events.clone());
        let (near, far) = (w.api.sign_in("near").await?, w.api.sign_in("far").await?);
        let mut streams = [near.follow().await?, far.follow().await?];
        let running = tokio::spawn({
            let app = app.clone();
            async move { hub.run(&app).await }
        });
        // Until it listens, nothing is told; afterwards, everything is.
        let (at, marker) = (w.endpoint("mot-cua-03").await?, Uuid::now_v7());
        let nudge = Change { kind: Kind::Update, id: marker };
        let [near_heard, far_heard] = &mut streams;
        told(near_heard, marker, || app.store.bus().changed(nudge)).await?;
        told(far_heard, marker, || app.store.bus().changed(nudge)).await?;

        calls::receive(&app, &at, &made(&at, 1)).await?;
        let id = w.api.sign_in("near").await?.get("/api/v1/calls").await?.json["items"][0]["id"].clone();
        let id: Uuid = id.as_str().context("an id")?.parse()?;
        let heard = told(near_heard, id, || ()).await?;
        assert!(heard.contains("\"kind\":\"call\"") && heard.contains(&id.to_string()), "{heard}");
        let last = Uuid::now_v7();
        let nudge = Change { kind: Kind::Update, id: last };
        let heard = told(far_heard, last, || app.store.bus().changed(nudge)).await?;
        assert!(!heard.contains(&id.to_string()), "another district's call: {heard}");
        running.abort();
    }
    Ok(())
}

/// What a stream says until it speaks of this one, which is told again and again until then.
async fn told(stream: &mut BodyDataStream, id: Uuid, tell: impl Fn()) -> Result<String> {
    let mut heard = String::new();
    let until = tokio::time::Instant::now() + PATIENCE;
    while !heard.contains(&id.to_string()) {
        tell();
        match tokio::time::timeout(Duration::from_secs(1), stream.next()).await {
            Ok(part) => heard.push_str(std::str::from_utf8(&part.context("the stream ended")??)?),
            Err(_) => ensure!(tokio::time::Instant::now() < until, "not a word of {id}: {heard}"),
        }
    }
    Ok(heard)
}

#[tokio::test]
async fn a_code_finds_the_computer_whose_line_is_down() -> Result<()> {
    for w in World::both().await? {
        let app = w.api.app();
        let at = w.endpoint("mot-cua-03").await?;
        for n in 0..30 {
            w.endpoint(&format!("pc-{n}")).await?;
        }
        let near = w.api.sign_in("near").await?;
        let new = made(&at, 3);
        let found = near.get(&format!("/api/v1/calls/find?code={}", new.code)).await?.json;
        let expected = found["expected"].as_array().context("computers")?;
        assert!(expected.iter().any(|e| e["endpoint"] == json!(at.id)), "{found}");
        let body = json!({"endpoint": at.id, "code": "000000"});
        let wrong = near.post("/api/v1/calls", body).await?;
        assert_eq!(wrong.code(), "T-202");
        let opened = near.post("/api/v1/calls", json!({"endpoint": at.id, "code": new.code})).await?;
        assert_eq!((opened.status, opened.json["state"].as_str()), (StatusCode::CREATED, Some("taken")));
        let far = w.api.sign_in("far").await?;
        assert_eq!(far.post("/api/v1/calls", json!({"endpoint": at.id, "code": new.code})).await?.code(), "T-404");
        // The line is back: it is the same call, and the officer sees who has it.
        let kept = calls::receive(app, &at, &new).await?;
        assert_eq!((kept.state.as_str(), kept.by.as_deref(), kept.next), ("taken", Some("near"), 4));
        let id = opened.json["id"].as_str().context("an id")?;
        let one = near.get(&format!("/api/v1/calls/{id}")).await?.json;
        assert_eq!((one["snapshot"]["phase"].as_str(), one["arrived_at"].is_null()), (Some("lost"), false));
        assert_eq!(w.count("SELECT COUNT(*) FROM support_calls").await?, 1);
        // Its next code is known, its last ones are not any more.
        for (number, found) in [(2, 0), (4, 1), (7, 1), (8, 0)] {
            let code = call::code(at.id, number);
            let answer = near.get(&format!("/api/v1/calls/find?code={code}")).await?.json;
            let ours = answer["expected"].as_array().into_iter().flatten().filter(|e| e["endpoint"] == json!(at.id));
            assert_eq!(ours.count(), found, "{number}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_contradicts_itself_or_comes_too_often_is_refused() -> Result<()> {
    for w in World::both().await? {
        let app = w.api.app();
        let (at, other) = (w.endpoint("a").await?, w.endpoint("b").await?);
        let code = |done: Result<call::Kept, tram_controller::services::Error>| {
            done.map_or_else(|e| e.code().to_owned(), |k| k.state)
        };
        let stranger = Call { code: call::code(other.id, 1), ..made(&at, 1) };
        assert_eq!(code(calls::receive(app, &at, &stranger).await), "T-200");
        assert_eq!(code(calls::receive(app, &at, &Call { number: 0, ..made(&at, 0) }).await), "T-200");
        for n in 1..=6 {
            assert_eq!(code(calls::receive(app, &at, &made(&at, n)).await), "open", "{n}");
        }
        let seventh = made(&at, 7);
        assert_eq!(code(calls::receive(app, &at, &seventh).await), "T-429");
        assert_eq!(code(calls::receive(app, &other, &made(&other, 1)).await), "open", "nobody else is meant");
        w.api.pass(Duration::from_secs(3601));
        assert_eq!(code(calls::receive(app, &at, &seventh).await), "open", "it waited in the queue");
        // A computer whose book was damaged counts from one again: it is told better.
        let anew = calls::receive(app, &at, &made(&at, 1)).await?;
        assert_eq!((anew.state.as_str(), anew.next), ("open", 8));
        // Sizes are bounded whatever is sent.
        let mut huge = made(&other, 2);
        if let Some(s) = &mut huge.snapshot {
            s.findings = vec![s.findings[0].clone(); 5000];
            s.cause = "x".repeat(100_000);
        }
        calls::receive(app, &other, &huge).await?;
        let longest = w.count("SELECT CAST(MAX(LENGTH(CAST(snapshot AS TEXT))) AS BIGINT) FROM support_calls").await?;
        assert!(longest < 20_000, "{longest}");
    }
    Ok(())
}

#[tokio::test]
async fn who_wants_to_know_is_told_once() -> Result<()> {
    for w in World::both().await? {
        let app = w.api.app();
        let ctx = Ctx::local_admin(app.clock.now());
        let rule = |name: &str, severity, causes| NewRule {
            name: name.into(),
            enabled: true,
            channel: Channel::Sms,
            target: "0912345678".into(),
            severity,
            causes,
            site_code: None,
            at_times: When::Always,
            ends: true,
        };
        notify::put_rule(app, &ctx, None, rule("all", Severity::Warn, Vec::new())).await?;
        notify::put_rule(app, &ctx, None, rule("serious", Severity::Crit, Vec::new())).await?;
        let at = w.endpoint("mot-cua-03").await?;
        calls::receive(app, &at, &made(&at, 1)).await?;
        for _ in 0..2 {
            calls::tell(app, &Hours::default(), app.clock.now()).await?;
        }
        let told = "SELECT COUNT(*) FROM notify_outbox WHERE occasion = 'call'";
        assert_eq!(w.count(told).await?, 1, "a call without an incident is no crisis");
        w.incident(Scope::Site(COMMUNE.into()), vec![at.id]).await?;
        calls::receive(app, &at, &made(&at, 2)).await?;
        calls::tell(app, &Hours::default(), app.clock.now()).await?;
        assert_eq!(w.count(told).await?, 3);
    }
    Ok(())
}
