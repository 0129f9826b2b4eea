//! `tram-controller admin` by the real program: what it prints, what it prints as JSON, its help, and how it
//! fails. Scripts stand on all four.

use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tram_tests::device::{Console, Device};
use tram_tests::world::{World, program};

/// Every command that a person may type, without its arguments.
fn commands(prefix: &[String]) -> Result<Vec<Vec<String>>> {
    let help = Command::new(program("tram-controller")?).args(prefix).arg("--help").output()?;
    ensure!(help.status.success() && help.stderr.is_empty(), "{prefix:?} --help: {}", said(&help));
    let text = String::from_utf8(help.stdout)?;
    ensure!(text.contains("Usage: tram-controller"), "{prefix:?}: {text}");
    let Some((_, list)) = text.split_once("\nCommands:\n") else { return Ok(vec![prefix.to_vec()]) };
    let mut all = vec![prefix.to_vec()];
    for line in list.lines().take_while(|l| !l.is_empty()) {
        let (name, about) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        ensure!(!about.trim().is_empty(), "{prefix:?} {name} does not say what it does");
        if name != "help" {
            all.extend(commands(&[prefix, &[name.to_owned()]].concat())?);
        }
    }
    Ok(all)
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// Runs it on the data of a world, whatever comes out; `input` on its standard input.
fn admin(world: &World, args: &[&str], input: &str) -> Result<Output> {
    use std::io::Write;
    let mut c = Command::new(program("tram-controller")?);
    c.env("TRAM_DATA", world.path()).arg("admin").args(args);
    let mut child = c.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // It may refuse before it reads.
    let _ = child.stdin.take().context("stdin")?.write_all(input.as_bytes());
    Ok(child.wait_with_output()?)
}

/// What must fail: with code 1, on standard error, naming what is wrong; and nothing on standard output.
fn refused(world: &World, args: &[&str], input: &str, wanted: &str) -> Result<()> {
    let out = admin(world, args, input)?;
    ensure!(out.status.code() == Some(1), "{args:?}: {} {}", out.status, said(&out));
    ensure!(out.stdout.is_empty(), "{args:?} wrote to standard output: {}", String::from_utf8_lossy(&out.stdout));
    ensure!(said(&out).starts_with("tram-controller: "), "{args:?}: {}", said(&out));
    ensure!(said(&out).contains(wanted), "{args:?} does not say `{wanted}`: {}", said(&out));
    ensure!(!said(&out).contains("panicked"), "{args:?}: {}", said(&out));
    Ok(())
}

#[test]
fn every_command_explains_itself() -> Result<()> {
    let all = commands(&[])?;
    for wanted in ["admin user add", "admin pool create", "admin endpoint token", "admin site import", "doctor"] {
        assert!(all.iter().any(|c| c.join(" ") == wanted), "{wanted} is gone: {all:?}");
    }
    for wrong in [&["admin", "usr"][..], &["admin", "pool", "create"], &["admin", "user", "add", "x", "--role", "king"]]
    {
        let out = Command::new(program("tram-controller")?).args(wrong).output()?;
        assert_eq!(out.status.code(), Some(2), "{wrong:?}: {}", said(&out));
        assert!(said(&out).contains("--help"), "{wrong:?}: {}", said(&out));
    }
    Ok(())
}

#[test]
fn what_is_listed_is_json_for_scripts_and_lines_for_people() -> Result<()> {
    let world = World::new()?;
    world.small_image()?;
    world.sim_host("")?;
    world.cli(&["admin", "user", "add", "lan", "--role", "support", "--site", "001", "--generate"])?;
    let pool =
        ["--name", "p", "--site", "00004", "--image", "small", "--size", "1", "--memory-mib", "128", "--no-start"];
    world.cli(&[&["admin", "pool", "create"][..], &pool].concat())?;
    for (list, key, value) in [
        ("host", "name", "sim"),
        ("image", "name", "small"),
        ("pool", "name", "p"),
        ("user", "username", "lan"),
        ("desktop", "name", ""),
        ("endpoint", "name", ""),
    ] {
        let text = world.cli(&["admin", list, "list", "--json"])?;
        // One array, or one object a line: what a script reads either way.
        let rows: Vec<Value> = match serde_json::from_str(&text)? {
            Value::Array(rows) => rows,
            row => vec![row],
        };
        if value.is_empty() {
            assert!(rows.is_empty(), "{list}: {text}");
            continue;
        }
        assert_eq!((rows.len(), &rows[0][key]), (1, &value.into()), "{list}: {text}");
        let plain = world.cli(&["admin", list, "list"])?;
        assert!(plain.contains(value) && serde_json::from_str::<Value>(&plain).is_err(), "{list}: {plain}");
    }
    let made = world.json(&["admin", "endpoint", "token", "--site", "00004", "--json"])?;
    assert!(made["token"].is_string() && made["expires_at"].is_string(), "{made}");
    let found = world.json(&["admin", "site", "search", "--json", "truc", "bach"])?;
    assert_eq!((&found["code"], &found["parent"]), (&"00004".into(), &"Quận Ba Đình".into()));
    assert!(world.json(&["status", "--json"])?.is_object() && world.json(&["doctor", "--json"]).is_ok());
    Ok(())
}

#[test]
fn a_published_image_keeps_the_machine_it_was_published_for() -> Result<()> {
    let world = World::new()?;
    world.small_image()?;
    let file = world.path().join("small.qcow2");
    let file = file.to_str().context("path")?;
    let add = |version| ["image", "add", "--name", "small", "--version", version, "--file", file, "--guest", "windows"];
    refused(&world, &add("1"), "", "exists for a linux-bios machine")?;
    world.cli(&[&["admin"][..], &add("2")].concat())?;
    let list = world.json(&["admin", "image", "list", "--json"])?;
    let guests: Vec<_> = list.as_array().into_iter().flatten().map(|i| (&i["version"], &i["guest"])).collect();
    assert_eq!(guests, [(&"2".into(), &"windows".into()), (&"1".into(), &Value::from("linux-bios"))]);
    let wrong = Command::new(program("tram-controller")?)
        .args(["admin", "image", "add", "--name", "x", "--version", "1", "--file", file, "--guest", "amiga"])
        .output()?;
    assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
    Ok(())
}

#[test]
fn what_can_not_be_done_is_said_with_its_code_and_changes_nothing() -> Result<()> {
    let world = World::new()?;
    let w = &world;
    let add = ["user", "add", "lan", "--role", "officer", "--password-stdin"];
    refused(w, &add, "tàu điện leng keng\n", "U-104")?;
    refused(w, &[&add[..], &["--site", "001"]].concat(), "tàu điện leng keng\n", "is not a commune")?;
    refused(w, &[&add[..], &["--site", "00004"]].concat(), "short\n", "U-103")?;
    refused(w, &[&add[..], &["--site", "00004"]].concat(), "", "standard input has no password")?;
    for command in ["disable", "enable", "unlock"] {
        refused(w, &["user", command, "nobody"], "", "U-404")?;
    }
    refused(w, &["host", "add", "--name", "a/b", "--uri", "qemu:///system"], "", "name")?;
    refused(w, &["image", "add", "--name", "x", "--version", "1", "--file", "/nonexistent"], "", "/nonexistent")?;
    let pool = ["pool", "create", "--name", "p", "--site", "00004", "--image", "none", "--size", "1"];
    refused(w, &pool, "", "no ready image named none")?;
    refused(w, &["pool", "resize", "none", "3"], "", "no pool named none")?;
    refused(w, &["pool", "delete", "none"], "", "no pool named none")?;
    refused(w, &["desktop", "start", "none"], "", "none")?;
    refused(w, &["endpoint", "token", "--site", "99999"], "", "E-201")?;
    refused(w, &["endpoint", "revoke", "none", "--reason", "x"], "", "no endpoint named none")?;
    refused(w, &["site", "import", "/nonexistent.csv"], "", "/nonexistent.csv")?;
    refused(w, &["site", "import", "--builtin", "atlantis"], "", "hanoi-2016")?;
    for list in ["user", "host", "image", "pool", "endpoint"] {
        let text = world.cli(&["admin", list, "list", "--json"])?;
        assert!(matches!(text.trim(), "" | "[]"), "{list}: {text}");
    }
    Ok(())
}

#[test]
fn calls_are_listed_and_shown() -> Result<()> {
    let mut world = World::new()?;
    world.start()?;
    let console = Console::sign_in(&world, "operator")?;
    let (_, endpoint) = Device::enrolled(&world)?;
    let code = tram_wire::call::code(endpoint.parse()?, 1);
    let (status, made) = console.post("/api/v1/calls", &serde_json::json!({"endpoint": endpoint, "code": code}))?;
    ensure!(status == 201, "{status} {made}");
    let list = world.json(&["admin", "call", "list", "--json"])?;
    assert_eq!((&list[0]["code"], &list[0]["arrived"]), (&Value::from(&*code), &Value::from(false)), "{list}");
    let line = world.cli(&["admin", "call", "list"])?;
    ensure!(line.contains(&format!("code={code}")) && line.contains("state="), "{line}");
    let id = list[0]["id"].as_str().context("id")?.to_owned();
    let (status, _) = console.post(&format!("/api/v1/calls/{id}/step"), &serde_json::json!({"do": "take"}))?;
    ensure!(status == 200);
    for call in [&*code, &*id] {
        let shown: Value = serde_json::from_str(&world.cli(&["admin", "call", "show", call])?)?;
        assert_eq!(shown["taken_by"], "operator", "{shown}");
        let kinds: Vec<&str> =
            shown["events"].as_array().into_iter().flatten().filter_map(|e| e["kind"].as_str()).collect();
        assert_eq!(kinds, ["expected", "taken"], "{shown}");
    }
    refused(&world, &["call", "show", "12345"], "", "")?;
    let (status, _) = console.post(&format!("/api/v1/calls/{id}/step"), &serde_json::json!({"do": "close"}))?;
    ensure!(status == 200);
    assert_eq!(world.json(&["admin", "call", "list", "--json"])?, Value::Array(Vec::new()));
    assert_eq!(world.json(&["admin", "call", "list", "--all", "--json"])?[0]["id"], Value::from(&*id));
    Ok(())
}

#[test]
fn what_was_done_at_the_shell_stands_in_the_audit() -> Result<()> {
    let mut world = World::new()?;
    world.start()?;
    let console = Console::sign_in(&world, "operator")?;
    world.cli(&["admin", "user", "add", "lan", "--role", "support", "--generate"])?;
    world.cli(&["admin", "user", "disable", "lan"])?;
    world.cli(&["admin", "endpoint", "token", "--site", "00004"])?;
    let (status, list) = console.get("/api/v1/audit?limit=100")?;
    assert_eq!(status, 200, "{list}");
    let rows: Vec<(&str, &str)> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|r| (r["action"].as_str().unwrap_or_default(), r["actor"].as_str().unwrap_or_default()))
        .collect();
    for action in ["site.import", "user.create", "user.change", "endpoint_token.create"] {
        assert!(rows.contains(&(action, "local-admin")), "{action}: {rows:?}");
    }
    assert!(rows.contains(&("user.sign_in", "operator")), "{rows:?}");
    let text = list.to_string();
    assert!(!text.contains("tram1-"), "a token is shown once, and not here: {text}");
    // Newest first, and a page goes on where the last one ended.
    let (_, first) = console.get("/api/v1/audit?limit=2")?;
    assert_eq!(first["items"].as_array().map(Vec::len), Some(2), "{first}");
    assert_eq!(first["items"][0]["action"], "endpoint_token.create", "{first}");
    Ok(())
}
