//! `doctor`: what is wrong with this installation, and what to do.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::open;
use crate::config::Config;
use crate::domain::host::HostState;
use crate::domain::time::Time;
use crate::identity::tls;
use crate::services::{Ctx, hosts, nodes};
use crate::store::hosts::Host;

/// A node asks for its next certificate eight months before it ends: with less than this left, it does not get one.
const SHORT: Duration = Duration::from_secs(60 * 86_400);

#[derive(Serialize)]
struct Check {
    check: &'static str,
    state: State,
    text: String,
    advice: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warn,
    Fail,
}

/// Prints every check; the exit code is 1 if one fails.
pub(super) async fn run(config: &Config, json: bool) -> Result<ExitCode> {
    let mut checks = vec![
        folder("data folder", &config.data),
        folder("image folder", &config.image_dir),
        folder("disk folder", &config.disk_dir),
    ];
    checks.push(match tls::server_config(&config.tls) {
        Ok(_) => ok("TLS certificate", config.tls.cert.display().to_string()),
        Err(e) => {
            fail("TLS certificate", e.to_string(), "make one: tram-controller admin init-tls --names NAME,ADDRESS")
        }
    });
    let address = match std::net::TcpStream::connect_timeout(&config.listen, Duration::from_secs(2)) {
        Ok(_) => ok("server", format!("something answers on {}", config.listen)),
        Err(e) => {
            warn("server", format!("nothing answers on {}: {e}", config.listen), "start it: tram-controller server")
        }
    };
    checks.push(address);
    match open(config).await {
        Err(e) => checks.push(fail("database", format!("{e:#}"), "look at database.url and at the server's log")),
        Ok(app) => {
            checks.push(ok("database", format!("{} answers and is up to date", app.store.engine())));
            let hosts = hosts::list(&app, &Ctx::local_admin(app.clock.now())).await?;
            if hosts.is_empty() {
                checks.push(warn("hosts", "there is none".into(), "add one: tram-controller admin host add"));
            }
            if hosts.iter().any(is_node) {
                checks.push(match nodes::open_ca(&app, app.clock.now()) {
                    Ok(_) => ok("nodes' authority", "it is there; it belongs into the backup".into()),
                    Err(e) => fail("nodes' authority", e.to_string(), "restore node-ca.pem from a backup"),
                });
            }
            checks.extend(hosts.iter().flat_map(|h| host(h, app.clock.now())));
        }
    }
    let worst = checks.iter().map(|c| c.state).max().unwrap_or(State::Ok);
    if json {
        println!("{}", serde_json::to_string_pretty(&checks)?);
    } else {
        for c in &checks {
            let mark = match c.state {
                State::Ok => "ok  ",
                State::Warn => "warn",
                State::Fail => "FAIL",
            };
            println!("{mark}  {}: {}", c.check, c.text);
            if c.state != State::Ok {
                println!("      -> {}", c.advice);
            }
        }
    }
    Ok(if worst == State::Fail { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn is_node(h: &Host) -> bool {
    h.uri.starts_with("node:")
}

/// A host as the running server last saw it; of one with a node, also its certificate.
fn host(h: &Host, now: Time) -> Vec<Check> {
    let info = h.info.as_ref();
    let why = if h.state == HostState::Up { info.map_or("", |i| &i.accel_reason) } else { h.state_reason.as_str() };
    let text = format!("{}: {} {why}", h.name, h.state);
    let mut checks = vec![match h.state {
        HostState::Up => ok("host", text),
        // The reasons a node has are told apart by their words, as the page about nodes lists them.
        HostState::Down if is_node(h) && why.contains("ertificate") => {
            fail("host", text, "the node has another authority's certificate, or for other names: admin node issue")
        }
        HostState::Down if is_node(h) && why.contains("same release") => {
            fail("host", text, "bring the node and the controller to the same release")
        }
        HostState::Down if is_node(h) => fail(
            "host",
            text,
            "on that host: systemctl status tram-node; its port (8445) must be open to the controller",
        ),
        HostState::Down => fail("host", text, "look at libvirt on that host"),
        HostState::Disabled => warn("host", text, "it takes no new desktops until it is opened again: admin host open"),
        HostState::Connecting => warn("host", text, "the running server looks at it every 15 s"),
    }];
    if let Some(until) = info.and_then(|i| i.certificate_until).map(Time::from_micros) {
        let text = format!("{}: good until {until}", h.name);
        checks.push(if until.since(now) > SHORT {
            ok("node certificate", text)
        } else {
            fail("node certificate", text, "it should have renewed itself: look at the node's log, or admin node issue")
        });
    }
    checks
}

fn folder(check: &'static str, path: &Path) -> Check {
    let tried = std::fs::create_dir_all(path).and_then(|()| tempfile_in(path));
    match tried {
        Ok(()) => ok(check, format!("{} can be written", path.display())),
        Err(e) => fail(
            check,
            format!("{}: {e}", path.display()),
            "give the controller's user the right to write there, and room",
        ),
    }
}

fn tempfile_in(path: &Path) -> std::io::Result<()> {
    let probe = path.join(format!(".doctor-{}", std::process::id()));
    std::fs::write(&probe, b"x")?;
    std::fs::remove_file(probe)
}

fn ok(check: &'static str, text: String) -> Check {
    Check { check, state: State::Ok, text, advice: "" }
}

fn warn(check: &'static str, text: String, advice: &'static str) -> Check {
    Check { check, state: State::Warn, text, advice }
}

fn fail(check: &'static str, text: String, advice: &'static str) -> Check {
    Check { check, state: State::Fail, text, advice }
}
