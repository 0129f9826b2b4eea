//! Copies of endpoints: by hand on both databases, and with real agents whose state folder was copied.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tram_controller::services::{Error, copies};
use tram_tests::device::{Console, Device as Agent};
use tram_tests::links::{Device, Line, World, csr, hello};
use tram_tests::world::World as Controller;
use tram_wire::enrol::Renew;
use tram_wire::heartbeat::{Beat, Snapshot};
use tram_wire::instance::{Instance, Marks};
use tram_wire::{AgentMessage, ControllerMessage, Refusal};

fn marks(n: u32) -> Marks {
    Marks { board: Some(format!("B{n}")), disks: vec![format!("D{n}")], macs: vec![format!("00:1b:21:00:00:{n:02x}")] }
}

/// Links as a run with this nonce, this count and these marks. Whether it is apart.
async fn link(
    w: &World,
    d: &Device,
    (nonce, connects, marks): (&str, u64, Marks),
    copy: Option<&str>,
) -> Result<(Line, bool)> {
    let mut line = w.connect(Some(d)).await?;
    let instance = Instance { nonce: nonce.into(), copy: copy.map(str::to_owned), marks };
    let hello = tram_wire::hello::Hello { connects, instance: Some(instance), ..hello(&w.app.clock) };
    line.send(&AgentMessage::Hello(hello)).await?;
    match line.next().await? {
        ControllerMessage::HelloAck(ack) if ack.quarantined => Ok((line, true)),
        ControllerMessage::HelloAck(_) => {
            beat(&mut line, 1).await?;
            Ok((line, false))
        }
        other => anyhow::bail!("{other:?}"),
    }
}

async fn beat(line: &mut Line, seq: u64) -> Result<()> {
    line.send(&AgentMessage::Beat(Beat { seq, at_ms: 0, rtt_us: None })).await
}

/// The next message that isn't a plan or a beat's answer.
async fn told(line: &mut Line) -> Result<ControllerMessage> {
    loop {
        match line.next().await? {
            ControllerMessage::Plan(_) | ControllerMessage::BeatAck(_) => {}
            other => return Ok(other),
        }
    }
}

async fn cut(line: &mut Line) -> Result<()> {
    let message = told(line).await?;
    ensure!(message == ControllerMessage::Refused(Refusal::Busy { retry_after_s: 1 }), "{message:?}");
    Ok(())
}

#[tokio::test]
async fn one_signal_is_written_down_and_two_put_both_into_quarantine() -> Result<()> {
    for w in World::all().await? {
        let d = w.endpoint().await?;
        drop(link(&w, &d, ("a", 10, marks(1)), None).await?);
        w.until(d.id, "online", |e| e.last_seen_at.is_some()).await?;
        // A new board, with its network card.
        drop(link(&w, &d, ("b", 11, Marks { disks: marks(1).disks, ..marks(2) }), None).await?);
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;
        // A restored backup on it.
        let (mut original, apart) = link(&w, &d, ("c", 9, Marks { disks: marks(1).disks, ..marks(2) }), None).await?;
        ensure!(!apart && w.row(d.id).await?.quarantined_at.is_none());
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;
        let events = w.events(d.id).await?;
        ensure!(
            events.contains(&"other_hardware".to_owned()) && events.contains(&"other_counter".to_owned()),
            "{events:?}"
        );

        // An image of before on another computer: other hardware, and an old count.
        w.pass_time(std::time::Duration::from_secs(1));
        let (mut copy, _) = link(&w, &d, ("d", 5, marks(7)), None).await?;
        cut(&mut copy).await?;
        cut(&mut original).await?;
        let row = w.row(d.id).await?;
        let why = row.suspicion.context("no reason")?;
        assert_eq!(
            (why.signals, why.known.connects, why.came.connects),
            (vec!["hardware".into(), "counter".into()], 9, 5)
        );

        let (mut copy, apart) = link(&w, &d, ("d", 6, marks(7)), Some("mark-d")).await?;
        let (mut original, too) = link(&w, &d, ("c", 10, marks(2)), Some("mark-c")).await?;
        ensure!(apart && too);
        // Heard, kept apart; neither pushes the other, and neither gets a longer life.
        let snapshot = Snapshot {
            at_ms: 0,
            hardware: Default::default(),
            vitals: Default::default(),
            network: Default::default(),
            findings: Vec::new(),
        };
        copy.send(&AgentMessage::Snapshot(Box::new(snapshot))).await?;
        copy.send(&AgentMessage::Renew(Renew { csr_pem: csr(&d.key) })).await?;
        for line in [&mut copy, &mut original] {
            beat(line, 7).await?;
            let answer = line.next().await?;
            ensure!(matches!(&answer, ControllerMessage::BeatAck(a) if a.seq == 7), "{answer:?}");
        }
        ensure!(w.row(d.id).await?.hardware.is_none(), "a copy's report became the endpoint's");
        let known = copies::of(&w.app, &w.row(d.id).await?).await?;
        let seen: Vec<(&str, i64)> = known.iter().map(|c| (c.copy.as_str(), c.reports)).collect();
        ensure!(seen.len() == 2 && seen.contains(&("mark-d", 1)) && seen.contains(&("mark-c", 0)), "{seen:?}");

        // One click.
        w.pass_time(std::time::Duration::from_secs(1));
        let (row, _, new) = copies::new_machine(&w.app, &w.admin(), d.id, "mark-d", "the reception's").await?;
        ensure!(row.quarantined_at.is_none(), "one other is left: the identity is its own");
        cut(&mut copy).await?;
        cut(&mut original).await?;
        let (mut copy, apart) = link(&w, &d, ("d", 7, marks(7)), Some("mark-d")).await?;
        ensure!(apart);
        let asked = told(&mut copy).await?;
        ensure!(matches!(asked, ControllerMessage::NewIdentity(_)), "{asked:?}");
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        copy.send(&AgentMessage::Renew(Renew { csr_pem: csr(&key) })).await?;
        let ControllerMessage::Reborn(answer) = told(&mut copy).await? else { anyhow::bail!("not reborn") };
        assert_eq!(answer.endpoint_id, new);
        let reborn = Device { id: new, issued: answer.issued, key };
        let (_line, apart) = link(&w, &reborn, ("d", 1, marks(7)), None).await?;
        ensure!(!apart);
        let (_line, apart) = link(&w, &d, ("c", 11, marks(2)), Some("mark-c")).await?;
        ensure!(!apart, "the original is the endpoint again");
        let again = copies::new_machine(&w.app, &w.admin(), d.id, "mark-c", "again").await;
        ensure!(matches!(again, Err(Error::Conflict("E-411", _))));
    }
    Ok(())
}

#[tokio::test]
async fn it_was_the_same_machine_after_all() -> Result<()> {
    for w in World::all().await? {
        let d = w.endpoint().await?;
        drop(link(&w, &d, ("a", 10, marks(1)), None).await?);
        w.until(d.id, "online", |e| e.last_seen_at.is_some()).await?;
        let (mut line, _) = link(&w, &d, ("b", 3, marks(2)), None).await?;
        cut(&mut line).await?;
        let none = copies::same_machine(&w.app, &w.admin(), d.id, Some("nobody"), "x").await;
        ensure!(matches!(none, Err(Error::NotFound("E-410", _))));
        let silent = copies::same_machine(&w.app, &w.admin(), d.id, Some("b"), " ").await;
        ensure!(matches!(silent, Err(Error::Invalid(..))));
        ensure!(w.row(d.id).await?.quarantined_at.is_some(), "a refused decision changed something");
        copies::same_machine(&w.app, &w.admin(), d.id, Some("b"), "board and backup").await?;
        let (_line, apart) = link(&w, &d, ("b", 4, marks(2)), None).await?;
        ensure!(!apart);
        let audit = w.events(d.id).await?;
        ensure!(
            audit.ends_with(&["quarantined".into(), "same_machine".into()]) || audit.contains(&"same_machine".into()),
            "{audit:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_hello_that_comes_late_from_a_process_that_is_gone_is_no_copy() -> Result<()> {
    for w in World::all().await? {
        let d = w.endpoint().await?;
        drop(link(&w, &d, ("a", 10, marks(1)), None).await?);
        w.until(d.id, "online", |e| e.last_seen_at.is_some()).await?;
        let mut late = w.connect(Some(&d)).await?;
        let instance = Instance { nonce: "a".into(), copy: None, marks: marks(1) };
        let words = tram_wire::hello::Hello { connects: 9, instance: Some(instance), ..hello(&w.app.clock) };
        late.send(&AgentMessage::Hello(words)).await?;
        let _ = late.next().await?;
        drop(late);
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        ensure!(w.row(d.id).await?.quarantined_at.is_none());
    }
    Ok(())
}

fn until(
    world: &mut Controller,
    console: &Console,
    id: &str,
    what: &str,
    so: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let mut last = Value::Null;
    let path = format!("/api/v1/endpoints/{id}");
    let seen = world.until(what, |_| {
        last = console.get(&path)?.1;
        Ok(so(&last))
    });
    seen.with_context(|| last.to_string())?;
    Ok(last)
}

#[test]
fn two_agents_with_a_copied_folder_are_told_apart_and_one_becomes_an_endpoint_of_its_own() -> Result<()> {
    let mut world = Controller::new()?;
    world.start()?;
    world.listening()?;
    let console = Console::sign_in(&world, "operator")?;
    let (mut original, id) = Agent::enrolled(&world)?;
    original.start()?;
    until(&mut world, &console, &id, "its report is there", |r| r["hardware"].is_object())?;

    let mut copy = Agent::new()?;
    std::fs::create_dir_all(copy.state())?;
    std::fs::copy(original.state().join("identity.json"), copy.state().join("identity.json"))?;
    copy.start()?;
    let row = until(&mut world, &console, &id, "both are in quarantine, and told apart", |r| {
        let computers = r["copies"]["computers"].as_array();
        computers.is_some_and(|c| c.len() == 2 && c.iter().all(|c| c["reports"].as_i64() > Some(0)))
    })?;
    assert_eq!(row["copies"]["signals"], json!(["sessions", "counter"]), "{row}");
    for agent in [&original, &copy] {
        assert_eq!(agent.link()?["state"], "quarantined");
    }
    let mark = copy.identity()?["copy"].as_str().context("no mark")?.to_owned();
    let body = json!({"copy": mark, "reason": "the reception's computer"});
    let (status, answer) = console.post(&format!("/api/v1/endpoints/{id}/new-machine"), &body)?;
    ensure!(status == 200, "{status} {answer}");
    let new = answer["new_id"].as_str().context("no id")?.to_owned();
    until(&mut world, &console, &new, "the copy reports under its own name", |r| {
        r["state"] == "online" && r["hardware"].is_object()
    })?;
    let row = until(&mut world, &console, &id, "the original is itself again", |r| r["quarantined_at"].is_null())?;
    ensure!(row["copies"].is_null(), "{row}");
    world.until("both are linked", |_| Ok(original.link()?["state"] == "up" && copy.link()?["state"] == "up"))?;
    assert_eq!(
        (original.identity()?["endpoint_id"].as_str(), copy.identity()?["endpoint_id"].as_str()),
        (Some(&*id), Some(&*new))
    );
    ensure!(copy.identity()?["key_pem"] != original.identity()?["key_pem"]);
    ensure!(copy.identity()?["copy"].is_null() && original.identity()?["copy"].is_null());
    Ok(())
}

#[test]
fn a_second_agent_on_the_same_folder_does_not_start_and_an_image_is_made_without_identity() -> Result<()> {
    let mut world = Controller::new()?;
    world.start()?;
    world.listening()?;
    let (mut agent, _) = Agent::enrolled(&world)?;
    agent.start()?;
    world.until("the agent is linked", |_| Ok(agent.link()?["state"] == "up"))?;
    let second = agent.run(&["run"])?;
    let said = |o: &std::process::Output| String::from_utf8_lossy(&o.stderr).into_owned();
    ensure!(!second.status.success() && said(&second).contains("another tram-agent"), "{}", said(&second));
    let refused = agent.run(&["generalize"])?;
    ensure!(!refused.status.success() && said(&refused).contains("--force"), "{}", said(&refused));
    ensure!(agent.state().join("identity.json").exists());
    agent.kill9()?;
    let done = agent.run(&["generalize"])?;
    let told = String::from_utf8_lossy(&done.stdout).into_owned();
    ensure!(done.status.success() && told.contains("identity: key and certificate"), "{told}");
    ensure!(!agent.state().join("identity.json").exists() && !agent.state().join("ledger.jsonl").exists());
    let unable = agent.run(&["run"])?;
    ensure!(said(&unable).contains("isn't enrolled"), "{}", said(&unable));
    Ok(())
}
