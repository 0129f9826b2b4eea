//! Looking back: what was known at a moment and what is known now; and what a carrier owes for a month, signed. On both
//! databases.

use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tram_controller::domain::access::Role;
use tram_controller::domain::health::{Sample, Transition};
use tram_controller::domain::incident::hours::Hours;
use tram_controller::domain::incident::{Cause, Confidence, Evidence, Judgement, Scope, Severity, Thresholds};
use tram_controller::domain::time::Time;
use tram_controller::services::incidents::{self, Lookout};
use tram_controller::services::{App, Ctx, sla};
use tram_controller::store::health_batch::NewSample;
use tram_tests::db::{self, TestDb};
use tram_tests::http::{COMMUNE, DISTRICT, ELSEWHERE, TestApi};
use tram_tests::world::program;
use tram_wire::check::CheckState;
use tram_wire::ids::{EndpointId, IncidentId};
use tram_wire::report::CheckResult;
use uuid::Uuid;

const LOOK: Duration = Duration::from_secs(15);
const HOUR: Duration = Duration::from_secs(3600);

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

    fn now(&self) -> Time {
        self.api.app().clock.now()
    }

    async fn endpoint(&self, site: &str) -> Result<EndpointId> {
        let id = EndpointId(Uuid::now_v7());
        let mut tx = self.db.store.begin().await?;
        tx.add_endpoint(id, "pc", site, &json!({}), self.now().plus(HOUR), self.now()).await?;
        tx.commit().await?;
        self.set(id, "online", 86_400).await?;
        Ok(id)
    }

    /// Presence with its event, and seconds since it was started.
    async fn set(&self, id: EndpointId, state: &str, uptime: u32) -> Result<()> {
        let key = match self.db.store.engine() {
            "SQLite" => format!("X'{}'", id.0.simple()),
            _ => format!("'{id}'"),
        };
        let at = self.now();
        let heard = if state == "online" { format!("last_seen_at = {}, ", at.micros()) } else { String::new() };
        let sql = format!(
            "UPDATE endpoints SET {heard}state = '{state}', vitals = '{{\"uptime_s\": {uptime}}}' WHERE id = {key}"
        );
        self.db.raw(&sql).await?;
        let detail =
            if state == "silent" { format!("last heard {}", at.minus(Duration::from_secs(80))) } else { String::new() };
        let mut tx = self.db.store.begin().await?;
        tx.endpoint_event(id, state, &detail, at).await?;
        Ok(tx.commit().await?)
    }

    async fn record(&self, id: EndpointId, boot: &str, seq: i64, at: Time, arrived: Time) -> Result<()> {
        let mut tx = self.db.store.begin().await?;
        tx.add_samples(&[NewSample { id, boot, seq, at, arrived, body: Sample::default() }]).await?;
        Ok(tx.commit().await?)
    }

    async fn turned(&self, id: EndpointId, state: CheckState, at: Time, arrived: Time) -> Result<()> {
        let to =
            CheckResult { check: "gateway".into(), state, code: "gateway_silent".into(), ..CheckResult::default() };
        let mut tx = self.db.store.begin().await?;
        tx.add_transitions(&[(id, Transition { at, from: None, to }, arrived)]).await?;
        Ok(tx.commit().await?)
    }

    async fn looks(&self, n: usize) -> Result<()> {
        let lookout = Lookout {
            since: self.now().minus(HOUR),
            hours: Hours::default(),
            thresholds: Thresholds { carrier_least: 3, ..Thresholds::default() },
        };
        for _ in 0..n {
            self.api.pass(LOOK);
            incidents::look(self.api.app(), &lookout, Vec::new(), self.now()).await?.context("nobody else looks")?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn then_it_was_the_line_and_now_it_was_the_power() -> Result<()> {
    for w in World::both().await? {
        w.api.pass(HOUR);
        let office = [w.endpoint(COMMUNE).await?, w.endpoint(COMMUNE).await?];
        w.endpoint(ELSEWHERE).await?;
        w.looks(2).await?;
        let well = w.now();
        w.record(office[0], "a", 1, well, well).await?;
        w.api.pass(Duration::from_secs(600));
        for id in office {
            w.set(id, "silent", 1).await?;
        }
        w.looks(4).await?;
        let dark = w.now();
        // Half an hour later both come up anew.
        w.api.pass(Duration::from_secs(1800));
        for id in office {
            w.set(id, "online", 30).await?;
        }
        let back = w.now();
        w.record(office[0], "b", 1, back, back).await?;
        // Of the other one, records come that it made while nobody heard it, and what its checks said.
        for (seq, at) in [(1, dark.minus(Duration::from_secs(40))), (2, dark.plus(Duration::from_secs(40)))] {
            w.record(office[1], "c", seq, at, back).await?;
        }
        w.turned(office[1], CheckState::Crit, dark.minus(Duration::from_secs(90)), back).await?;
        w.looks(4).await?;

        let near = w.api.sign_in("near").await?;
        let look = |at: Time, of: String| {
            let near = near.clone();
            async move { near.get(&format!("/api/v1/time-travel?at={at}&{of}")).await }
        };
        let moment = look(dark, format!("site={COMMUNE}")).await?.json;
        let one = &moment["incidents"][0];
        assert_eq!(
            (&one["then"]["cause"], &one["now"]["cause"]),
            (&json!("site_line"), &json!("site_power")),
            "{moment}"
        );
        assert_eq!(one["now"]["evidence"][0]["code"], "backlog_power_lost");
        let computer = |m: &Value, id: EndpointId| -> Value {
            let all = m["computers"].as_array().cloned().unwrap_or_default();
            all.into_iter().find(|c| c["id"] == json!(id)).unwrap_or_default()
        };
        let (first, second) = (computer(&moment, office[0]), computer(&moment, office[1]));
        assert_eq!((&first["then"], &first["truth"]), (&json!("silent"), &json!("off")), "{first}");
        assert_eq!((&second["then"], &second["truth"]), (&json!("silent"), &json!("ran_unheard")), "{second}");
        assert_eq!(first["learnt_at"], json!(back));
        assert_eq!(second["findings_then"], json!([]), "nobody knew of it then");
        assert_eq!(second["findings_now"][0]["code"], "gateway_silent");
        let stops: Vec<_> =
            moment["stops"].as_array().into_iter().flatten().filter_map(|s| s["what"].as_str()).collect();
        for stop in ["endpoint.silent", "endpoint.online", "incident.site_line", "incident.site_power", "incident.over"]
        {
            assert!(stops.contains(&stop), "{stop}: {stops:?}");
        }
        // Before, all was well, then and now; afterwards it is over.
        let before = look(well, format!("site={COMMUNE}")).await?.json;
        assert_eq!(before["incidents"], json!([]));
        assert_eq!(
            (&computer(&before, office[0])["then"], &computer(&before, office[0])["truth"]),
            (&json!("online"), &json!("heard"))
        );
        let after = look(w.now(), format!("endpoint={}", office[0])).await?.json;
        assert_eq!((&after["incidents"], after["computers"].as_array().map(Vec::len)), (&json!([]), Some(1)));
        let incident = one["incident"]["id"].as_str().context("an id")?;
        let by_incident = look(dark, format!("incident={incident}")).await?.json;
        assert_eq!(by_incident["site"], COMMUNE);
        // Who may not, and when not.
        let far = w.api.sign_in("far").await?;
        assert_eq!(far.get(&format!("/api/v1/time-travel?site={COMMUNE}")).await?.code(), "I-106");
        assert_eq!(near.get("/api/v1/time-travel").await?.code(), "I-108");
        assert_eq!(look(w.now().plus(HOUR), format!("site={COMMUNE}")).await?.code(), "I-108");
    }
    Ok(())
}

fn at(text: &str) -> Result<Time> {
    Ok(serde_json::from_value(json!(text))?)
}

/// An incident of the commune, with what its computer told.
async fn outage(w: &World, id: EndpointId, cause: Cause, from: &str, until: &str) -> Result<IncidentId> {
    let incident = IncidentId(Uuid::now_v7());
    let judgement = Judgement {
        cause,
        scope: Scope::Site(COMMUNE.into()),
        detail: from.into(),
        severity: Severity::Crit,
        confidence: Confidence::High,
        evidence: vec![Evidence::new("backlog_router_answered")],
        doubts: Vec::new(),
        sites: vec![COMMUNE.into()],
        endpoints: vec![id],
    };
    let (from, until) = (at(from)?, at(until)?);
    let mut tx = w.db.store.begin().await?;
    tx.endpoint_event(id, "silent", &format!("last heard {}", from.minus(Duration::from_secs(120))), from.minus(LOOK))
        .await?;
    tx.open_incident(incident, &judgement, false, from).await?;
    tx.endpoint_event(id, "online", "", until.minus(LOOK)).await?;
    tx.end_incident(incident, None, until).await?;
    tx.commit().await?;
    Ok(incident)
}

#[tokio::test]
async fn a_month_of_a_line_is_reckoned_signed_and_checked() -> Result<()> {
    for w in World::both().await? {
        // October 2016 is over: the clock stands in November.
        let id = w.endpoint(COMMUNE).await?;
        // Wednesday, 09:00 to 10:00 in Hanoi: two minutes before it was judged, and less one look, the office was away.
        let line = outage(&w, id, Cause::SiteLine, "2016-10-05T02:00:00Z", "2016-10-05T03:00:00Z").await?;
        // By night; half of it in announced work.
        outage(&w, id, Cause::Carrier, "2016-10-06T15:00:00Z", "2016-10-06T16:00:00Z").await?;
        outage(&w, id, Cause::SitePower, "2016-10-07T02:00:00Z", "2016-10-07T03:00:00Z").await?;
        outage(&w, id, Cause::LineDegraded, "2016-10-10T02:00:00Z", "2016-10-10T03:00:00Z").await?;
        outage(&w, id, Cause::Computer, "2016-10-11T02:00:00Z", "2016-10-11T03:00:00Z").await?;
        let mut tx = w.db.store.begin().await?;
        tx.announce_work(
            COMMUNE,
            Some(at("2016-10-06T18:00:00Z")?),
            "=HYPERLINK(\"x\")",
            "near",
            at("2016-10-06T15:30:00Z")?,
        )
        .await?;
        // It was done sooner.
        tx.announce_work(COMMUNE, None, "", "near", at("2016-10-06T17:00:00Z")?).await?;
        tx.commit().await?;

        let near = w.api.sign_in("near").await?;
        let path = |month: &str| format!("/api/v1/sites/{COMMUNE}/sla?month={month}");
        let r = near.get(&path("2016-10")).await?.json;
        assert_eq!(
            (r["complete"].as_bool(), r["from"].as_str()),
            (Some(true), Some("2016-09-30T17:00:00.000Z")),
            "{r}"
        );
        let first = &r["outages"][0];
        assert_eq!(first["incident"], json!(line));
        assert_eq!(
            (first["begin"].as_str(), first["end"].as_str()),
            (Some("2016-10-05T01:58:00.000Z"), Some("2016-10-05T02:59:45.000Z"))
        );
        assert_eq!((first["seconds"].as_i64(), first["office_s"].as_i64()), (Some(3705), Some(3705)));
        let second = &r["outages"][1];
        // From 14:58 until the work began at 15:30; none of it in office hours.
        assert_eq!((second["counted_s"].as_i64(), second["office_s"].as_i64()), (Some(32 * 60), Some(0)));
        let why: Vec<_> = r["excluded"].as_array().into_iter().flatten().filter_map(|x| x["why"].as_str()).collect();
        assert_eq!(why, ["not_the_line", "degraded"]);
        assert_eq!(r["works"][0]["until"], "2016-10-06T17:00:00.000Z");
        let all = &r["around_the_clock"];
        let counted = 31 * 86_400 - 5400;
        assert_eq!((all["counted_s"].as_i64(), all["down_s"].as_i64()), (Some(counted), Some(3705 + 1920)));
        assert_eq!(r["office_hours"]["down_s"].as_i64(), Some(3705));
        assert_eq!((near.get(&path("2016-12")).await?.code(), near.get(&path("x")).await?.code()), ("I-109", "I-109"));
        let running = near.get(&path("2016-11")).await?.json;
        assert_eq!(
            (running["complete"].as_bool(), running["outages"].as_array().map(Vec::len)),
            (Some(false), Some(0))
        );
        let far = w.api.sign_in("far").await?;
        assert_eq!(far.get(&path("2016-10")).await?.code(), "I-106");

        let table = near.get(&format!("/api/v1/sites/{COMMUNE}/sla/export?month=2016-10&format=csv")).await?;
        let table = String::from_utf8(table.bytes.to_vec())?;
        assert_eq!(table.lines().filter(|l| l.starts_with("outage,")).count(), 2);
        assert!(table.contains("\"'=HYPERLINK(\"\"x\"\")\""), "no formula: {table}");
        signed(&w).await?;
    }
    Ok(())
}

/// The signed form, checked by the real program.
async fn signed(w: &World) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let app = App { data_dir: folder.path().to_owned(), ..w.api.app().clone() };
    let made = sla::export(&app, &Ctx::local_admin(w.now()), COMMUNE, "2016-10").await?;
    let file = folder.path().join("evidence.json");
    std::fs::write(&file, serde_json::to_string_pretty(&made)?)?;
    let verify = |more: &[&str]| -> Result<Output> {
        let mut c = Command::new(program("tram-controller")?);
        Ok(c.env("TRAM_DATA", folder.path()).args(["sla", "verify"]).arg(&file).args(more).output()?)
    };
    let out = verify(&[])?;
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    ensure!(out.status.success() && said.contains("not altered") && said.contains("2 outages"), "{out:?}");
    let stranger = verify(&["--key", &"00".repeat(32)])?;
    ensure!(!stranger.status.success() && String::from_utf8_lossy(&stranger.stderr).contains("I-513"), "{stranger:?}");
    // A second more of outage.
    let text = std::fs::read_to_string(&file)?;
    ensure!(text.contains("3705"), "{text}");
    std::fs::write(&file, text.replacen("3705", "3706", 1))?;
    let altered = verify(&[])?;
    ensure!(
        altered.status.code() == Some(1) && String::from_utf8_lossy(&altered.stderr).contains("I-513"),
        "{altered:?}"
    );
    std::fs::write(&file, "{}")?;
    ensure!(String::from_utf8_lossy(&verify(&[])?.stderr).contains("I-511"));
    Ok(())
}
