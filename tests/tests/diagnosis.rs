//! Remote diagnosis with the real agent, linked to the real controller, on both databases: what is asked for is done
//! and judged, and what must not be done is not.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::mpsc;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tram_tests::db;
use tram_tests::device::{Console, Device, token};
use tram_tests::world::{World, program};

/// One office computer, its controller, and two who support it.
struct Support {
    world: World,
    hoa: Console,
    an: Console,
    device: Device,
    id: String,
}

impl Support {
    fn new(database: Option<String>) -> Result<Self> {
        Self::at(database, Device::enrolled)
    }

    fn at(database: Option<String>, enrol: impl FnOnce(&World) -> Result<(Device, String)>) -> Result<Self> {
        let mut world = World::on(database)?;
        world.start()?;
        world.listening()?;
        let (hoa, an) = (Console::sign_in(&world, "support")?, Console::sign_in(&world, "operator")?);
        let (device, id) = enrol(&world)?;
        let mut s = Self { world, hoa, an, device, id };
        s.device.configure(&format!("[diagnosis]\ndeny = {:?}\n", s.path("deny")))?;
        s.start()?;
        Ok(s)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.device.state().with_file_name(name)
    }

    fn start(&mut self) -> Result<()> {
        self.device.start()?;
        let (hoa, id) = (&self.hoa, &self.id);
        self.world.until("it is online", |_| Ok(hoa.get(&format!("/api/v1/endpoints/{id}"))?.1["state"] == "online"))
    }

    fn ask(&self, action: &str, arguments: Value) -> Result<(u16, Value)> {
        let body = json!({"action": action, "arguments": arguments, "reason": "the citizen waits"});
        self.hoa.post(&format!("/api/v1/endpoints/{}/diagnoses", self.id), &body)
    }

    fn asked(&self, action: &str, arguments: Value) -> Result<String> {
        let (status, d) = self.ask(action, arguments)?;
        ensure!(status == 200, "{action}: {status} {d}");
        Ok(d["id"].as_str().context("id")?.to_owned())
    }

    fn one(&self, id: &str) -> Result<Value> {
        Ok(self.hoa.get(&format!("/api/v1/diagnoses/{id}"))?.1)
    }

    fn until(&mut self, id: &str, state: &str) -> Result<Value> {
        let mut last = Value::Null;
        let (hoa, world) = (&self.hoa, &mut self.world);
        let seen = world.until(&format!("it is {state}"), |_| {
            last = hoa.get(&format!("/api/v1/diagnoses/{id}"))?.1;
            Ok(last["state"] == state)
        });
        seen.with_context(|| format!("{last}\n{}", self.device.log()))?;
        Ok(last)
    }

    fn ended(&mut self, action: &str, arguments: Value) -> Result<Value> {
        let id = self.asked(action, arguments)?;
        self.until(&id, "ended")
    }

    fn ledger(&self) -> Result<String> {
        Ok(String::from_utf8(self.device.run(&["ledger"])?.stdout)?)
    }

    /// What was asked for so far is longer ago than a minute.
    async fn forget(db: &db::TestDb) -> Result<()> {
        db.raw("UPDATE diagnoses SET asked_at = asked_at - 61000000").await
    }
}

/// A desk whose officer answers as told, or not at all.
fn officer(s: &Support, answer: Option<bool>) -> Result<mpsc::Receiver<Value>> {
    let at = s.device.state().join("consent.sock");
    let _ = std::fs::remove_file(&at);
    let listener = UnixListener::bind(at)?;
    let (send, asked) = mpsc::channel();
    std::thread::spawn(move || -> Result<()> {
        let mut kept = Vec::new();
        loop {
            let (mut line, _) = listener.accept()?;
            let mut text = String::new();
            line.read_to_string(&mut text)?;
            send.send(serde_json::from_str(&text)?)?;
            match answer {
                Some(allow) => line.write_all(json!({"allow": allow}).to_string().as_bytes())?,
                None => kept.push(line),
            }
        }
    });
    Ok(asked)
}

async fn on_each(
    story: impl Fn(Support, &tokio::runtime::Handle, &db::TestDb) -> Result<()> + Copy + Send + 'static,
) -> Result<()> {
    for (n, db) in db::both().await?.into_iter().enumerate() {
        let handle = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            // SQLite's file lies where the second process can have it to itself; its store here only writes now and then.
            let s = Support::new(Some(db.url.clone())).with_context(|| format!("database {n}"))?;
            story(s, &handle, &db).with_context(|| format!("database {n}"))
        })
        .await??;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_line_is_judged_and_each_order_is_obeyed_once() -> Result<()> {
    on_each(|mut s, handle, db| {
        let id = s.asked("line", json!({}))?;
        let line = s.until(&id, "ended")?;
        assert_eq!((&line["outcome"], &line["code"]), (&json!("done"), &Value::Null), "{line}");
        let steps = line["steps"].as_array().context("steps")?;
        assert_eq!(steps.len(), 4, "{line}");
        let controller = steps.iter().find(|s| s["arguments"]["to"] == "controller").context("controller")?;
        assert_eq!((&controller["state"], &controller["text_code"]), (&json!("ok"), &json!("done")), "{controller}");
        assert!(controller["text"].as_str().is_some_and(|t| t.lines().count() == 5), "{controller}");
        assert!(line["verdict"]["blame"].is_string(), "{line}");
        // The officer can read who asked, why, and what for.
        let ledger = s.ledger()?;
        assert!(ledger.contains("\"begun\"") && ledger.contains("the citizen waits"), "{ledger}");

        // The same order once more, freshly signed: its id was seen.
        handle.block_on(db.raw(
            "UPDATE diagnoses SET state = 'queued', ended_at = NULL, outcome = NULL, due_at = due_at + 600000000",
        ))?;
        let again = s.until(&id, "ended")?;
        assert_eq!((&again["outcome"], &again["code"]), (&json!("refused"), &json!("replayed")), "{again}");
        // Also by an agent that was started anew.
        s.device.kill9()?;
        s.start()?;
        handle.block_on(db.raw(
            "UPDATE diagnoses SET state = 'queued', ended_at = NULL, outcome = NULL, due_at = due_at + 600000000",
        ))?;
        assert_eq!(s.until(&id, "ended")?["code"], "replayed");

        // What this computer forbids is refused there, and written down there.
        std::fs::write(s.path("deny"), "# by the office\njournal\n")?;
        let refused = s.ended("journal", json!({"unit": "cups"}))?;
        assert_eq!((&refused["outcome"], &refused["code"]), (&json!("refused"), &json!("denied")), "{refused}");
        assert!(s.ledger()?.contains("\"denied\""));
        assert_eq!(s.ended("clock", json!({}))?["outcome"], "done");

        // The line is filled for a moment, as much as was allowed and not more.
        let line = s.ended("bandwidth", json!({}))?;
        let facts = &line["steps"][0]["facts"];
        assert_eq!(line["outcome"], "done", "{line}");
        for (way, rate) in [("down_kb", "down_mbit_s"), ("up_kb", "up_mbit_s")] {
            let kb: u64 = facts[way].as_str().context("kB")?.parse()?;
            assert!((16..=4016).contains(&kb), "{line}");
            assert!(facts[rate].as_str().is_some_and(|r| r.parse::<f64>().is_ok()), "{line}");
        }

        // The command line says the same.
        handle.block_on(Support::forget(db))?;
        let told = s.world.json(&["admin", "diagnosis", "ask", &s.id, "ping", "to=127.0.0.1", "count=2", "--json"])?;
        assert_eq!((&told["outcome"], &told["steps"][0]["facts"]["sent"]), (&json!("done"), &json!("2")), "{told}");
        let fails = s.world.cli(&["admin", "diagnosis", "ask", &s.id, "ping", "to=-f"]);
        assert!(fails.is_err_and(|e| e.to_string().contains("host name")));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_persons_agree_and_the_officer_is_asked() -> Result<()> {
    on_each(|mut s, handle, db| {
        // Nobody is at the desk.
        let refused = s.ended("log_out", json!({}))?;
        assert_eq!((&refused["outcome"], &refused["code"]), (&json!("refused"), &json!("nobody_there")), "{refused}");
        // The officer says no.
        let asked = officer(&s, Some(false))?;
        let refused = s.ended("log_out", json!({}))?;
        assert_eq!(refused["code"], "declined", "{refused}");
        let question = asked.recv()?;
        assert_eq!((&question["ask"], &question["action"]), (&json!(true), &json!("log_out")));
        assert_eq!(question["why"], "the citizen waits");

        // A capture waits for somebody else.
        let id = s.asked("capture", json!({"seconds": 1}))?;
        assert_eq!(s.one(&id)?["state"], "asked");
        assert_eq!(s.one(&id)?["may_agree"], false);
        let (status, e) = s.hoa.post(&format!("/api/v1/diagnoses/{id}/approve"), &Value::Null)?;
        assert_eq!((status, &e["code"]), (403, &json!("Q-108")), "{e}");
        let (_, waiting) = s.an.get("/api/v1/diagnoses?waiting=true")?;
        assert_eq!(waiting["items"][0]["id"], json!(id));
        let (status, e) = s.an.post(&format!("/api/v1/diagnoses/{id}/approve"), &Value::Null)?;
        assert_eq!((status, &e["approved_by"]), (200, &json!("operator")), "{e}");
        assert_eq!(s.until(&id, "ended")?["code"], "declined", "two of support do not stand for the officer");
        let (status, e) = s.an.post(&format!("/api/v1/diagnoses/{id}/approve"), &Value::Null)?;
        assert_eq!((status, &e["code"]), (409, &json!("Q-109")), "{e}");
        let id = s.asked("capture", json!({}))?;
        let (status, e) = s.an.post(&format!("/api/v1/diagnoses/{id}/deny"), &Value::Null)?;
        assert_eq!((status, &e["outcome"]), (200, &json!("denied")), "{e}");

        // Stopped while the officer thinks about it; and lost then.
        let asked = officer(&s, None)?;
        let id = s.asked("log_out", json!({}))?;
        asked.recv()?;
        s.until(&id, "asking")?;
        let (status, _) = s.hoa.post(&format!("/api/v1/diagnoses/{id}/cancel"), &Value::Null)?;
        assert_eq!(status, 200);
        let stopped = s.until(&id, "ended")?;
        assert_eq!((&stopped["outcome"], &stopped["ended_by"]), (&json!("cancelled"), &json!("support")), "{stopped}");
        let id = s.asked("log_out", json!({}))?;
        s.until(&id, "asking")?;
        s.device.kill9()?;
        assert_eq!(s.until(&id, "ended")?["outcome"], "lost");

        // Each step of it is in the audit.
        let (_, audit) = s.an.get("/api/v1/audit?limit=200")?;
        let text = audit.to_string();
        for action in ["diagnosis.ask", "diagnosis.approve", "diagnosis.cancel", "diagnosis.end"] {
            assert!(text.contains(action), "{action}");
        }

        // What is asked too often, of who is not there, or without a reason.
        s.start()?;
        handle.block_on(Support::forget(db))?;
        let mut answers = Vec::new();
        for _ in 0..13 {
            let (status, e) = s.ask("clock", json!({}))?;
            if status == 409 && e["code"] == "Q-106" {
                answers.push(e);
                break;
            }
            if status == 200 {
                let id = e["id"].as_str().context("id")?.to_owned();
                s.until(&id, "ended")?;
            }
        }
        assert_eq!(answers.len(), 1, "somebody asks without end");
        let (status, e) = s.ask("tcp", json!({"host": "10.0.0.1", "port": 22}))?;
        assert_eq!((status, &e["code"]), (422, &json!("Q-102")), "{e}");
        let body = json!({"action": "flush_dns"});
        let (status, e) = s.hoa.post(&format!("/api/v1/endpoints/{}/diagnoses", s.id), &body)?;
        assert_eq!((status, &e["code"]), (422, &json!("Q-103")), "{e}");
        let (status, e) = s.ask("reboot", json!({}))?;
        assert_eq!((status, &e["code"]), (403, &json!("Q-105")), "{e}");
        let (status, e) = s.ask("shell", json!({"command": "id"}))?;
        assert_eq!((status, &e["code"]), (422, &json!("Q-101")), "{e}");
        Ok(())
    })
    .await
}

/// The agent's user, where the tests may be another one than themselves.
const NOBODY: u32 = 65534;

/// A computer whose agent is not root, whoever runs the tests.
fn unprivileged(world: &World) -> Result<(Device, String)> {
    let device = Device::run_by(|folder| {
        if !nix::unistd::geteuid().is_root() {
            return Vec::new();
        }
        let _ = std::os::unix::fs::chown(folder, Some(NOBODY), Some(NOBODY));
        // By the real clock: another one is shared with root, who starts this. The program may lie in a folder of root's.
        let words = [
            "env",
            "-u",
            "LD_PRELOAD",
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--no-new-privs",
        ];
        let search = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"];
        words.iter().chain(&search).map(|w| (*w).to_owned()).collect()
    })?;
    let done = device.enrol(world, &token(world)?)?;
    anyhow::ensure!(done.status.success(), "enrolment: {}", String::from_utf8_lossy(&done.stderr));
    let id = device.identity()?["endpoint_id"].as_str().context("id")?.to_owned();
    Ok((device, id))
}

/// In systemd's place: a helper a connection, for this user.
fn helpers(socket: &std::path::Path, user: u32, log: &std::path::Path) -> Result<()> {
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::PermissionsExt;
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666))?;
    let (agent, log) = (program("tram-agent")?, log.to_owned());
    std::thread::spawn(move || -> Result<()> {
        loop {
            let (line, _) = listener.accept()?;
            let log = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
            let mut helper = std::process::Command::new(&agent);
            helper.args(["helper", "helper", "--user", &user.to_string()]).stdin(OwnedFd::from(line)).stderr(log);
            helper.spawn()?.wait()?;
        }
    });
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_agent_may_not_do_is_done_by_its_helper_for_it_alone() -> Result<()> {
    tokio::task::spawn_blocking(|| {
        let mut s = Support::at(None, unprivileged)?;
        let (run, log) = (s.path("run"), s.path("helper.log"));
        std::fs::create_dir(&run)?;
        let user = if nix::unistd::geteuid().is_root() { NOBODY } else { nix::unistd::geteuid().as_raw() };
        s.device.configure(&format!("[diagnosis]\nhelpers = {run:?}\n"))?;
        s.device.kill9()?;
        s.start()?;
        // A unit of the list that no machine with tests has: nobody's service is restarted here.
        let restart = |s: &mut Support| -> Result<Value> {
            Ok(s.ended("restart_unit", json!({"unit": "tram-screen"}))?["steps"][0].clone())
        };
        let alone = restart(&mut s)?;
        assert!(["not_permitted", "absent"].contains(&alone["text_code"].as_str().context("code")?), "{alone}");
        helpers(&run.join("helper.sock"), user, &log)?;
        let helped = restart(&mut s)?;
        assert_eq!(helped["facts"]["needs"], Value::Null, "{helped}");
        assert!(["failed", "absent"].contains(&helped["text_code"].as_str().context("code")?), "{helped}");
        let said = std::fs::read_to_string(&log)?;
        assert!(said.contains(r#"asks: {"ask":"restart_unit","unit":"tram-screen"}"#), "{said}");
        // A helper of somebody else's does nothing for it.
        helpers(&run.join("helper.sock"), user + 1, &log)?;
        let refused = restart(&mut s)?;
        assert_eq!((&refused["text_code"], &refused["facts"]["refused"]), (&json!("not_permitted"), &json!("peer")));
        assert!(std::fs::read_to_string(&log)?.contains("is not the agent"));
        Ok(())
    })
    .await?
}
