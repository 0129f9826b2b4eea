//! Health reports on their way into both databases: kept once, dated right, cut to size, and answered.

use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::SinkExt;
use tokio_tungstenite::tungstenite::Message;
use tram_controller::domain::endpoint::{EndpointState, Verdict};
use tram_controller::domain::health::{LIVE, Latest};
use tram_controller::domain::time::Time;
use tram_controller::services::health::{Arrival, keep_all};
use tram_controller::services::{Error, endpoints, health};
use tram_controller::store::endpoints::Filter;
use tram_tests::links::{Line, World};
use tram_wire::check::CheckState;
use tram_wire::ids::EndpointId;
use tram_wire::plan::{Plan, Service};
use tram_wire::report::*;
use tram_wire::{AgentMessage, ControllerMessage, Refusal};
use uuid::Uuid;

const BOOT: &str = "7d0f3f0e-94f6-4f5e-8f1e-0d6b1a3a5a11";

fn report(batch: u64, records: Vec<Record>) -> AgentMessage {
    let report = Report { batch, boot: BOOT.into(), mono_ms: Some(1_000_000), at_ms: 0, records, rides: false };
    AgentMessage::Report(Box::new(report))
}

fn paper(seq: u64, state: CheckState) -> Record {
    let check = CheckResult { check: "printer".into(), state, code: "printer_paper".into(), ..CheckResult::default() };
    Record { seq, mono_ms: 990_000, checks: vec![check], ..Record::default() }
}

/// Sends a report and waits for its answer, which comes once it is in the database.
async fn kept(line: &mut Line, message: &AgentMessage) -> Result<u64> {
    line.send(message).await?;
    match line.next().await? {
        ControllerMessage::ReportAck(ack) => Ok(ack.batch),
        other => anyhow::bail!("{other:?}"),
    }
}

async fn latest(w: &World, id: EndpointId) -> Result<Latest> {
    w.app.store.endpoint_health(id).await?.context("health is there")
}

#[tokio::test]
async fn a_record_that_comes_twice_is_kept_once() -> Result<()> {
    for w in World::all().await? {
        let d = w.endpoint().await?;
        let mut line = w.link(&d).await?;
        let item = Item { id: "mot-cua".into(), kind: "printer".into(), ..Item::default() };
        let record = Record {
            key: true,
            gauges: [("cpu".to_owned(), Some(12.5))].into(),
            inventory: [("printers".to_owned(), vec![item.clone()])].into(),
            events: vec![Event { what: Happened::Attached, section: "printers".into(), item }],
            ..paper(7, CheckState::Crit)
        };
        assert_eq!(kept(&mut line, &report(1, vec![record.clone()])).await?, 1);
        // The answer was lost with the line, and the agent sends it all again.
        drop(line);
        let mut line = w.link(&d).await?;
        assert_eq!(kept(&mut line, &report(1, vec![record, paper(8, CheckState::Ok)])).await?, 1);
        let now = latest(&w, d.id).await?;
        assert_eq!((now.seq, now.gauges["cpu"], now.inventory["printers"].len()), (8, 12.5, 1));
        assert_eq!(w.row(d.id).await?.verdict, Verdict::Ok);
        let turns = w.app.store.endpoint_transitions(d.id, 10).await?;
        let said: Vec<_> = turns.iter().map(|t| (t.from_state.as_deref(), t.to_state.as_str())).collect();
        assert_eq!(said, [(Some("crit"), "ok"), (None, "crit")], "{}", w.app.store.engine());
        let events = w.events(d.id).await?;
        assert_eq!(events.iter().filter(|e| *e == "attached").count(), 1, "{events:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_seldom_changes_is_left_where_it_is_by_what_moves_each_minute() -> Result<()> {
    for w in World::all().await? {
        let d = w.endpoint().await?;
        let mut line = w.link(&d).await?;
        let gauges = |v: f32| [("cpu".to_owned(), Some(v))].into();
        // The first word may be a small one.
        kept(&mut line, &report(1, vec![Record { seq: 1, gauges: gauges(1.0), ..Record::default() }])).await?;
        let first = latest(&w, d.id).await?;
        assert_eq!((first.gauges["cpu"], first.inventory.len(), first.checks.len()), (1.0, 0, 0));
        let item = Item { id: "mot-cua".into(), kind: "printer".into(), ..Item::default() };
        let key = Record {
            key: true,
            gauges: gauges(2.0),
            inventory: [("printers".to_owned(), vec![item])].into(),
            ..paper(2, CheckState::Warn)
        };
        kept(&mut line, &report(2, vec![key])).await?;
        let told = w.row(d.id).await?.reported_at;
        w.app.clock.set(w.app.clock.now().plus(Duration::from_secs(60)));
        let probe = Probe { name: "portal".into(), ..Probe::default() };
        let small = vec![
            Record { seq: 3, gauges: gauges(3.0), ..Record::default() },
            Record { seq: 4, probes: vec![probe], ..Record::default() },
            Record { seq: 5, gauges: gauges(5.0), ..Record::default() },
        ];
        kept(&mut line, &report(3, small)).await?;
        let now = latest(&w, d.id).await?;
        assert_eq!(
            (now.seq, now.gauges["cpu"], now.inventory["printers"].len()),
            (5, 5.0, 1),
            "{}",
            w.app.store.engine()
        );
        assert_eq!((now.checks[0].state, now.probes.len()), (CheckState::Warn, 1));
        let row = w.row(d.id).await?;
        assert_eq!(row.verdict, Verdict::Warn);
        assert!(row.reported_at > told, "{:?} after {told:?}", row.reported_at);
    }
    Ok(())
}

/// Statements for many are cut into pieces; each row must come through, once.
#[tokio::test]
async fn a_batch_of_many_endpoints_is_kept_whole() -> Result<()> {
    for w in World::all().await? {
        let now = w.app.clock.now();
        let ids: Vec<EndpointId> = (0..601).map(|_| EndpointId(Uuid::now_v7())).collect();
        let mut tx = w.app.store.begin().await?;
        for id in &ids {
            tx.add_endpoint(*id, "pc", "00004", &serde_json::json!({}), now.plus(Duration::from_secs(9)), now).await?;
        }
        tx.commit().await?;
        for seq in 1..=2 {
            let record = Record { gauges: [("cpu".to_owned(), Some(7.0))].into(), ..paper(seq, CheckState::Crit) };
            let report = Report {
                batch: seq,
                boot: BOOT.into(),
                mono_ms: Some(1_000_000),
                at_ms: 0,
                records: vec![record],
                rides: false,
            };
            let all: Vec<_> = ids.iter().map(|id| Arrival { id: *id, report: &report, at: now }).collect();
            let mut tx = w.app.store.begin().await?;
            // The same twice in one batch, as after a line that was lost.
            keep_all(&mut tx, &[all.clone(), all].concat()).await?;
            tx.commit().await?;
        }
        for id in &ids {
            let (health, turns) = (latest(&w, *id).await?, w.app.store.endpoint_transitions(*id, 10).await?);
            assert_eq!((health.seq, health.gauges["cpu"], turns.len()), (2, 7.0, 1), "{}", w.app.store.engine());
            let points = w.app.store.endpoint_samples(*id, Time::default(), now.plus(LIVE), 10).await?;
            assert_eq!(points.len(), 2);
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_backlog_is_dated_by_age_and_changes_the_past_only() -> Result<()> {
    for w in World::all().await? {
        let d = w.endpoint().await?;
        let mut line = w.link(&d).await?;
        let now = w.app.clock.now();
        kept(&mut line, &report(1, vec![paper(900, CheckState::Ok)])).await?;
        // Made 400 s ago on the boot clock by a computer that believes in 1970, and one that believes in 2099.
        let old = |seq, at_ms| Record { mono_ms: 600_000, at_ms, ..paper(seq, CheckState::Crit) };
        let late = report(2, vec![old(5, 0), old(6, 4_070_908_800_000)]);
        kept(&mut line, &late).await?;
        let row = w.row(d.id).await?;
        assert_eq!(row.verdict, Verdict::Ok, "the past does not judge the present");
        let turns = w.app.store.endpoint_transitions(d.id, 10).await?;
        let ages: Vec<_> =
            turns.iter().filter(|t| t.to_state == "crit").map(|t| (now.micros() - t.at) / 1_000_000).collect();
        assert_eq!(ages, [400, 400], "{}", w.app.store.engine());
        assert!(turns.iter().all(|t| t.arrived_at >= t.at));
        let points = w.app.store.endpoint_samples(d.id, now.minus(Duration::from_secs(401)), now, 10).await?;
        assert_eq!(points.len(), 3);
    }
    Ok(())
}

#[tokio::test]
async fn what_is_too_much_is_cut_and_what_is_no_message_is_refused() -> Result<()> {
    for w in World::all().await? {
        let d = w.endpoint().await?;
        let mut line = w.link(&d).await?;
        let gauges = (0..3000).map(|i| (format!("series-{i}"), Some(1.0))).collect();
        let nul = Record { notes: vec![Note { code: "x\u{0}".into(), ..Note::default() }], ..Record::default() };
        let many = vec![Record { seq: 1, key: true, gauges, ..Record::default() }, Record { seq: 2, ..nul }];
        assert_eq!(kept(&mut line, &report(1, many)).await?, 1);
        assert_eq!(latest(&w, d.id).await?.gauges.len(), limits::GAUGES);
        // Ten megabytes, and brackets without end.
        let deep = format!(r#"{{"kind":"report","batch":1,"boot":"b","at_ms":1,"records":{}"#, "[".repeat(20_000));
        for bad in ["x".repeat(10 << 20), deep] {
            let mut line = w.link(&d).await?;
            let _ = line.0.send(Message::text(bad)).await;
            assert!(matches!(line.refused().await, Ok(Refusal::Malformed { .. }) | Err(_)));
        }
        let mut line = w.link(&d).await?;
        assert_eq!(kept(&mut line, &report(9, vec![paper(50, CheckState::Warn)])).await?, 9, "it is still served");
    }
    Ok(())
}

#[tokio::test]
async fn one_endpoint_of_a_site_probes_and_another_takes_over() -> Result<()> {
    for w in World::all().await? {
        let portal = Service {
            name: "portal".into(),
            kind: "https".into(),
            host: "dichvucong.hanoi.gov.vn".into(),
            every_s: 300,
            budget_ms: 5000,
            ..Service::default()
        };
        health::add_service(&w.app, &w.admin(), portal.clone()).await?;
        let again = health::add_service(&w.app, &w.admin(), portal).await;
        assert!(matches!(again, Err(Error::Conflict("E-218", _))));
        let bad = Service { name: "a b".into(), kind: "ftp".into(), host: "x y".into(), ..Service::default() };
        let Err(Error::Invalid(_, _, faults)) = health::add_service(&w.app, &w.admin(), bad).await else { panic!() };
        assert_eq!(faults.len(), 4);

        let (a, b) = (w.endpoint().await?, w.endpoint().await?);
        let (mut first, mut second) = (w.link(&a).await?, w.link(&b).await?);
        w.until(b.id, "online", |e| e.state == EndpointState::Online).await?;
        w.until(a.id, "online", |e| e.state == EndpointState::Online).await?;
        let now = w.app.clock.now();
        assert_eq!(health::elect_probers(&w.app, now).await?, 1);
        assert_eq!(health::elect_probers(&w.app, now).await?, 0, "named twice");
        let plan = plan(&mut first).await?;
        assert_eq!((plan.prober, plan.services.len()), (true, 1));
        first.send(&AgentMessage::Goodbye(goodbye())).await?;
        w.until(a.id, "gone", |e| e.state == EndpointState::Silent).await?;
        assert_eq!(health::elect_probers(&w.app, now).await?, 1);
        assert!(self::plan(&mut second).await?.prober);
    }
    Ok(())
}

fn goodbye() -> tram_wire::heartbeat::Goodbye {
    tram_wire::heartbeat::Goodbye { reason: tram_wire::heartbeat::GoodbyeReason::Stopped }
}

async fn plan(line: &mut Line) -> Result<Plan> {
    for _ in 0..4 {
        // A look comes every few seconds.
        match line.next().await {
            Ok(ControllerMessage::Plan(p)) => return Ok(*p),
            Ok(other) => anyhow::bail!("{other:?}"),
            Err(_) => {}
        }
    }
    anyhow::bail!("no plan came")
}

#[tokio::test]
async fn somebody_who_looks_is_told_to_the_endpoint_once() -> Result<()> {
    for w in World::all().await? {
        let d = w.endpoint().await?;
        let mut line = w.link(&d).await?;
        let until = health::look_at(&w.app, &w.admin(), d.id, false).await?;
        assert_eq!(until, w.app.clock.now().plus(LIVE));
        match line.next().await? {
            ControllerMessage::Live(l) => assert_eq!(u64::from(l.for_s), LIVE.as_secs()),
            other => anyhow::bail!("{other:?}"),
        }
        let stranger = health::look_at(&w.app, &w.admin(), EndpointId(uuid::Uuid::from_u128(7)), false).await;
        assert!(matches!(stranger, Err(Error::NotFound(..))));
    }
    Ok(())
}

#[tokio::test]
async fn a_line_that_is_paid_by_the_byte_is_spared() -> Result<()> {
    for w in World::all().await? {
        let d = w.endpoint().await?;
        let mut line = w.link(&d).await?;
        endpoints::set_metered(&w.app, &w.admin(), d.id, Some(true)).await?;
        let told = plan(&mut line).await?;
        let pace = w.app.pace.metered();
        assert_eq!((told.metered, u64::from(told.beat_s)), (true, pace.beat.as_secs()));
        assert_eq!(u64::from(told.keyframe_s), pace.keyframe.as_secs());
        // Nobody looks by a slip of the hand.
        let refused = health::look_at(&w.app, &w.admin(), d.id, false).await;
        assert!(matches!(refused, Err(Error::Conflict("E-220", _))), "{refused:?}");
        health::look_at(&w.app, &w.admin(), d.id, true).await?;
        // It speaks rarely, and is not taken for silent by that.
        let late = w.app.clock.now().plus(Duration::from_secs(3600));
        let mut tx = w.app.store.begin().await?;
        assert_eq!(tx.silence_endpoints(late, Time::default()).await?, [], "{}", w.app.store.engine());
        assert_eq!(tx.silence_endpoints(Time::default(), late).await?.len(), 1);
        tx.commit().await?;
        // What is said of one goes before what is said of its site.
        let site = w.row(d.id).await?.site_code;
        let mut tx = w.app.store.begin().await?;
        assert!(tx.put_site_metered(&site, true, w.app.clock.now()).await?);
        assert!(!tx.put_site_metered(&site, true, w.app.clock.now()).await?, "it is already");
        tx.commit().await?;
        for (here, wanted) in [(Some(false), false), (None, true), (Some(true), true)] {
            let (row, _) = endpoints::set_metered(&w.app, &w.admin(), d.id, here).await?;
            assert_eq!((row.metered, row.metered_here), (wanted, here));
            assert_eq!(w.app.store.endpoint_is_metered(d.id).await?, wanted);
            assert_eq!(w.app.store.endpoints_metered().await?.contains(&d.id), wanted);
        }
        assert_eq!(w.app.store.lines().await?.get(&site).map(|l| l.metered), Some(true));
    }
    Ok(())
}

#[tokio::test]
async fn the_list_can_be_cut_to_the_worst() -> Result<()> {
    for w in World::all().await? {
        let (bad, good) = (w.endpoint().await?, w.endpoint().await?);
        let (mut a, mut b) = (w.link(&bad).await?, w.link(&good).await?);
        kept(&mut a, &report(1, vec![paper(1, CheckState::Crit)])).await?;
        kept(&mut b, &report(1, vec![paper(1, CheckState::Ok)])).await?;
        let worst = Filter { verdict: Some(Verdict::Crit), limit: 10, ..Filter::default() };
        let (rows, total) = w.app.store.endpoints(&worst).await?;
        assert_eq!((rows[0].id, total), (bad.id, 1));
        assert_eq!(health::prune(&w.app, w.app.clock.now()).await?, 0);
        let later = w.app.clock.now().plus(Duration::from_secs(4 * 86_400));
        assert_eq!(health::prune(&w.app, later).await?, 2);
    }
    Ok(())
}
