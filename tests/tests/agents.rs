//! Agents against the controller, in one process, over real TLS, on both databases: enrolment, link,
//! beat, silence, revocation, wrong certificates, wrong clocks, hostile frames.

use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::SinkExt;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use tokio_tungstenite::tungstenite::Message;
use tram_controller::domain::diagnosis::DiagnosisState;
use tram_controller::domain::endpoint::{EndpointState, SILENT_WITHIN, Verdict};
use tram_controller::domain::time::Time;
use tram_controller::identity::ca::DeviceCa;
use tram_controller::services::{Error, endpoints, enrolments};
use tram_controller::store::diagnosis::NewDiagnosis;
use tram_controller::store::endpoints::Filter;
use tram_tests::links::{Device, World, csr, hello};
use tram_wire::check::{CheckState, Finding};
use tram_wire::diagnosis::{Action, News, OrderNews, Outcome, Work};
use tram_wire::enrol::{EnrolRequest, Renew};
use tram_wire::heartbeat::{Beat, Goodbye, GoodbyeReason, Snapshot};
use tram_wire::ids::{EndpointId, OrderId};
use tram_wire::{AgentMessage, ControllerMessage, Refusal, packed, short};
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3600);

fn snapshot(state: CheckState) -> AgentMessage {
    let finding = Finding { check: "disk_space".into(), state, code: "disk_low".into(), params: Default::default() };
    let mut s = Snapshot {
        at_ms: 0,
        hardware: Default::default(),
        vitals: Default::default(),
        network: Default::default(),
        findings: vec![finding],
    };
    s.hardware.vendor = Some("Dell\u{0} Inc.".into());
    AgentMessage::Snapshot(Box::new(s))
}

#[tokio::test]
async fn an_endpoint_enrols_links_beats_and_reports() -> Result<()> {
    for w in World::all().await? {
        let d = w.endpoint().await?;
        assert_eq!(w.row(d.id).await?.state, EndpointState::Never);
        let mut line = w.link(&d).await?;
        line.send(&AgentMessage::Beat(Beat { seq: 1, at_ms: 0, rtt_us: None })).await?;
        assert!(matches!(line.next().await?, ControllerMessage::BeatAck(a) if a.seq == 1));
        w.until(d.id, "online", |e| e.state == EndpointState::Online).await?;
        line.send(&snapshot(CheckState::Warn)).await?;
        let row = w.until(d.id, "warned", |e| e.verdict == Verdict::Warn).await?;
        assert_eq!((row.site_name.as_deref(), row.name.as_str()), (Some("Phường Trúc Bạch"), "mot-cua-03"));
        // NUL would be refused by PostgreSQL, and with it the whole batch.
        assert_eq!(row.hardware.unwrap()["vendor"], "Dell Inc.");
        line.send(&AgentMessage::Goodbye(Goodbye { reason: GoodbyeReason::Stopped })).await?;
        w.until(d.id, "gone", |e| e.state == EndpointState::Silent).await?;
        assert_eq!(w.events(d.id).await?, ["enrolled", "online", "verdict", "goodbye"]);
    }
    Ok(())
}

#[tokio::test]
async fn a_token_works_as_often_as_it_says_and_no_longer_than_it_says() -> Result<()> {
    for w in World::all().await? {
        let token = w.token(2, 1).await?;
        let (a, b, c) = tokio::join!(w.enrol(&token), w.enrol(&token), w.enrol(&token));
        let good = [&a, &b, &c].into_iter().filter(|r| r.is_ok()).count();
        assert_eq!(good, 2);
        let late = w.token(1, 1).await?;
        w.pass_time(HOUR + Duration::from_secs(1));
        assert_eq!(w.enrol(&late).await.err(), Some(Refusal::Token));
        assert_eq!(w.enrol("tram1-00000-00000-00000-00000").await.err(), Some(Refusal::Token));
        assert_eq!(w.enrol("rubbish").await.err(), Some(Refusal::Token));
        assert_eq!(endpoints::list(&w.app, &w.admin(), &Filter { limit: 10, ..Filter::default() }).await?.1, 2);
    }
    Ok(())
}

#[tokio::test]
async fn a_bad_request_does_not_use_the_token_up() -> Result<()> {
    for w in World::all().await? {
        let token = w.token(1, 1).await?;
        let bad =
            EnrolRequest { token: token.clone(), csr_pem: "x".into(), hello: hello(&w.app.clock), hardware: None };
        let refused = enrolments::enrol(&w.app, &w.admin(), &w.ca, &bad).await;
        assert!(matches!(refused, Err(Refusal::Malformed { .. })), "{refused:?}");
        assert!(w.enrol(&token).await.is_ok());
    }
    Ok(())
}

#[tokio::test]
async fn silence_is_noticed_in_time_and_a_return_too() -> Result<()> {
    for w in World::all().await? {
        let began = w.app.clock.now();
        let d = w.endpoint().await?;
        let line = w.link(&d).await?;
        w.until(d.id, "online", |e| e.state == EndpointState::Online).await?;
        drop(line);
        let silent = |now: Time, since: Time| endpoints::mark_silent(&w.app, since, now);
        assert_eq!(silent(began.plus(Duration::from_secs(65)), began).await?, 0, "called too early");
        // A controller that has just begun hasn't heard anybody yet.
        let late = began.plus(SILENT_WITHIN);
        assert_eq!(silent(late, late).await?, 0, "blamed for the controller's absence");
        assert_eq!(silent(late, began).await?, 1);
        assert_eq!(silent(late, began).await?, 0, "called twice");
        assert_eq!(w.row(d.id).await?.state, EndpointState::Silent);
        w.pass_time(SILENT_WITHIN);
        let _line = w.link(&d).await?;
        w.until(d.id, "back", |e| e.state == EndpointState::Online).await?;
        assert_eq!(w.events(d.id).await?, ["enrolled", "online", "silent", "online"]);
    }
    Ok(())
}

#[tokio::test]
async fn revocation_cuts_the_link_within_two_seconds_and_for_good() -> Result<()> {
    for w in World::all().await? {
        let d = w.endpoint().await?;
        let mut line = w.link(&d).await?;
        let began = std::time::Instant::now();
        endpoints::revoke(&w.app, &w.admin(), d.id, "stolen").await?;
        assert_eq!(line.refused().await?, Refusal::Revoked);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert_eq!(w.refusal(Some(&d)).await?, Refusal::Revoked);
        // Its last words don't bring it back.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(w.row(d.id).await?.state, EndpointState::Revoked);
        let again = endpoints::revoke(&w.app, &w.admin(), d.id, "stolen").await;
        assert!(matches!(again, Err(Error::Conflict("E-409", _))));
    }
    Ok(())
}

#[tokio::test]
async fn news_of_another_endpoints_order_is_not_heard() -> Result<()> {
    for w in World::all().await? {
        let (own, other) = (w.endpoint().await?, w.endpoint().await?);
        let order = OrderId(Uuid::now_v7());
        let work = Work::Action(Action::Clock {});
        let due = w.app.clock.now().plus(HOUR);
        let state = DiagnosisState::Sent;
        let new =
            NewDiagnosis { id: order, endpoint: own.id, work: &work, state, by: "hoa", name: "Hoa", reason: "r", due };
        let mut tx = w.app.store.begin().await?;
        tx.add_diagnosis(&new, w.app.clock.now()).await?;
        tx.commit().await?;
        let news = |news: News| AgentMessage::OrderNews(OrderNews { order, n: 1, news });
        let mut line = w.link(&other).await?;
        line.send(&news(News::Ended { outcome: Outcome::Done })).await?;
        // It was listened to before the beat is answered; what is kept is kept in the order it came.
        line.send(&AgentMessage::Beat(Beat { seq: 1, at_ms: 0, rtt_us: None })).await?;
        while !matches!(line.next().await?, ControllerMessage::BeatAck(_)) {}
        let mut line = w.link(&own).await?;
        line.send(&news(News::Begun)).await?;
        let until = std::time::Instant::now() + tram_tests::world::PATIENCE;
        let row = loop {
            let row = w.app.store.diagnosis(order).await?.context("the order")?;
            if row.state != DiagnosisState::Sent || std::time::Instant::now() > until {
                break row;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!((row.state, row.outcome), (DiagnosisState::Running, None));
    }
    Ok(())
}

#[tokio::test]
async fn wrong_certificates_get_their_reason() -> Result<()> {
    for w in World::all().await? {
        let d = w.endpoint().await?;
        assert_eq!(w.refusal(None).await?, Refusal::Unknown);
        // Signed by another authority, for an id that exists here.
        let elsewhere = tempfile::tempdir()?;
        let foreign_ca = DeviceCa::open(elsewhere.path(), w.app.clock.now())?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let issued = foreign_ca.sign(&csr(&key), d.id, w.app.clock.now())?;
        assert_eq!(w.refusal(Some(&Device { id: d.id, issued, key })).await?, Refusal::Unknown);
        // Ours, but for nobody.
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let nobody = EndpointId(Uuid::now_v7());
        let issued = w.ca.sign(&csr(&key), nobody, w.app.clock.now())?;
        assert_eq!(w.refusal(Some(&Device { id: nobody, issued, key })).await?, Refusal::Unknown);
        w.pass_time(HOUR * 24 * 31);
        assert_eq!(w.refusal(Some(&d)).await?, Refusal::Expired);
    }
    Ok(())
}

#[tokio::test]
async fn a_clock_an_hour_off_is_told_not_punished() -> Result<()> {
    for w in World::all().await? {
        let d = w.endpoint().await?;
        let mut line = w.link(&d).await?;
        let at_ms = w.app.clock.now().micros() / 1000 + 3_600_000;
        line.send(&AgentMessage::Beat(Beat { seq: 1, at_ms, rtt_us: Some(0) })).await?;
        assert!(matches!(line.next().await?, ControllerMessage::BeatAck(_)));
        drop(line);
        let row = w.until(d.id, "skewed", |e| e.skew_ms == Some(3_600_000)).await?;
        // By the controller's clock, whatever the endpoint says.
        assert_eq!(row.last_seen_at, Some(w.app.clock.now().micros()));
        assert_eq!(row.state, EndpointState::Online);
    }
    Ok(())
}

#[tokio::test]
async fn hostile_frames_end_the_link_with_a_reason_and_unknown_kinds_do_not() -> Result<()> {
    for w in World::all().await? {
        let d = w.endpoint().await?;
        let mut line = w.link(&d).await?;
        line.0.send(Message::text(r#"{"kind":"hologram","x":1}"#)).await?;
        line.send(&AgentMessage::Beat(Beat { seq: 9, at_ms: 0, rtt_us: None })).await?;
        assert!(matches!(line.next().await?, ControllerMessage::BeatAck(a) if a.seq == 9));
        line.0.send(Message::text("[".repeat(1000))).await?;
        assert!(matches!(line.refused().await?, Refusal::Malformed { .. }));

        let mut line = w.link(&d).await?;
        line.0.send(Message::text(format!(r#"{{"kind":"beat","pad":"{}"}}"#, "x".repeat(70_000)))).await?;
        assert!(matches!(line.refused().await?, Refusal::Malformed { detail } if detail.contains("limit")));

        // A report of 10 MB is refused at its first bytes; whoever goes on sending talks to nobody.
        let mut line = w.link(&d).await?;
        let _ = line.0.send(Message::text(format!(r#"{{"kind":"report","boot":"{}"}}"#, "x".repeat(10_000_000)))).await;
        if let Ok(ControllerMessage::Refused(refusal)) = line.next().await {
            assert!(matches!(refusal, Refusal::Malformed { detail } if detail.contains("limit")));
        }
        let mut line = w.link(&d).await?;
        let deep = format!(r#"{{"kind":"report","batch":1,"boot":"b","at_ms":1,"records":{}}}"#, "[".repeat(50_000));
        line.0.send(Message::text(deep)).await?;
        assert!(matches!(line.refused().await?, Refusal::Malformed { .. }));

        // Beats in their short form are answered alike; what is none is skipped.
        let mut line = w.link(&d).await?;
        line.0.send(Message::binary(vec![1, 0xff])).await?;
        line.0.send(Message::binary(short::beat(&Beat { seq: 3, at_ms: 5, rtt_us: Some(1) }))).await?;
        assert!(short::read_ack(&line.binary().await?).is_some_and(|a| a.seq == 3));

        // A batch whose answer rides gets it with the next beat's.
        line.0
            .send(Message::text(r#"{"kind":"report","batch":7,"boot":"b","at_ms":1,"records":[],"rides":true}"#))
            .await?;
        let (mut seq, mut beaten) = (10, 0);
        let batch = loop {
            line.0.send(Message::binary(short::beat(&Beat { seq, at_ms: 5, rtt_us: None }))).await?;
            seq += 1;
            // It may not be kept yet; then it goes with one of the next.
            let second = tokio::time::sleep(std::time::Duration::from_secs(1));
            tokio::pin!(second);
            let answer = loop {
                let answer = tokio::select! {
                    answer = line.binary() => answer?,
                    () = &mut second => break None,
                };
                match short::read_kept(&answer) {
                    Some(kept) => break Some(kept.batch),
                    None => beaten = short::read_ack(&answer).context("neither")?.seq,
                }
            };
            if let Some(batch) = answer {
                break batch;
            }
        };
        assert!(batch == 7 && beaten >= 10, "with the answer to a beat: {batch} after {beaten}");

        let long = format!(r#"{{"kind":"beat","seq":4,"at_ms":1,"pad":"{}"}}"#, "x".repeat(2000));
        line.0.send(Message::binary(packed::pack(&long).context("worth it")?)).await?;
        assert!(matches!(line.next().await?, ControllerMessage::BeatAck(a) if a.seq == 4));
        line.0.send(Message::binary(vec![3, 0xff, 0xff])).await?;
        assert!(matches!(line.refused().await?, Refusal::Malformed { .. }), "what can't be unpacked");

        let mut line = w.link(&d).await?;
        for seq in 1..=200 {
            if line.send(&AgentMessage::Beat(Beat { seq, at_ms: 0, rtt_us: None })).await.is_err() {
                break;
            }
        }
        let mut answers = 0;
        let refusal = loop {
            match line.next().await? {
                ControllerMessage::BeatAck(_) => answers += 1,
                ControllerMessage::Refused(r) => break r,
                other => anyhow::bail!("{other:?}"),
            }
        };
        assert!(matches!(refusal, Refusal::Malformed { .. }) && answers <= 61, "{answers}");
    }
    Ok(())
}

#[tokio::test]
async fn a_second_link_takes_over_and_a_key_renews_over_it() -> Result<()> {
    for w in World::all().await? {
        let d = w.endpoint().await?;
        let mut old = w.link(&d).await?;
        let mut line = w.link(&d).await?;
        assert_eq!(old.refused().await?, Refusal::Superseded);
        w.pass_time(HOUR * 24 * 20);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        line.send(&AgentMessage::Renew(Renew { csr_pem: csr(&key) })).await?;
        let ControllerMessage::Renewed(issued) = line.next().await? else { anyhow::bail!("not renewed") };
        w.pass_time(HOUR * 24 * 15);
        assert_eq!(w.refusal(Some(&d)).await?, Refusal::Expired);
        let _line = w.link(&Device { id: d.id, issued, key }).await?;
    }
    Ok(())
}
