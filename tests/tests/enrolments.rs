//! Approval of computers: by hand on both databases, and with the real agent that waits for it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::json;
use tram_controller::domain::approval::{Approval, EnrolmentState, PATIENCE};
use tram_controller::services::{Error, endpoints, enrolments};
use tram_controller::store::endpoints::Filter;
use tram_tests::device::{Console, Device as Agent};
use tram_tests::links::{Device, World, csr, hello};
use tram_tests::office::SITE;
use tram_tests::world::World as Controller;
use tram_wire::Refusal;
use tram_wire::enrol::{EnrolRequest, EnrolResponse};
use tram_wire::heartbeat::Hardware;

async fn token(w: &World, count: i64, approval: Approval, serials: &[&str]) -> Result<String> {
    let request = endpoints::TokenRequest {
        site_code: SITE.into(),
        count,
        ttl_hours: 1,
        approval,
        serials: serials.iter().map(|s| (*s).to_owned()).collect(),
        ..endpoints::TokenRequest::default()
    };
    Ok(endpoints::create_token(&w.app, &w.admin(), &request).await?.0)
}

fn key() -> Result<KeyPair> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

async fn ask(w: &World, token: &str, key: &KeyPair, serial: &str) -> Result<EnrolResponse, Refusal> {
    let hardware = Some(Hardware { serial: Some(serial.into()), ..Hardware::default() });
    let request = EnrolRequest { token: token.into(), csr_pem: csr(key), hello: hello(&w.app.clock), hardware };
    enrolments::enrol(&w.app, &w.admin(), &w.ca, &request).await
}

/// The digits of who has to wait.
fn digits(answer: Result<EnrolResponse, Refusal>) -> Result<String> {
    match answer {
        Err(Refusal::Pending { digits, .. }) => Ok(digits),
        other => anyhow::bail!("not told to wait: {other:?}"),
    }
}

async fn endpoints_there(w: &World) -> Result<i64> {
    Ok(endpoints::list(&w.app, &w.admin(), &Filter { limit: 10, ..Filter::default() }).await?.1)
}

fn conflict<T: std::fmt::Debug>(done: Result<T, Error>) -> Result<()> {
    ensure!(matches!(done, Err(Error::Conflict("E-413", _))), "{done:?}");
    Ok(())
}

#[tokio::test]
async fn nobody_gets_a_certificate_before_a_person_said_yes() -> Result<()> {
    for w in World::all().await? {
        let (token, own, other) = (token(&w, 1, Approval::Manual, &[]).await?, key()?, key()?);
        let code = digits(ask(&w, &token, &own, "S1").await)?;
        assert_eq!(digits(ask(&w, &token, &own, "S1").await)?, code, "the same computer has the same digits");
        assert_eq!(ask(&w, &token, &other, "S1").await.err(), Some(Refusal::Token), "the one use is spent");
        assert_eq!(endpoints_there(&w).await?, 0);

        let row = enrolments::find(&w.app, &w.admin(), &code).await?;
        let wrong = if code == "000000" { "000001" } else { "000000" };
        let done = enrolments::approve(&w.app, &w.admin(), row.id, wrong).await;
        ensure!(matches!(done, Err(Error::Invalid("E-206", ..))), "{done:?}");
        enrolments::approve(&w.app, &w.admin(), row.id, &code).await?;
        assert_eq!(endpoints_there(&w).await?, 0, "no endpoint before it comes for its certificate");
        assert_eq!(ask(&w, &token, &other, "S1").await.err(), Some(Refusal::Token), "the approval is one key's");

        let first = ask(&w, &token, &own, "S1").await?;
        assert_eq!(first.endpoint_id, row.id);
        // The answer may have been lost: the same key is answered again, as the same endpoint.
        let again = ask(&w, &token, &own, "S1").await?;
        assert_eq!((again.endpoint_id, endpoints_there(&w).await?), (row.id, 1));
        let device = Device { id: again.endpoint_id, issued: again.issued, key: own };
        let _line = w.link(&device).await?;
        endpoints::revoke(&w.app, &w.admin(), row.id, "stolen").await?;
        assert_eq!(ask(&w, &token, &device.key, "S1").await.err(), Some(Refusal::Revoked));
        ensure!(w.events(row.id).await?.first().is_some_and(|e| e == "enrolled"));
    }
    Ok(())
}

#[tokio::test]
async fn two_people_cannot_both_decide() -> Result<()> {
    for w in World::all().await? {
        let (token, own) = (token(&w, 1, Approval::Manual, &[]).await?, key()?);
        let code = digits(ask(&w, &token, &own, "S1").await)?;
        let (app, ctx) = (&w.app, w.admin());
        let id = enrolments::find(app, &ctx, &code).await?.id;
        let (yes, no) =
            tokio::join!(enrolments::approve(app, &ctx, id, &code), enrolments::refuse(app, &ctx, id, "not ours"));
        ensure!(yes.is_ok() != no.is_ok(), "{yes:?} {no:?}");
        let approved = yes.is_ok();
        conflict(if approved { no } else { yes })?;
        let answer = ask(&w, &token, &own, "S1").await;
        match approved {
            true => ensure!(answer.is_ok(), "{answer:?}"),
            false => assert_eq!(answer.err(), Some(Refusal::NotApproved { reason: "not ours".into() })),
        }
        conflict(enrolments::approve(app, &ctx, id, &code).await)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_computer_that_asks_twice_at_once_spends_one_use_and_waits_once() -> Result<()> {
    for w in World::all().await? {
        let (token, own) = (token(&w, 2, Approval::Manual, &[]).await?, key()?);
        let (a, b) = tokio::join!(ask(&w, &token, &own, "S1"), ask(&w, &token, &own, "S1"));
        assert_eq!(digits(a)?, digits(b)?);
        assert_eq!(enrolments::list(&w.app, &w.admin(), true).await?.len(), 1);
        assert_eq!(endpoints::tokens(&w.app, &w.admin()).await?[0].uses_left, 1);
        // The other use is another computer's, with digits of its own.
        let other = digits(ask(&w, &token, &key()?, "S2").await)?;
        ensure!(other != digits(ask(&w, &token, &own, "S1").await)?);
    }
    Ok(())
}

#[tokio::test]
async fn who_waits_too_long_is_told_and_decided_about_no_more() -> Result<()> {
    for w in World::all().await? {
        let token = token(&w, 2, Approval::Manual, &[]).await?;
        let (late, slow) = (key()?, key()?);
        let code = digits(ask(&w, &token, &late, "S1").await)?;
        let approved = digits(ask(&w, &token, &slow, "S2").await)?;
        let ctx = w.admin();
        let id = enrolments::find(&w.app, &ctx, &code).await?.id;
        let slow_id = enrolments::find(&w.app, &ctx, &approved).await?.id;
        enrolments::approve(&w.app, &ctx, slow_id, &approved).await?;
        w.pass_time(PATIENCE + Duration::from_secs(1));
        assert_eq!(ask(&w, &token, &late, "S1").await.err(), Some(Refusal::Unanswered), "before anybody looked");
        conflict(enrolments::approve(&w.app, &w.admin(), id, &code).await)?;
        assert_eq!(enrolments::expire(&w.app, w.app.clock.now()).await?, 2);
        assert_eq!(enrolments::expire(&w.app, w.app.clock.now()).await?, 0, "ended twice");
        for key in [&late, &slow] {
            assert_eq!(ask(&w, &token, key, "S1").await.err(), Some(Refusal::Unanswered));
        }
        let decided = enrolments::list(&w.app, &w.admin(), false).await?;
        ensure!(decided.len() == 2 && decided.iter().all(|e| e.state == EnrolmentState::Expired), "{decided:?}");
        assert_eq!(endpoints_there(&w).await?, 0);
    }
    Ok(())
}

#[tokio::test]
async fn a_serial_number_the_token_names_lets_one_computer_in_at_once() -> Result<()> {
    for w in World::all().await? {
        let token = token(&w, 4, Approval::Serial, &["8xk2-pq3", "8XK2PQ4"]).await?;
        let known = ask(&w, &token, &key()?, "8XK2PQ3").await?;
        digits(ask(&w, &token, &key()?, "8XK2PQ3").await).context("a number lets one computer in")?;
        let code = digits(ask(&w, &token, &key()?, "STRANGER").await)?;
        let (row, beside) =
            enrolments::get(&w.app, &w.admin(), enrolments::find(&w.app, &w.admin(), &code).await?.id).await?;
        assert_eq!(row.expected, ["8XK2PQ4"]);
        assert_eq!(beside.iter().map(|n| n.id).collect::<Vec<_>>(), [known.endpoint_id]);
        let left = &endpoints::tokens(&w.app, &w.admin()).await?[0];
        assert_eq!((left.uses_left, left.serials.as_slice()), (1, ["8XK2PQ4".to_owned()].as_slice()));
        for (approval, serials) in
            [(Approval::Serial, vec![]), (Approval::Manual, vec!["X1"]), (Approval::Serial, vec!["none"])]
        {
            let refused = self::token(&w, 1, approval, &serials).await;
            ensure!(refused.is_err(), "{approval:?} {serials:?}");
        }
    }
    Ok(())
}

#[test]
fn the_agent_waits_shows_its_code_and_goes_on_by_itself() -> Result<()> {
    let mut world = Controller::new()?;
    world.start()?;
    let console = Console::sign_in(&world, "support")?;
    let made = |approval: &str| -> Result<String> {
        let made = world.json(&["admin", "endpoint", "token", "--site", "00004", "--approval", approval, "--json"])?;
        Ok(made["token"].as_str().context("no token")?.to_owned())
    };
    let (token, other) = (made("manual")?, made("manual")?);
    let controller = format!("https://{}", world.agents);
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();

    let mut agent = Agent::new()?;
    let asked = agent.run(&["enrol", "--controller", &controller, "--token", &token, "--no-wait"])?;
    ensure!(asked.status.code() == Some(4), "{} {}", said(&asked.stdout), said(&asked.stderr));
    let status: serde_json::Value = serde_json::from_slice(&agent.run(&["status", "--json"])?.stdout)?;
    let code = status["enrolling"]["digits"].as_str().context("no digits")?.to_owned();
    ensure!(said(&asked.stdout).contains(&format!("{} {}", &code[..3], &code[3..])), "{}", said(&asked.stdout));
    ensure!(!agent.state().join("identity.json").exists());

    let (status, queue) = console.get("/api/v1/enrolments")?;
    let row = &queue["items"][0];
    ensure!(status == 200 && row["code"] == code && row["state"] == "pending", "{queue}");
    ensure!(row["hardware"]["cpus"].as_i64() > Some(0), "{row}");
    let id = row["id"].as_str().context("no id")?.to_owned();
    agent.start()?;
    let (status, answer) = console.post(&format!("/api/v1/enrolments/{id}/approve"), &json!({"code": code}))?;
    ensure!(status == 200 && answer["state"] == "approved", "{status} {answer}");
    world.until("the agent is linked", |_| Ok(agent.link()?["state"] == "up"))?;
    assert_eq!(agent.identity()?["endpoint_id"].as_str(), Some(&*id));
    ensure!(!agent.state().join("enrolling.json").exists());

    let refused = Agent::new()?;
    let asked = refused.run(&["enrol", "--controller", &controller, "--token", &other, "--no-wait"])?;
    ensure!(asked.status.code() == Some(4), "{}", said(&asked.stderr));
    let queue = world.json(&["admin", "enrolment", "pending", "--json"])?;
    let code = queue[0]["code"].as_str().context("nobody waits")?.to_owned();
    world.cli(&["admin", "enrolment", "show", &code])?;
    world.cli(&["admin", "enrolment", "refuse", &code, "--reason", "máy lạ"])?;
    let over = refused.run(&["enrol"])?;
    ensure!(over.status.code() == Some(3), "{:?}", over.status);
    let text = said(&over.stderr);
    ensure!(text.contains("máy lạ") && text.contains("not_approved"), "{text}");
    let status: serde_json::Value = serde_json::from_slice(&refused.run(&["status", "--json"])?.stdout)?;
    assert_eq!(status["enrolling"], json!({"state": "refused", "code": "not_approved", "reason": "máy lạ"}));
    let kept = std::fs::read_dir(refused.state())?.map(|f| Ok(f?.file_name().to_string_lossy().into_owned()));
    let kept: Vec<String> = kept.collect::<Result<_>>()?;
    ensure!(!kept.iter().any(|f| f.starts_with("enrolling") || f.starts_with("enrol-asked")), "{kept:?}");
    Ok(())
}
