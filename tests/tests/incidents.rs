//! Incidents from the rows of endpoints to what support reads, on both databases.

use std::time::Duration;

use anyhow::{Context, Result};
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use tram_controller::domain::access::Role;
use tram_controller::domain::endpoint::LinkWay;
use tram_controller::domain::health::{Latest, Probed};
use tram_controller::domain::incident::Thresholds;
use tram_controller::domain::incident::hours::Hours;
use tram_controller::domain::time::Time;
use tram_controller::services::health::{self, Arrival};
use tram_controller::services::incidents::{self, Lookout};
use tram_controller::store::endpoints::Heard;
use tram_controller::store::health_batch::{News, Parts};
use tram_tests::db::{self, TestDb};
use tram_tests::http::{Browser, COMMUNE, DISTRICT, ELSEWHERE, TestApi};
use tram_wire::check::CheckState;
use tram_wire::ids::EndpointId;
use tram_wire::report::{Phase, Probe, Record, Report, Trips};
use uuid::Uuid;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(15);

struct World {
    db: TestDb,
    api: TestApi,
    lookout: Lookout,
}

impl World {
    /// One on each database; its controller has run for an hour.
    async fn both() -> Result<Vec<Self>> {
        let mut worlds = Vec::new();
        for db in db::both().await? {
            let api = TestApi::new(&db.store).await?;
            let lookout = Lookout {
                since: api.app().clock.now(),
                hours: Hours::default(),
                thresholds: Thresholds { carrier_least: 3, ..Thresholds::default() },
            };
            api.pass(Duration::from_secs(3600));
            worlds.push(Self { db, api, lookout });
        }
        Ok(worlds)
    }

    fn now(&self) -> Time {
        self.api.app().clock.now()
    }

    async fn endpoint(&self, site: &str) -> Result<EndpointId> {
        let id = EndpointId(Uuid::now_v7());
        let mut tx = self.db.store.begin().await?;
        tx.add_endpoint(id, "pc", site, &json!({}), self.now().plus(Duration::from_secs(86_400)), self.now()).await?;
        tx.commit().await?;
        self.set(id, "online", "86400").await?;
        Ok(id)
    }

    /// Presence, and seconds since it was started.
    async fn set(&self, id: EndpointId, state: &str, uptime: &str) -> Result<()> {
        let id = match self.db.store.engine() {
            "SQLite" => format!("X'{}'", id.0.simple()),
            _ => format!("'{id}'"),
        };
        let at = self.now().micros();
        self.db
            .raw(&format!(
                "UPDATE endpoints SET state = '{state}', last_seen_at = {at}, vitals = '{{\"uptime_s\": {uptime}}}' WHERE id = {id}"
            ))
            .await
    }

    async fn fall_silent(&self, ids: &[EndpointId]) -> Result<()> {
        for id in ids {
            self.set(*id, "silent", "1").await?;
            let mut tx = self.db.store.begin().await?;
            tx.endpoint_event(*id, "silent", "", self.now()).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// The newest probes of a computer, made now.
    async fn probed(&self, id: EndpointId, probes: &[Probe]) -> Result<()> {
        let at = self.now();
        let made = probes.iter().map(|p| (p.name.clone(), Probed { at, probe: p.clone() })).collect();
        let mut tx = self.db.store.begin().await?;
        let latest = Latest { probes: made, at, ..Latest::default() };
        tx.put_latest_healths(&[News { id, latest: &latest, parts: Parts::ALL, arrived: at }]).await?;
        Ok(tx.commit().await?)
    }

    /// Looks so often, 15 s apart.
    async fn looks(&self, n: usize) -> Result<()> {
        for _ in 0..n {
            self.api.pass(LOOK);
            let looked = incidents::look(self.api.app(), &self.lookout, Vec::new(), self.now()).await?;
            looked.context("nobody else looks")?;
        }
        Ok(())
    }
}

async fn list(browser: &Browser<'_>, query: &str) -> Result<Vec<Value>> {
    let answer = browser.get(&format!("/api/v1/incidents?{query}")).await?;
    Ok(answer.json["items"].as_array().with_context(|| format!("{answer:?}"))?.clone())
}

async fn events(browser: &Browser<'_>, id: &str) -> Result<Vec<String>> {
    let one = browser.get(&format!("/api/v1/incidents/{id}")).await?;
    let events = one.json["events"].as_array().with_context(|| format!("{one:?}"))?;
    Ok(events.iter().filter_map(|e| e["kind"].as_str().map(Into::into)).collect())
}

#[tokio::test]
async fn an_office_falls_silent_is_looked_after_comes_back_and_it_was_the_power() -> Result<()> {
    for w in World::both().await? {
        w.api.add_user_at("near", Role::Support, Some(DISTRICT)).await?;
        w.api.add_user_at("far", Role::Support, Some("017")).await?;
        let (near, far) = (w.api.sign_in("near").await?, w.api.sign_in("far").await?);
        let office = [w.endpoint(COMMUNE).await?, w.endpoint(COMMUNE).await?];
        w.endpoint(ELSEWHERE).await?;
        w.looks(3).await?;
        assert_eq!(list(&near, "").await?.len(), 0, "all is well");

        w.fall_silent(&office).await?;
        w.looks(1).await?;
        assert_eq!(list(&near, "").await?.len(), 0, "one look is none");
        w.looks(1).await?;
        let found = list(&near, "open=true").await?;
        assert_eq!(found.len(), 1, "{found:?}");
        let incident = &found[0];
        assert_eq!((&incident["cause"], &incident["scope"]), (&json!("site_line"), &json!(format!("site:{COMMUNE}"))));
        assert_eq!(incident["site"]["district"], "Quận Ba Đình");
        assert_eq!(incident["evidence"][0]["params"]["count"], "2");
        assert_eq!(incident["doubts"][0]["code"], "power_not_excluded");
        assert_eq!(list(&far, "").await?.len(), 0, "not theirs");
        let id = incident["id"].as_str().context("id")?.to_owned();
        let path = format!("/api/v1/incidents/{id}");
        assert_eq!(far.get(&path).await?.code(), "I-404");
        let map = near.get("/api/v1/incidents/by-site").await?;
        assert_eq!(
            (&map.json["items"][0]["site"], &map.json["items"][0]["severity"]),
            (&json!(COMMUNE), &json!("crit"))
        );

        // Looked after by one, handed to the carrier with a clock, and remembered.
        let operator = w.api.signed_in(Role::Operator).await?;
        assert_eq!(near.post(&format!("{path}/acknowledge"), json!({})).await?.json["acknowledged_by"], "near");
        assert_eq!(operator.post(&format!("{path}/acknowledge"), json!({})).await?.code(), "I-102");
        let handed = near
            .post(
                &format!("{path}/hand-over"),
                json!({"party": "carrier", "answer_minutes": 240, "text": "phiếu 12/VNPT"}),
            )
            .await?;
        assert!(handed.json["answer_by"].is_string(), "{handed:?}");
        let late = near.post(&format!("{path}/hand-over"), json!({"party": "carrier", "answer_minutes": 0})).await?;
        assert_eq!(late.json["errors"][0]["code"], "I-104");
        assert_eq!(
            near.post(&format!("{path}/notes"), json!({"text": "  "})).await?.json["errors"][0]["code"],
            "I-103"
        );
        let noted = near.post(&format!("{path}/notes"), json!({"text": "Gọi cho cán bộ tư pháp: mất điện"})).await?;
        assert_eq!(noted.status, StatusCode::NO_CONTENT, "{noted:?}");

        // Both were started a minute ago: it was not the line.
        for id in office {
            w.set(id, "online", "20").await?;
        }
        w.looks(3).await?;
        let now = list(&near, "").await?;
        assert_eq!((&now[0]["open"], &now[0]["cause"]), (&json!(false), &json!("site_power")), "{now:?}");
        assert_eq!((&now[0]["first_cause"], &now[0]["party"]), (&json!("site_line"), &json!("site")));
        assert_eq!(events(&near, &id).await?, ["opened", "acknowledged", "handed", "note", "cause", "over"]);
        assert_eq!(near.get("/api/v1/incidents/by-site").await?.json["total"], 0);
    }
    Ok(())
}

#[tokio::test]
async fn offices_of_one_carrier_become_one_incident() -> Result<()> {
    for w in World::both().await? {
        let operator = w.api.signed_in(Role::Operator).await?;
        let sites = [ELSEWHERE, "00454", "00460"];
        let mut all = Vec::new();
        for site in sites {
            let facts = json!({"carrier": "VNPT Hà Nội"});
            let put = operator
                .send(
                    Method::PUT,
                    &format!("/api/v1/site-facts/{site}"),
                    Some(("application/json", facts.to_string().into())),
                )
                .await?;
            assert_eq!(put.status, StatusCode::OK, "{put:?}");
            all.push([w.endpoint(site).await?, w.endpoint(site).await?]);
        }
        // Others are not touched, so it is not everybody.
        for site in [COMMUNE, "00006", "00006", COMMUNE, COMMUNE, "00006"] {
            w.endpoint(site).await?;
        }
        w.fall_silent(&all[0]).await?;
        w.looks(2).await?;
        assert_eq!(list(&operator, "open=true").await?[0]["cause"], "site_line");
        w.fall_silent(&all[1]).await?;
        w.fall_silent(&all[2]).await?;
        w.looks(4).await?;
        let open = list(&operator, "open=true").await?;
        assert_eq!(open.len(), 1, "{open:?}");
        assert_eq!((&open[0]["cause"], &open[0]["scope"]), (&json!("carrier"), &json!("carrier:VNPT Hà Nội")));
        let over = list(&operator, "open=false").await?;
        assert_eq!(over[0]["merged_into"], open[0]["id"], "the first office's is explained, not good again");
        let one = operator.get(&format!("/api/v1/incidents/{}", open[0]["id"].as_str().context("id")?)).await?;
        assert_eq!(one.json["sites"].as_array().map(Vec::len), Some(3));
    }
    Ok(())
}

#[tokio::test]
async fn evenings_holidays_and_announced_work_are_quiet() -> Result<()> {
    for w in World::both().await? {
        let operator = w.api.signed_in(Role::Operator).await?;
        let office = [w.endpoint(COMMUNE).await?, w.endpoint(COMMUNE).await?];
        w.endpoint(ELSEWHERE).await?;
        // The test's day is a Tuesday; today nobody works.
        let days = json!([{"day": "2016-11-15", "working": false, "name": "Nghỉ bù"}]);
        let put = async |days: &Value| {
            operator.send(Method::PUT, "/api/v1/calendar", Some(("application/json", days.to_string().into()))).await
        };
        assert_eq!(put(&days).await?.json["total"], 1);
        w.fall_silent(&office).await?;
        w.looks(4).await?;
        assert_eq!(list(&operator, "").await?.len(), 0, "a holiday");
        assert_eq!(put(&json!([days[0].clone(), days[0].clone()])).await?.json["errors"][0]["code"], "I-107");
        assert_eq!(put(&json!([])).await?.json["total"], 0);
        let until = w.now().plus(Duration::from_secs(60));
        let work = json!({"carrier": null, "maintenance_until": until, "maintenance_reason": "thay tủ mạng"});
        let facts = format!("/api/v1/site-facts/{COMMUNE}");
        operator.send(Method::PUT, &facts, Some(("application/json", work.to_string().into()))).await?;
        w.looks(4).await?;
        assert_eq!(list(&operator, "").await?.len(), 0, "announced, for a minute");
        w.looks(2).await?;
        assert_eq!(list(&operator, "open=true").await?.len(), 1, "the minute is over");
    }
    Ok(())
}

#[tokio::test]
async fn a_controller_that_was_away_says_nothing_of_others() -> Result<()> {
    for w in World::both().await? {
        let office = [w.endpoint(COMMUNE).await?, w.endpoint(COMMUNE).await?];
        w.fall_silent(&office).await?;
        let fresh = Lookout { since: w.now(), ..w.lookout.clone() };
        w.api.pass(Duration::from_secs(60));
        assert_eq!(
            incidents::look(w.api.app(), &fresh, Vec::new(), w.now()).await?,
            None,
            "it has just begun to listen"
        );
        w.looks(2).await?;
        let operator = w.api.signed_in(Role::Operator).await?;
        assert_eq!(list(&operator, "open=true").await?.len(), 1);
        // What was opened stays what it is for the one that comes after.
        w.api.pass(Duration::from_secs(120));
        let next = Lookout { since: w.now().minus(Duration::from_secs(100)), ..w.lookout.clone() };
        let looked = incidents::look(w.api.app(), &next, Vec::new(), w.now()).await?.context("looked")?;
        assert_eq!((looked.opened, looked.over), (0, 0));
    }
    Ok(())
}

#[tokio::test]
async fn probes_of_offices_tell_a_service_from_a_line_and_a_cable() -> Result<()> {
    for w in World::both().await? {
        let operator = w.api.signed_in(Role::Operator).await?;
        let sites = [COMMUNE, ELSEWHERE, "00454", "00460", "00006"];
        let mut all = Vec::new();
        for site in sites {
            all.push(w.endpoint(site).await?);
        }
        let peer = w.endpoint(COMMUNE).await?;
        let burst = |lost: u16| {
            let trips = Trips { sent: 20, lost, p50_us: 400, p95_us: 900, jitter_us: 50 };
            Probe {
                name: "gateway".into(),
                kind: "icmp".into(),
                state: CheckState::Ok,
                trips: Some(trips),
                ..Probe::default()
            }
        };
        let egov = |ok: bool| Probe {
            name: "egov".into(),
            kind: "https".into(),
            state: if ok { CheckState::Ok } else { CheckState::Crit },
            failed: (!ok).then_some(Phase::Tls),
            ..Probe::default()
        };
        // A service that fails at three offices of five.
        for (n, id) in all.iter().enumerate() {
            w.probed(*id, &[egov(n > 2), burst(0)]).await?;
        }
        w.looks(3).await?;
        let open = list(&operator, "open=true").await?;
        assert_eq!(
            (open.len(), &open[0]["cause"], &open[0]["scope"]),
            (1, &json!("service"), &json!("service:egov")),
            "{open:?}"
        );
        // Then nowhere; then at one, and one of two computers there loses packets on the way to its router.
        for id in &all {
            w.probed(*id, &[egov(true), burst(0)]).await?;
        }
        w.looks(4).await?;
        assert_eq!(list(&operator, "open=true").await?.len(), 0);
        w.probed(all[0], &[egov(false), burst(0)]).await?;
        w.probed(peer, &[burst(4)]).await?;
        w.looks(4).await?;
        let mut causes: Vec<_> = list(&operator, "open=true").await?.iter().map(|i| i["cause"].to_string()).collect();
        causes.sort();
        assert_eq!(causes, ["\"lan\"", "\"site_service\""]);
        // What was found an hour ago says nothing of now.
        w.api.pass(Duration::from_secs(3600));
        w.looks(8).await?;
        let operator = w.api.signed_in(Role::Operator).await?;
        assert_eq!(list(&operator, "open=true").await?.len(), 0);
    }
    Ok(())
}

#[tokio::test]
async fn a_line_is_judged_by_what_it_loses_and_by_what_is_usual_there() -> Result<()> {
    for w in World::both().await? {
        let (prober, peer) = (w.endpoint(COMMUNE).await?, w.endpoint(COMMUNE).await?);
        let mut seq = 0;
        let mut tell = async |id: EndpointId, gauges: &[(&str, f32)]| -> Result<()> {
            seq += 1;
            let gauges = gauges.iter().map(|(n, v)| ((*n).to_owned(), Some(*v))).collect();
            let record = Record { seq, mono_ms: seq, key: true, gauges, ..Record::default() };
            let report = Report {
                batch: seq,
                boot: "b".into(),
                mono_ms: Some(seq),
                at_ms: 0,
                records: vec![record],
                rides: false,
            };
            let mut tx = w.db.store.begin().await?;
            health::keep_all(&mut tx, &[Arrival { id, report: &report, at: w.now() }]).await?;
            Ok(tx.commit().await?)
        };
        let router = [("gateway_loss", 0.0), ("gateway_p95_ms", 1.0)];
        let line = |p95: f32, loss: f32| {
            let own = [("controller_p50_ms", p95 / 2.0), ("controller_p95_ms", p95), ("controller_loss", loss)];
            [&router[..], &own[..]].concat()
        };
        // Half a day on a line that takes 40 ms; the peer measures its router only.
        for _ in 0..14 {
            tell(prober, &line(40.0, 0.0)).await?;
            tell(peer, &router).await?;
            w.api.pass(Duration::from_secs(3600));
        }
        let operator = w.api.signed_in(Role::Operator).await?;
        let health = operator.get(&format!("/api/v1/endpoints/{prober}/health")).await?;
        assert_eq!(health.json["usual_ms"], 40.0, "{health:?}");
        let mut over = 0;
        for (p95, loss, bad) in [(100.0, 0.0, false), (140.0, 0.0, true), (45.0, 0.0, false), (45.0, 9.0, true)] {
            tell(prober, &line(p95, loss)).await?;
            tell(peer, &router).await?;
            w.looks(8).await?;
            let open = list(&operator, "open=true").await?;
            assert_eq!(open.len(), usize::from(bad), "{p95} ms, {loss} %: {open:?}");
            if bad {
                over += 1;
                assert_eq!((&open[0]["cause"], &open[0]["party"]), (&json!("line_degraded"), &json!("carrier")));
                assert_eq!(open[0]["evidence"][0]["params"]["usual"], "40");
            }
        }
        assert_eq!(over, 2);
    }
    Ok(())
}

#[tokio::test]
async fn what_was_measured_before_an_office_came_back_blames_nobody() -> Result<()> {
    for w in World::both().await? {
        let operator = w.api.signed_in(Role::Operator).await?;
        let (here, there) = (w.endpoint(COMMUNE).await?, w.endpoint(ELSEWHERE).await?);
        let mut seq = 0;
        let mut tell = async |id: EndpointId, loss: f32, ok: bool| -> Result<()> {
            seq += 1;
            let told = [("gateway_loss", 0.0), ("gateway_p95_ms", 1.0), ("controller_loss", loss)];
            let gauges = told.into_iter().map(|(n, v)| (n.to_owned(), Some(v))).collect();
            let state = if ok { CheckState::Ok } else { CheckState::Crit };
            let egov = Probe { name: "egov".into(), kind: "https".into(), state, ..Probe::default() };
            let record = Record { seq, mono_ms: seq, key: true, gauges, probes: vec![egov], ..Record::default() };
            let report = Report {
                batch: seq,
                boot: "b".into(),
                mono_ms: Some(seq),
                at_ms: 0,
                records: vec![record],
                rides: false,
            };
            let mut tx = w.db.store.begin().await?;
            health::keep_all(&mut tx, &[Arrival { id, report: &report, at: w.now() }]).await?;
            Ok(tx.commit().await?)
        };
        // What an office lost and could not reach, told just before its line was cut; then it links again.
        for again in ["a link that broke", "a silence"] {
            tell(there, 0.0, true).await?;
            tell(here, 60.0, false).await?;
            w.api.pass(Duration::from_secs(5));
            if again == "a silence" {
                w.set(here, "silent", "86400").await?;
            }
            let mut tx = w.db.store.begin().await?;
            let heard = Heard { id: here, at: w.now(), skew_ms: None };
            if again == "a silence" {
                assert_eq!(tx.endpoints_heard(&[heard], w.now().minus(LOOK)).await?, [here]);
            } else {
                assert_eq!(tx.endpoints_heard(&[heard], w.now().minus(LOOK)).await?, []);
                tx.endpoint_linked(here, w.now(), LinkWay::Socket).await?;
            }
            tx.commit().await?;
            w.looks(8).await?;
            assert_eq!(list(&operator, "").await?.len(), 0, "{again}: from before it was back");
        }
        // Measured anew, it is as bad as it was.
        tell(here, 60.0, false).await?;
        w.looks(8).await?;
        let open = list(&operator, "open=true").await?;
        assert_eq!((open.len(), &open[0]["cause"]), (1, &json!("line_degraded")), "{open:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_mended_service_is_nobodys_fault_while_the_last_offices_ask_it_again() -> Result<()> {
    for w in World::both().await? {
        let operator = w.api.signed_in(Role::Operator).await?;
        let mut all = Vec::new();
        for site in [COMMUNE, ELSEWHERE, "00454", "00460", "00006"] {
            all.push(w.endpoint(site).await?);
        }
        let asks = async |of: &[EndpointId], ok: bool| -> Result<()> {
            let state = if ok { CheckState::Ok } else { CheckState::Crit };
            let egov = Probe { name: "egov".into(), kind: "https".into(), state, ..Probe::default() };
            for id in of {
                w.probed(*id, std::slice::from_ref(&egov)).await?;
            }
            Ok(())
        };
        asks(&all, false).await?;
        w.looks(2).await?;
        assert_eq!(list(&operator, "open=true").await?[0]["cause"], "service");
        // All but one have asked again; that one does so minutes later, and still fails.
        asks(&all[1..], true).await?;
        w.looks(12).await?;
        let told = list(&operator, "").await?;
        assert_eq!((told.len(), &told[0]["open"]), (1, &json!(false)), "{told:?}");
        asks(&all[..1], false).await?;
        w.looks(4).await?;
        let open = list(&operator, "open=true").await?;
        assert_eq!((open.len(), &open[0]["cause"]), (1, &json!("site_service")), "{open:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_endpoints_report_may_have_any_shape() -> Result<()> {
    for w in World::both().await? {
        w.endpoint(COMMUNE).await?;
        for (network, findings) in [
            ("[]", "{}"),
            ("{\"gateway\": 7, \"controller_loss_percent\": \"many\", \"services\": {\"a\": 1}}", "[{\"check\": 3}]"),
            ("{\"gateway\": \"x\", \"gateway_loss_percent\": -5, \"services\": [1, null, {\"name\": []}]}", "[[[]]]"),
            ("null", "\"text\""),
        ] {
            w.db.raw(&format!("UPDATE endpoints SET verdict = 'crit', network = '{network}', findings = '{findings}'"))
                .await?;
            w.looks(2).await?;
        }
        let operator = w.api.signed_in(Role::Operator).await?;
        assert_eq!(list(&operator, "").await?.len(), 0);
    }
    Ok(())
}
