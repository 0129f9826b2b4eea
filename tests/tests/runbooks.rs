//! Runbooks: questions in their turn, *fixed* only by what is good again, on both databases; and signing them by the
//! real program.

use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::http::StatusCode;
use serde_json::{Value, json};
use tram_controller::domain::access::Role;
use tram_controller::domain::incident::{Cause, Confidence, Judgement, Scope, Severity};
use tram_controller::services::runbooks;
use tram_tests::db::{self, TestDb};
use tram_tests::http::{Browser, COMMUNE, DISTRICT, TestApi};
use tram_tests::world::program;
use tram_wire::ids::{EndpointId, IncidentId};
use uuid::Uuid;

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
            worlds.push(Self { db, api });
        }
        Ok(worlds)
    }

    async fn endpoint(&self) -> Result<EndpointId> {
        let (id, now) = (EndpointId(Uuid::now_v7()), self.api.app().clock.now());
        let mut tx = self.db.store.begin().await?;
        tx.add_endpoint(id, "pc", COMMUNE, &json!({}), now.plus(Duration::from_secs(86_400)), now).await?;
        tx.commit().await?;
        Ok(id)
    }

    /// The only computer reports now.
    async fn reports(&self, printer: &str, dns: &str) -> Result<()> {
        let findings =
            json!([{"check": "printer", "state": printer, "code": "x"}, {"check": "dns", "state": dns, "code": "y"}]);
        let at = self.api.app().clock.now().micros();
        self.db
            .raw(&format!("UPDATE endpoints SET state = 'online', last_seen_at = {at}, reported_at = {at}, findings = '{findings}'"))
            .await
    }

    async fn incident(&self, cause: Cause, scope: Scope, detail: &str) -> Result<IncidentId> {
        let id = IncidentId(Uuid::now_v7());
        let judgement = Judgement {
            cause,
            scope,
            detail: detail.into(),
            severity: Severity::Warn,
            confidence: Confidence::High,
            evidence: Vec::new(),
            doubts: Vec::new(),
            sites: vec![COMMUNE.into()],
            endpoints: Vec::new(),
        };
        let mut tx = self.db.store.begin().await?;
        tx.open_incident(id, &judgement, false, self.api.app().clock.now()).await?;
        tx.commit().await?;
        Ok(id)
    }

    async fn settle(&self) -> Result<()> {
        self.api.pass(Duration::from_secs(15));
        Ok(runbooks::settle(self.api.app(), self.api.app().clock.now()).await?)
    }

    async fn state(&self, who: &Browser<'_>, incident: IncidentId) -> Result<String> {
        let runs = who.get(&format!("/api/v1/runbook-runs?incident={incident}")).await?;
        Ok(runs.json["items"][0]["state"].as_str().unwrap_or_default().to_owned())
    }
}

async fn answer(who: &Browser<'_>, run: &str, step: &str, answer: &str, note: &str) -> Result<Value> {
    let body = json!({"step": step, "answer": answer, "note": note});
    let done = who.post(&format!("/api/v1/runbook-runs/{run}/answers"), body).await?;
    Ok(if done.status == StatusCode::OK { done.json } else { json!(done.code()) })
}

#[tokio::test]
async fn it_is_fixed_only_when_the_failing_check_has_turned_good() -> Result<()> {
    for w in World::both().await? {
        let id = w.endpoint().await?;
        w.reports("crit", "crit").await?;
        let incident = w.incident(Cause::Peripheral, Scope::Endpoint(id), "printer").await?;
        let near = w.api.sign_in("near").await?;
        let books = near.get("/api/v1/runbooks").await?.json;
        let all = books["items"].as_array().context("books")?;
        ensure!(all.len() == 14 && books["refused"] == json!([]), "{books}");

        let run = near.post("/api/v1/runbook-runs", json!({"runbook": "printer", "incident": incident})).await?;
        assert_eq!((run.status, run.json["turn"].as_str()), (StatusCode::CREATED, Some("lamp")));
        let run = run.json["id"].as_str().context("an id")?.to_owned();
        // Questions have their turn, and their answers.
        assert_eq!(answer(&near, &run, "queue", "printed", "").await?, "R-101");
        assert_eq!(answer(&near, &run, "lamp", "purple", "").await?, "R-102");
        let other = answer(&near, &run, "lamp", "other", "đèn vàng").await?;
        assert_eq!((other["turn"].as_str(), other["state"].as_str()), (Some("words"), Some("running")));
        assert_eq!(answer(&near, &run, "words", "", " ").await?, "R-102", "words are wanted");
        let done = answer(&near, &run, "words", "", "Lỗi E04").await?;
        // Somebody says that it prints; the check does not.
        assert_eq!((done["turn"].as_str(), done["state"].as_str()), (None, Some("answered")));
        assert_eq!(answer(&near, &run, "words", "", "again").await?, "R-101");
        w.settle().await?;
        assert_eq!(w.state(&near, incident).await?, "answered");
        // Another check that fails is not what this is about.
        w.reports("ok", "crit").await?;
        w.settle().await?;
        assert_eq!(w.state(&near, incident).await?, "fixed");
        let one = near.get(&format!("/api/v1/incidents/{incident}")).await?.json;
        let said: Vec<_> =
            one["events"].as_array().into_iter().flatten().filter_map(|e| e["detail"]["state"].as_str()).collect();
        assert_eq!(said, ["running", "answered", "fixed"]);
        let books = near.get("/api/v1/runbooks").await?.json;
        let printer = books["items"].as_array().and_then(|a| a.iter().find(|b| b["id"] == "printer")).context("it")?;
        assert_eq!((printer["used"].as_i64(), printer["fixed"].as_i64()), (Some(1), Some(1)));
    }
    Ok(())
}

#[tokio::test]
async fn a_site_is_fixed_when_its_incident_is_over_and_not_when_another_one_explains_it() -> Result<()> {
    for w in World::both().await? {
        let near = w.api.sign_in("near").await?;
        for (merged, end) in [(true, "answered"), (false, "fixed")] {
            let incident = w.incident(Cause::SiteLine, Scope::Site(COMMUNE.into()), &end.repeat(2)).await?;
            let larger = w.incident(Cause::Carrier, Scope::Carrier("VNPT".into()), end).await?;
            let run = near.post("/api/v1/runbook-runs", json!({"runbook": "site_dark", "incident": incident})).await?;
            let run = run.json["id"].as_str().context("an id")?.to_owned();
            answer(&near, &run, "power", "no", "").await?;
            let done = answer(&near, &run, "back", "", "12 giờ").await?;
            assert_eq!(done["state"], "answered");
            let mut tx = w.db.store.begin().await?;
            tx.end_incident(incident, merged.then_some(larger), w.api.app().clock.now()).await?;
            tx.commit().await?;
            w.settle().await?;
            assert_eq!(w.state(&near, incident).await?, end);
        }
        // Given up is given up; nothing can be answered any more.
        let incident = w.incident(Cause::SiteLine, Scope::Site(COMMUNE.into()), "x").await?;
        let body = json!({"runbook": "site_dark", "incident": incident});
        let run = near.post("/api/v1/runbook-runs", body).await?;
        let run = run.json["id"].as_str().context("an id")?.to_owned();
        let left = near.post(&format!("/api/v1/runbook-runs/{run}/leave"), json!({})).await?;
        assert_eq!(left.json["state"], "left");
        assert_eq!(answer(&near, &run, "power", "no", "").await?, "R-101");
        let body = json!({"runbook": "magic", "incident": incident});
        assert_eq!(near.post("/api/v1/runbook-runs", body).await?.code(), "R-100");
        assert_eq!(near.post("/api/v1/runbook-runs", json!({"runbook": "site_dark"})).await?.code(), "R-104");
    }
    Ok(())
}

#[test]
fn runbooks_are_signed_and_what_is_altered_is_refused_with_a_code() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let books = folder.path().join("books");
    let run = |args: &[&str], keys: &str| -> Result<Output> {
        let mut c = Command::new(program("tram-controller")?);
        c.env("TRAM_DATA", folder.path()).env("TRAM_RUNBOOKS_DIR", &books).env("TRAM_RUNBOOKS_KEYS", keys);
        Ok(c.arg("runbook").args(args).output()?)
    };
    let text = |out: &Output| String::from_utf8_lossy(&out.stdout).into_owned();
    let path = |name: &str| books.join(name).display().to_string();
    let exported = run(&["export", &books.display().to_string()], "")?;
    ensure!(exported.status.success(), "{exported:?}");
    let key = folder.path().join("key.pem").display().to_string();
    let public = text(&run(&["keygen", "--out", &key], "")?).trim().to_owned();
    ensure!(public.len() == 64, "{public}");
    ensure!(!run(&["keygen", "--out", &key], "")?.status.success(), "a key was made over another");

    let (one, two) = (path("printer.toml"), path("token.toml"));
    let bare = run(&["check", &one], &public)?;
    ensure!(!bare.status.success() && text(&bare).contains("R-401"), "{bare:?}");
    ensure!(run(&["check", "--unsigned", &one, &two], "")?.status.success());
    ensure!(run(&["sign", "--key", &key, &one, &two], "")?.status.success());
    ensure!(run(&["check", &one, &two], &public)?.status.success());
    // What a person made of them is not written over unasked.
    let signed = std::fs::read_to_string(&one)?;
    let again = run(&["export", &books.display().to_string()], "")?;
    ensure!(!again.status.success() && text(&again).contains("R-406"), "{again:?}");
    ensure!(std::fs::read_to_string(&one)? == signed, "the export wrote over a signed runbook");
    let foreign = run(&["check", &one], "")?;
    ensure!(!foreign.status.success() && text(&foreign).contains("R-402"), "{foreign:?}");
    // One letter.
    let altered = std::fs::read_to_string(&one)?.replacen("resume_queue", "clear_queue", 1);
    std::fs::write(&one, altered)?;
    let refused = run(&["check", &one, &two], &public)?;
    ensure!(!refused.status.success() && text(&refused).contains("R-403"), "{refused:?}");
    std::fs::write(path("bad.toml"), "id = 7\n")?;
    let bad = run(&["sign", "--key", &key, &path("bad.toml")], "")?;
    ensure!(String::from_utf8_lossy(&bad.stderr).contains("R-404"), "{bad:?}");
    // The list says which counts: the altered one does not, the program's own stands in for it.
    let list: Vec<Value> = serde_json::from_slice(&run(&["list", "--json"], &public)?.stdout)?;
    let of = |id: &str| list.iter().find(|r| r["id"] == id).cloned().unwrap_or_default();
    ensure!(of("token")["file"] == "token.toml" && of("printer")["file"] == "", "{list:?}");
    ensure!(list.iter().any(|r| r["file"] == "printer.toml" && r["refused"] == "R-403"), "{list:?}");
    Ok(())
}
