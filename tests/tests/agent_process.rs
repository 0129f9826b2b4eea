//! The real agent against the real controller, each its own process: enrolled, seen, killed, missed, back,
//! withdrawn; with wrong certificates and wrong clocks.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tram_tests::device::{Console, Device, WallClock, token};
use tram_tests::world::World;

/// A controller whose date the test may move.
fn controller() -> Result<(World, WallClock)> {
    let mut world = World::new()?;
    let clock = WallClock::new(world.path())?;
    serve(&mut world, &clock)?;
    Ok((world, clock))
}

fn serve(world: &mut World, clock: &WallClock) -> Result<()> {
    let environment = clock.environment()?;
    let environment: Vec<(&str, &str)> = environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    world.start_with(&environment)?;
    world.listening()
}

/// Waits until the endpoint is so in the API; the whole of it.
fn until(world: &mut World, console: &Console, id: &str, what: &str, so: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut last = Value::Null;
    world.until(what, |_| {
        let (status, row) = console.get(&format!("/api/v1/endpoints/{id}"))?;
        ensure!(status == 200, "{status} {row}");
        last = row;
        Ok(so(&last))
    })?;
    Ok(last)
}

/// Waits until the agent itself says so of its link.
fn told(world: &mut World, device: &Device, state: &str, code: &str) -> Result<String> {
    let what = format!("the agent says {state} {code}");
    let mut link = Value::Null;
    let seen = world.until(&what, |_| {
        link = device.link()?;
        Ok(link["state"] == state && (code.is_empty() || link["code"] == code))
    });
    seen.with_context(|| format!("{link}\n{}", device.log()))?;
    Ok(link["reason"].as_str().unwrap_or_default().to_owned())
}

fn kinds(row: &Value) -> Vec<&str> {
    row["history"].as_array().into_iter().flatten().rev().filter_map(|e| e["kind"].as_str()).collect()
}

fn said(out: &std::process::Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn an_endpoint_is_seen_missed_found_again_and_withdrawn() -> Result<()> {
    let (mut world, clock) = controller()?;
    let console = Console::sign_in(&world, "support")?;
    let (mut device, id) = Device::enrolled(&world)?;
    let (_, row) = console.get(&format!("/api/v1/endpoints/{id}"))?;
    assert_eq!((&row["state"], &row["last_seen_at"]), (&"never".into(), &Value::Null), "{row}");

    device.start()?;
    let row = until(&mut world, &console, &id, "its report is there", |r| r["hardware"].is_object())?;
    assert_eq!(row["state"], "online", "{row}");
    assert!(row["last_seen_at"].is_string(), "{row}");
    assert!(row["hardware"]["cpus"].as_u64() > Some(0) && row["hardware"]["memory_mib"].as_u64() > Some(100), "{row}");
    assert!(row["vitals"]["memory_total_mib"].as_u64() > Some(100), "{row}");
    assert!(row["network"].is_object() && row["agent_version"].is_string(), "{row}");
    assert_eq!(row["site"]["code"], "00004");

    let status = device.run(&["status", "--json"])?;
    assert!(status.status.success(), "{}", said(&status));
    let doctor = device.run(&["doctor", "--json"])?;
    let diagnosis: Value = serde_json::from_slice(&doctor.stdout)?;
    assert_eq!(diagnosis["controller"], format!("https://{}", world.agents));
    let findings = diagnosis["findings"].as_array().context("no findings")?;
    let finding = |check: &str| findings.iter().find(|f| f["check"] == check).cloned().unwrap_or_default();
    assert_eq!(finding("controller")["state"], "ok", "{diagnosis}");
    assert_eq!(finding("certificate")["state"], "ok", "{diagnosis}");
    let codes = [("ok", 0), ("unknown", 0), ("warn", 1), ("crit", 2)];
    let code = codes.iter().find(|(v, _)| diagnosis["verdict"] == *v).map(|(_, c)| *c);
    assert_eq!(doctor.status.code(), code, "{diagnosis}");

    device.kill9()?;
    let (_, row) = console.get(&format!("/api/v1/endpoints/{id}"))?;
    assert_eq!(row["state"], "online", "a closed line alone is no silence");
    // As if so much time had gone by: it must be noticed within 80 s of the last word.
    clock.off_by("+80s")?;
    let row = until(&mut world, &console, &id, "its silence is noticed", |r| r["state"] == "silent")?;
    assert_eq!(row["verdict"], "unknown", "{row}");
    clock.off_by("+81s")?;
    device.start()?;
    let row = until(&mut world, &console, &id, "it is back", |r| r["state"] == "online")?;
    let changes: Vec<&str> = kinds(&row).into_iter().filter(|k| *k != "verdict").collect();
    assert_eq!(changes, ["enrolled", "online", "silent", "online"], "{row}");

    told(&mut world, &device, "up", "")?;
    world.cli(&["admin", "endpoint", "revoke", &id, "--reason", "stolen"])?;
    let reason = told(&mut world, &device, "refused", "revoked")?;
    assert!(reason.contains("revoked by an operator"), "{reason}");
    assert!(device.runs()?, "only a person can mend this; the agent stays and says so");
    assert_eq!(device.run(&["status"])?.status.code(), Some(1));
    device.kill9()?;
    device.start()?;
    told(&mut world, &device, "refused", "revoked")?;
    let (_, row) = console.get(&format!("/api/v1/endpoints/{id}"))?;
    assert_eq!(row["state"], "revoked", "{row}");
    Ok(())
}

#[test]
fn a_token_that_is_no_good_leaves_nothing_behind() -> Result<()> {
    let (world, _clock) = controller()?;
    let good = token(&world)?;
    let first = Device::new()?;
    assert!(first.enrol(&world, &good)?.status.success());
    let again = first.enrol(&world, &good)?;
    assert!(said(&again).contains("already endpoint"), "{}", said(&again));
    let second = Device::new()?;
    for (bad, wanted) in [(good.as_str(), "already used"), ("rubbish", "token")] {
        let refused = second.enrol(&world, bad)?;
        assert_eq!(refused.status.code(), Some(3), "{bad}: {}", said(&refused));
        assert!(said(&refused).contains(wanted), "{bad}: {}", said(&refused));
        assert!(second.identity().is_err(), "{bad}");
    }
    // A token of one installation, shown to another: it names its own controller's CA and is not even sent.
    let (other, _clock) = controller()?;
    let refused = second.enrol(&other, &token(&world)?)?;
    assert!(said(&refused).contains("the token was not sent"), "{}", said(&refused));
    assert_eq!(world.json(&["admin", "endpoint", "list", "--json"])?.as_array().map(Vec::len), Some(1));
    Ok(())
}

#[test]
fn wrong_certificates_are_refused_with_their_reason() -> Result<()> {
    let (mut world, clock) = controller()?;
    let (mut device, _) = Device::enrolled(&world)?;
    let own = device.identity()?;

    // Enrolled elsewhere: each side has its own CA, and the agent tells nobody who is not its controller.
    let (other, _clock) = controller()?;
    let (foreign, _) = Device::enrolled(&other)?;
    let mut moved = foreign.identity()?;
    moved["controller"] = own["controller"].clone();
    device.set_identity(&moved)?;
    device.start()?;
    let mut reason = String::new();
    world.until("the agent does not trust this controller", |_| {
        reason = device.link()?["reason"].as_str().unwrap_or_default().to_lowercase();
        Ok(reason.contains("certificate"))
    })?;
    device.kill9()?;
    // The same, made to trust it by hand: now the controller is who refuses.
    moved["ca_pem"] = own["ca_pem"].clone();
    device.set_identity(&moved)?;
    device.start()?;
    told(&mut world, &device, "refused", "unknown")?;
    device.kill9()?;

    // Its own, long after its thirty days.
    device.set_identity(&own)?;
    clock.off_by("+125d")?;
    device.start()?;
    let reason = told(&mut world, &device, "refused", "expired")?;
    assert!(reason.contains("enrol again"), "{reason}");
    device.kill9()?;

    // Its own, at a controller whose database is older than the enrolment.
    clock.off_by("+0")?;
    world.stop()?;
    for file in ["tram.db", "tram.db-wal", "tram.db-shm"] {
        let _ = std::fs::remove_file(world.path().join(file));
    }
    serve(&mut world, &clock)?;
    device.start()?;
    told(&mut world, &device, "refused", "unknown")?;
    assert_eq!(device.identity()?["key_pem"], own["key_pem"], "no refusal makes it throw its key away");
    Ok(())
}

#[test]
fn an_endpoint_whose_clock_is_an_hour_off_works_and_says_so() -> Result<()> {
    let (mut world, _clock) = controller()?;
    let console = Console::sign_in(&world, "support")?;
    for (offset, sign) in [("+1h", ""), ("-1h", "-")] {
        let mut device = Device::new()?;
        device.clock.off_by(offset)?;
        let done = device.enrol(&world, &token(&world)?)?;
        assert!(done.status.success(), "{offset}: {}", said(&done));
        let id = device.identity()?["endpoint_id"].as_str().context("id")?.to_owned();
        device.start()?;
        let row = until(&mut world, &console, &id, "the wrong clock is reported", |r| {
            r["verdict_reasons"].as_array().into_iter().flatten().any(|f| f["text_code"] == "clock_wrong")
        })?;
        let reason = row["verdict_reasons"].as_array().into_iter().flatten().find(|f| f["text_code"] == "clock_wrong");
        let seconds = reason.and_then(|r| r["params"]["seconds"].as_str()).context("no seconds")?;
        assert!(seconds.starts_with(&format!("{sign}3")) || seconds == format!("{sign}3600"), "{offset}: {seconds}");
        assert_eq!((&row["state"], &row["verdict"]), (&"online".into(), &"crit".into()), "{row}");
    }
    Ok(())
}

#[test]
fn an_endpoint_that_was_off_for_weeks_with_an_empty_battery_comes_back_by_itself() -> Result<()> {
    let (mut world, clock) = controller()?;
    let (mut device, id) = Device::enrolled(&world)?;
    let first = device.identity()?;
    // Two months later; the controller was restarted since, and the endpoint wakes in 1970. faketime counts from now.
    clock.off_by("+60d")?;
    world.stop()?;
    serve(&mut world, &clock)?;
    let console = Console::sign_in(&world, "support")?;
    device.clock.off_by("@1970-01-02 00:00:00")?;
    device.start()?;
    told(&mut world, &device, "up", "")?;
    let second = device.identity()?;
    assert_ne!(first["certificate_pem"], second["certificate_pem"]);
    assert_ne!(first["key_pem"], second["key_pem"]);
    let row = until(&mut world, &console, &id, "the wrong clock is reported", |r| {
        r["verdict_reasons"].as_array().into_iter().flatten().any(|f| f["text_code"] == "clock_wrong")
    })?;
    assert!(kinds(&row).contains(&"renewed_late"), "{row}");
    device.kill9()?;

    // A disk image of before: its certificate is not the newest any more, and not the one that was renewed from twice.
    clock.off_by("+95d")?;
    device.clock.off_by("+95d")?;
    device.start()?;
    told(&mut world, &device, "up", "")?;
    device.kill9()?;
    let third = device.identity()?;
    assert_ne!(second["key_pem"], third["key_pem"]);
    device.set_identity(&first)?;
    device.start()?;
    told(&mut world, &device, "refused", "expired")?;
    device.kill9()?;

    // The right disk again, and a clock years ahead: the controller's certificate seems to have ended.
    device.set_identity(&third)?;
    std::fs::remove_file(device.state().join("time.json"))?;
    device.clock.off_by("+20y")?;
    device.start()?;
    told(&mut world, &device, "up", "")?;
    device.kill9()?;

    // Withdrawn is withdrawn, whatever the date.
    world.cli(&["admin", "endpoint", "revoke", &id, "--reason", "stolen"])?;
    clock.off_by("+140d")?;
    device.clock.off_by("+140d")?;
    device.start()?;
    told(&mut world, &device, "refused", "revoked")?;
    Ok(())
}
