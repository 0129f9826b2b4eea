//! `admin`: for somebody with a shell on the controller. The same use cases as the API, audited as
//! `local-admin`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tram_wire::ids::{HostId, PoolId};

use super::{admin_people, calls, diagnose, endpoint, enrolment, gateways, lease, open, updates};
use crate::config::Config;
use crate::domain::assist::Consent;
use crate::domain::host::{AccelSetting, Usage};
use crate::domain::image::Guest;
use crate::domain::policy::PoolPolicy;
use crate::identity::tls;
use crate::services::{App, Ctx, desktops, hosts, images, nodes, pools};
use crate::store::desktops::{Filter, Want};

#[derive(Debug, Subcommand)]
pub(super) enum Admin {
    /// Make a certificate authority and a server certificate, if there are none.
    InitTls {
        /// Names and addresses the controller is reached by.
        #[arg(long, value_delimiter = ',', required = true)]
        names: Vec<String>,
    },
    /// Accounts.
    #[command(subcommand)]
    User(admin_people::User),
    /// Administrative units.
    #[command(subcommand)]
    Site(admin_people::Site),
    /// Hypervisor hosts.
    #[command(subcommand)]
    Host(Host),
    /// Nodes: what a hypervisor host other than this one runs.
    #[command(subcommand)]
    Node(Node),
    /// Gateways: what carries connections.
    #[command(subcommand)]
    Gateway(gateways::Gateways),
    /// Golden images.
    #[command(subcommand)]
    Image(Image),
    /// Pools of desktops.
    #[command(subcommand)]
    Pool(Pool),
    /// Virtual desktops.
    #[command(subcommand)]
    Desktop(Desktop),
    /// Office computers and the tokens they enrol with.
    #[command(subcommand)]
    Endpoint(endpoint::Endpoint),
    /// Computers that wait for approval to become an office computer of ours.
    #[command(subcommand)]
    Enrolment(enrolment::Enrolments),
    /// Services that one office computer of each site probes.
    #[command(subcommand)]
    Probe(endpoint::Probe),
    /// Calls of officers for support.
    #[command(subcommand)]
    Call(calls::Calls),
    /// What office computers are asked to do: a closed list, without a shell.
    #[command(subcommand)]
    Diagnosis(diagnose::Diagnosis),
    /// What lets officers in while the database is away.
    #[command(subcommand)]
    Lease(lease::Lease),
    /// Releases of the office computers' agent: signed by several people, spread ring by ring.
    #[command(subcommand)]
    Update(updates::Update),
}

#[derive(Debug, Subcommand)]
pub(super) enum Host {
    /// Add a host, or change the one with that name.
    Add {
        /// Name.
        #[arg(long)]
        name: String,
        /// libvirt URI, such as qemu:///system, or node://HOST[:PORT] for a host with a node.
        #[arg(long)]
        uri: String,
        /// Acceleration: auto, kvm or tcg.
        #[arg(long, default_value = "auto")]
        accel: AccelSetting,
    },
    /// Take no new desktops on a host.
    Close {
        /// Name.
        name: String,
    },
    /// Take no new desktops, and make those that nobody uses or keeps anew on other hosts.
    Drain {
        /// Name.
        name: String,
    },
    /// Take desktops again.
    Open {
        /// Name.
        name: String,
    },
    /// Forget a host that carries no desktop.
    Remove {
        /// Name.
        name: String,
    },
    /// List hosts.
    List(Json),
}

#[derive(Debug, Subcommand)]
pub(super) enum Node {
    /// Write the settings and the certificate of a node into a folder, to be carried to its host.
    Issue {
        /// Name of the host.
        #[arg(long)]
        name: String,
        /// Names and addresses controllers reach it by.
        #[arg(long, value_delimiter = ',', required = true)]
        names: Vec<String>,
        /// Folder for node.toml, node.pem and ca.pem.
        #[arg(long)]
        out: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Image {
    /// Take a qcow2 file in.
    Add {
        /// Name.
        #[arg(long)]
        name: String,
        /// Version.
        #[arg(long)]
        version: String,
        /// The file.
        #[arg(long)]
        file: PathBuf,
        /// The machine its system expects: linux-bios, linux-uefi or windows (UEFI, Secure Boot, TPM 2.0).
        #[arg(long, default_value = "linux-bios")]
        guest: Guest,
    },
    /// List images.
    List(Json),
}

#[derive(Debug, Subcommand)]
pub(super) enum Pool {
    /// Ask for a pool.
    Create {
        /// Name.
        #[arg(long)]
        name: String,
        /// Code of the site it serves.
        #[arg(long)]
        site: String,
        /// Image name; its newest ready version is taken.
        #[arg(long)]
        image: String,
        /// Desktops wanted.
        #[arg(long)]
        size: i64,
        /// Virtual processors of each.
        #[arg(long, default_value_t = 2)]
        vcpus: i64,
        /// Memory of each, MiB.
        #[arg(long, default_value_t = 2048)]
        memory_mib: i64,
        /// Disk of each, GiB.
        #[arg(long)]
        disk_gib: Option<i64>,
        /// Keep disks after a session.
        #[arg(long)]
        persistent: bool,
        /// Only define the desktops.
        #[arg(long)]
        no_start: bool,
    },
    /// Ask for another number of desktops.
    Resize {
        /// Name.
        name: String,
        /// Desktops wanted.
        size: i64,
        /// Even if sessions are cut.
        #[arg(long)]
        force: bool,
    },
    /// Set the pool's own limits for sessions to come; what is left out is as configured.
    Policy {
        /// Name.
        name: String,
        /// Minutes without a key or the mouse until the viewer is disconnected.
        #[arg(long)]
        idle_minutes: Option<u32>,
        /// Minutes without a viewer until the session ends.
        #[arg(long)]
        grace_minutes: Option<u32>,
        /// Minutes a session may last.
        #[arg(long)]
        longest_minutes: Option<u32>,
        /// Bandwidth cap of one session, kbit/s.
        #[arg(long)]
        kbit: Option<u32>,
        /// What officers say before support looks at their session: none, notify or ask.
        #[arg(long)]
        assist: Option<Consent>,
        /// Whether text may be copied between the desktop and where it is used.
        #[arg(long)]
        clipboard: Option<bool>,
        /// Whether sound is carried.
        #[arg(long)]
        audio: Option<bool>,
        /// Whether USB devices may be passed on.
        #[arg(long)]
        usb: Option<bool>,
    },
    /// Ask for a pool and its desktops to be removed.
    Delete {
        /// Name.
        name: String,
        /// Even if sessions are cut.
        #[arg(long)]
        force: bool,
    },
    /// List pools.
    List(Json),
}

#[derive(Debug, Subcommand)]
pub(super) enum Desktop {
    /// List desktops.
    List(Json),
    /// Start one.
    Start {
        /// Name.
        name: String,
    },
    /// Stop one.
    Stop {
        /// Name.
        name: String,
        /// Cut the power.
        #[arg(long)]
        force: bool,
    },
    /// Reset one.
    Reset {
        /// Name.
        name: String,
    },
    /// Throw its disk away and make it anew.
    Rebuild {
        /// Name.
        name: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Json {
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) async fn run(config: &Config, admin: Admin) -> Result<()> {
    if let Admin::InitTls { names } = &admin {
        let made = tls::init(&config.tls, names)?;
        println!("{} {}", if made { "made" } else { "kept" }, config.tls.cert.display());
        return Ok(());
    }
    let admin = match admin {
        Admin::Update(u) => match updates::offline(u)? {
            Some(u) => Admin::Update(u),
            None => return Ok(()),
        },
        other => other,
    };
    let app = open(config).await?;
    let ctx = Ctx::local_admin(app.clock.now());
    match admin {
        Admin::InitTls { .. } => Ok(()),
        Admin::User(u) => admin_people::user(&app, u).await,
        Admin::Site(s) => admin_people::site(&app, s).await,
        Admin::Host(h) => host(&app, &ctx, h).await,
        Admin::Node(n) => node(&app, &ctx, n).await,
        Admin::Gateway(g) => gateways::run(config, &app, &ctx, g).await,
        Admin::Image(i) => image(&app, &ctx, i).await,
        Admin::Pool(p) => pool(&app, &ctx, p).await,
        Admin::Desktop(d) => desktop(&app, &ctx, d).await,
        Admin::Endpoint(e) => endpoint::run(&app, &ctx, e).await,
        Admin::Enrolment(e) => enrolment::run(&app, &ctx, e).await,
        Admin::Probe(p) => endpoint::run_probe(&app, &ctx, p).await,
        Admin::Call(c) => calls::run(&app, &ctx, c).await,
        Admin::Diagnosis(d) => diagnose::run(&app, &ctx, d).await,
        Admin::Lease(l) => lease::run(&app, &ctx, l).await,
        Admin::Update(u) => updates::run(&app, &ctx, u).await,
    }
}

async fn host(app: &App, ctx: &Ctx, h: Host) -> Result<()> {
    match h {
        Host::Add { name, uri, accel } => {
            let id = hosts::put(app, ctx, &name, &uri, accel).await?;
            println!("{name} {id}");
        }
        Host::Close { name } => use_host(app, ctx, &name, Usage::Closed).await?,
        Host::Drain { name } => use_host(app, ctx, &name, Usage::Drained).await?,
        Host::Open { name } => use_host(app, ctx, &name, Usage::Open).await?,
        Host::Remove { name } => {
            hosts::remove(app, ctx, host_id(app, ctx, &name).await?).await?;
            println!("{name} is forgotten");
        }
        Host::List(j) => {
            let rows = hosts::list(app, ctx).await?;
            print(
                j,
                rows.iter().map(|h| {
                    json!({"id": h.id, "name": h.name, "uri": h.uri, "state": h.state, "reason": h.state_reason,
                        "draining": h.draining, "desktops": h.desktops, "running": h.running})
                }),
            )?;
        }
    }
    Ok(())
}

async fn use_host(app: &App, ctx: &Ctx, name: &str, usage: Usage) -> Result<()> {
    let host = hosts::change(app, ctx, host_id(app, ctx, name).await?, Some(usage), None).await?;
    println!("{name}: {}, {} desktops on it", host.state, host.desktops);
    Ok(())
}

async fn host_id(app: &App, ctx: &Ctx, name: &str) -> Result<HostId> {
    match hosts::list(app, ctx).await?.into_iter().find(|h| h.name == name) {
        Some(h) => Ok(h.id),
        None => bail!("there is no host named {name}; see `admin host list`"),
    }
}

async fn node(app: &App, ctx: &Ctx, n: Node) -> Result<()> {
    let Node::Issue { name, names, out } = n;
    let issued = nodes::issue(app, ctx, &name, &names).await?;
    for (file, text, mode) in [
        ("node.toml", &issued.settings, 0o644),
        ("ca.pem", &issued.authority, 0o644),
        ("node.pem", &issued.certificate, 0o600),
    ] {
        tls::write(&out.join(file), text.as_bytes(), mode)?;
    }
    println!("{}: node.toml, node.pem (secret) and ca.pem, good until {}", out.display(), issued.not_after);
    println!("carry them to /etc/tram of {name}, run `tram-controller node` there, and then here:");
    let host = names.first().map_or("HOST", String::as_str);
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    println!("  tram-controller admin host add --name {name} --uri node://{host}");
    Ok(())
}

async fn image(app: &App, ctx: &Ctx, i: Image) -> Result<()> {
    match i {
        Image::Add { name, version, file, guest } => {
            let tty = std::io::stderr().is_terminal();
            let progress = move |done: u64, total: u64| {
                if tty {
                    let _ = write!(std::io::stderr(), "\rcopying {:3} %", done * 100 / total.max(1));
                }
            };
            let row = images::add(app, ctx, &name, &version, guest, &file, progress)
                .await
                .with_context(|| format!("taking in {}", file.display()))?;
            if tty {
                eprintln!();
            }
            println!("{} {} {}", row.name, row.version, row.id);
        }
        Image::List(j) => {
            let rows = images::list(app, ctx).await?;
            print(j, rows.iter().map(|i| json!({"id": i.id, "name": i.name, "version": i.version, "guest": i.guest, "state": i.state, "bytes": i.file_size_bytes, "pools": i.pools})))?;
        }
    }
    Ok(())
}

async fn pool(app: &App, ctx: &Ctx, p: Pool) -> Result<()> {
    match p {
        Pool::Create { name, site, image, size, vcpus, memory_mib, disk_gib, persistent, no_start } => {
            let image_id = images::list(app, ctx)
                .await?
                .into_iter()
                .find(|i| i.name == image && i.state == crate::domain::image::ImageState::Ready)
                .with_context(|| format!("there is no ready image named {image}; see `admin image list`"))?
                .id;
            let request = pools::Request {
                name,
                site_code: site,
                image_id,
                size,
                vcpus,
                memory_mib,
                disk_gib,
                persistent,
                start: !no_start,
            };
            let made = pools::create(app, ctx, request).await.map_err(explain)?;
            println!("{} {}", made.pool.name, made.pool.id);
        }
        Pool::Resize { name, size, force } => {
            let id = pool_id(app, ctx, &name).await?;
            let p = pools::resize(app, ctx, id, size, force).await.map_err(explain)?;
            println!("{} shall have {} desktops", p.pool.name, p.pool.size);
        }
        Pool::Policy { name, idle_minutes, grace_minutes, longest_minutes, kbit, assist, clipboard, audio, usb } => {
            let id = pool_id(app, ctx, &name).await?;
            let policy =
                PoolPolicy { idle_minutes, grace_minutes, longest_minutes, clipboard, audio, usb, kbit, assist };
            let p = pools::set_policy(app, ctx, id, policy).await.map_err(explain)?;
            println!("{}", serde_json::to_string(&p.pool.policy)?);
        }
        Pool::Delete { name, force } => {
            let id = pool_id(app, ctx, &name).await?;
            pools::delete(app, ctx, id, force).await?;
            println!("{name} shall be removed");
        }
        Pool::List(j) => {
            let rows = pools::list(app, ctx).await?;
            print(j, rows.iter().map(|p| json!({"id": p.pool.id, "name": p.pool.name, "site": p.pool.site_code, "size": p.pool.size, "counts": p.counts, "problem": p.pool.problem_text})))?;
        }
    }
    Ok(())
}

async fn desktop(app: &App, ctx: &Ctx, d: Desktop) -> Result<()> {
    let (name, what) = match d {
        Desktop::List(j) => {
            let filter = Filter { limit: i64::MAX, ..Filter::default() };
            let l = desktops::list(app, ctx, &filter).await?;
            let pool = |id: &PoolId| l.pools.get(id).map(|p| p.name.clone());
            return print(
                j,
                l.desktops.iter().map(|d| {
                    json!({"id": d.id, "name": d.name, "pool": pool(&d.pool_id), "state": d.state,
                "desired": d.desired, "assigned_to": d.assigned_name, "error": d.error_text})
                }),
            );
        }
        Desktop::Start { name } => (name, Want::Start),
        Desktop::Stop { name, force } => (name, Want::Stop { force }),
        Desktop::Reset { name } => (name, Want::Reset),
        Desktop::Rebuild { name } => (name, Want::Rebuild),
    };
    let id = desktops::by_name(app, ctx, &name).await.with_context(|| name.clone())?;
    desktops::want(app, ctx, id, what).await?;
    println!("{name}: asked for");
    Ok(())
}

async fn pool_id(app: &App, ctx: &Ctx, name: &str) -> Result<PoolId> {
    match pools::list(app, ctx).await?.into_iter().find(|p| p.pool.name == name) {
        Some(p) => Ok(p.pool.id),
        None => bail!("there is no pool named {name}; see `admin pool list`"),
    }
}

/// The code and what happened; of an input every fault: on a terminal there is no form that would mark them.
pub(super) fn explain(e: crate::services::Error) -> anyhow::Error {
    use crate::services::Error;
    let code = e.code();
    match &e {
        Error::Internal(_) => e.into(),
        Error::Invalid(_, text, faults) => {
            // A single fault is often all that was said.
            if let [f] = &faults[..]
                && f.message == *text
            {
                return anyhow::anyhow!("{}: {}: {text}", f.code, f.at);
            }
            let line = |f: &crate::services::Fault| format!("\n  {} ({}): {}", f.at, f.code, f.message);
            anyhow::anyhow!("{code}: {text}{}", faults.iter().map(line).collect::<String>())
        }
        _ => anyhow::anyhow!("{code}: {e}"),
    }
}

/// Prints rows as JSON, or as a line of `key=value` each.
pub(super) fn print(how: Json, rows: impl Iterator<Item = Value>) -> Result<()> {
    let rows: Vec<Value> = rows.collect();
    if how.json {
        return say(&serde_json::to_string_pretty(&rows)?);
    }
    if rows.is_empty() && std::io::stderr().is_terminal() {
        // For who looks at it; a script reads nothing.
        eprintln!("none");
    }
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    for row in &rows {
        let cells = row.as_object().into_iter().flatten().filter(|(_, v)| !v.is_null());
        let cells: Vec<String> = cells.map(|(k, v)| format!("{k}={}", text(v))).collect();
        say(&cells.join("  "))?;
    }
    Ok(())
}

/// Prints a line. A reader that has seen enough (`| head`) is no fault.
pub(super) fn say(line: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}
