//! `tram-agent`: enrol, run, desk, status, doctor.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use nix::unistd::User;
use tokio::signal::unix::{SignalKind, signal};
use tram_agent::collect::keeper::aside;
use tram_agent::collect::os;
use tram_agent::config::{Address, Config};
use tram_agent::enrolling::{self, Asked, Done, Me, Waiting};
use tram_agent::host::{System, notify, wall_ms};
use tram_agent::identity::{Identity, IdentityError, tpm};
use tram_agent::ledger::Ledger;
use tram_agent::link::way;
use tram_agent::session::{kiosk, view};
use tram_agent::status::{LinkStatus, Status};
use tram_agent::{app, collect, doctor, generalize, helper, trusted};
use tram_wire::heartbeat::GoodbyeReason;
use tram_wire::helper::Room;

#[derive(Parser)]
#[command(name = "tram-agent", version, about = "Reports this computer's health to its Tram controller.")]
struct Cli {
    /// Configuration file [default: /etc/tram/agent.toml, if it exists].
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    /// Folder of identity and status [default: /var/lib/tram-agent].
    #[arg(long, global = true)]
    state: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a key here and get a certificate for it with a one-time token; without a token: go on with what waits for
    /// approval.
    Enrol {
        /// The controller's agent address, such as https://tram.example:8444.
        #[arg(long, requires = "token")]
        controller: Option<Address>,
        /// The one-time token; better given in the environment, where other users can't see it.
        #[arg(long, env = "TRAM_ENROL_TOKEN", hide_env_values = true, requires = "controller")]
        token: Option<String>,
        /// What a QR code says: address and token at once.
        #[arg(long, env = "TRAM_ENROL_CODE", hide_env_values = true, conflicts_with_all = ["controller", "token"])]
        code: Option<String>,
        /// The controller's CA, if the token doesn't name it.
        #[arg(long)]
        ca: Option<PathBuf>,
        /// Replace an identity this computer already has.
        #[arg(long)]
        replace: bool,
        /// If somebody has to approve this computer, say so and end with 4 instead of waiting; `run` goes on with it.
        #[arg(long)]
        no_wait: bool,
    },
    /// Link to the controller and report, until told to stop.
    Run,
    /// Serve this computer's screen: sign-in page, viewer, back again. Run it in the kiosk's session.
    Desk {
        /// Only serve the page; the kiosk's browser is started by somebody else.
        #[arg(long)]
        no_browser: bool,
        /// Sign in here, in the terminal, without page and browser; in Vietnamese unless LANG says en. Ctrl-D ends it.
        #[arg(long, conflicts_with = "no_browser")]
        terminal: bool,
    },
    /// Say what the running agent is doing.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Examine this computer. Exit code: 0 fine, 1 worth a look, 2 broken.
    Doctor {
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// Write everything support needs into this file, without secrets.
        #[arg(long, value_name = "FILE")]
        bundle: Option<PathBuf>,
        /// `vi` or `en` [default: as the environment says].
        #[arg(long)]
        language: Option<String>,
    },
    /// Make this disk fit to be copied: remove identity, queue, ledger and leases. The configuration stays.
    Generalize {
        /// Even while the agent runs.
        #[arg(long)]
        force: bool,
    },
    /// Do one thing the agent may not do itself: started by systemd for each request, on a connection as its input.
    #[command(hide = true)]
    Helper {
        /// `helper`, `disks` or `capture`: which requests.
        room: Room,
        /// The agent's user; nobody else is served.
        #[arg(long, default_value = "tram-agent")]
        user: String,
        /// The agent's unit; nobody else of that user is served.
        #[arg(long)]
        unit: Option<String>,
    },
    /// Show what this computer sent to the controller, and what it was asked for. One JSON a line.
    Ledger {
        /// Only the newest so many.
        #[arg(long)]
        last: Option<usize>,
    },
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Helper { room, user, unit } = &cli.command {
        let done = help(&cli, *room, user, unit.clone());
        return done.map_or_else(failed, |()| ExitCode::SUCCESS);
    }
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(command(cli)));
    tpm::let_go();
    done.unwrap_or_else(failed)
}

fn failed(e: Failure) -> ExitCode {
    app::note(&e.to_string());
    ExitCode::from(3)
}

/// No runtime, no thread, no network: what runs with privileges is small.
fn help(cli: &Cli, room: Room, user: &str, unit: Option<String>) -> Result<(), Failure> {
    let config = Config::load(cli.config.as_deref(), cli.state.as_deref())?;
    let number = user.parse().ok().or_else(|| User::from_name(user).ok()?.map(|u| u.uid.as_raw()));
    let uid = number.ok_or_else(|| format!("there is no user {user}"))?;
    let line = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let rules = helper::Rules { room, uid, unit, deny: config.deny, root: "/".into() };
    helper::serve(line, &System::new(), &rules, &mut app::note)?;
    Ok(())
}

async fn command(cli: Cli) -> Result<ExitCode, Failure> {
    let config = Config::load(cli.config.as_deref(), cli.state.as_deref())?;
    trusted::recall(&config.state);
    way::set_from(config.proxy.as_ref(), cli.config.as_deref());
    tpm::set(&config.key);
    match cli.command {
        Command::Enrol { controller, token, code, ca, replace, no_wait } => {
            let ca_pem = ca
                .map(|path| std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display())))
                .transpose()?;
            let asked = match code {
                Some(code) => Some(Asked { ca_pem, ..Asked::read(&code)? }),
                None => controller.zip(token).map(|(controller, token)| Asked { controller, token, ca_pem }),
            };
            enrol(&config, asked, replace, !no_wait).await
        }
        Command::Run => run(&config).await,
        // Served before there is a runtime.
        Command::Helper { .. } => Ok(ExitCode::SUCCESS),
        Command::Desk { terminal: true, .. } => terminal(&config).await,
        Command::Desk { no_browser, .. } => desk(&config, !no_browser).await,
        Command::Status { json } => status(&config, json),
        Command::Generalize { force } => generalize(&config, force),
        Command::Ledger { last } => Ok(ledger(&config, last)),
        Command::Doctor { json, bundle, language } => {
            let diagnosis = doctor::examine(&config, System::new()).await;
            if let Some(to) = bundle {
                let hello = collect::hello(&System::new(), 0);
                doctor::bundle(&diagnosis, &hello, &Ledger::of(&config.state), &to)
                    .map_err(|e| format!("{}: {e}", to.display()))?;
            }
            if json {
                println!("{}", serde_json::to_string_pretty(&diagnosis)?);
            } else {
                let lang = language.or_else(|| std::env::var("LC_ALL").or_else(|_| std::env::var("LANG")).ok());
                print!("{}", doctor::render(&diagnosis, doctor::Language::of(&lang.unwrap_or_default())));
            }
            Ok(ExitCode::from(diagnosis.exit_code()))
        }
    }
}

fn generalize(config: &Config, force: bool) -> Result<ExitCode, Failure> {
    let gone = generalize::generalize(&config.state, force)?;
    if gone.is_empty() {
        println!("nothing to remove in {}", config.state.display());
    }
    for what in &gone {
        println!("removed {what}");
    }
    if !gone.is_empty() {
        println!("computers made from this disk enrol with `tram-agent enrol` and a token each");
    }
    Ok(ExitCode::SUCCESS)
}

fn ledger(config: &Config, last: Option<usize>) -> ExitCode {
    let lines = Ledger::of(&config.state).lines();
    let from = lines.len().saturating_sub(last.unwrap_or(lines.len()));
    for line in lines.iter().skip(from) {
        println!("{line}");
    }
    ExitCode::SUCCESS
}

async fn enrol(config: &Config, asked: Option<Asked>, replace: bool, wait: bool) -> Result<ExitCode, Failure> {
    if let Ok(old) = Identity::load(&config.state)
        && !replace
    {
        return Err(format!(
            "this computer is already endpoint {}; give --replace for a new identity",
            old.endpoint_id
        )
        .into());
    }
    match enrolling::enrol(&config.state, asked, me(), wait, told()).await? {
        Done::Enrolled(id) => {
            println!("enrolled as endpoint {id}");
            Ok(ExitCode::SUCCESS)
        }
        Done::Waits(digits) => {
            println!("this computer waits for approval; its code is {}", spoken(&digits));
            Ok(ExitCode::from(4))
        }
    }
}

fn me() -> Me {
    let mut host = System::new();
    Me { hello: collect::hello(&host, 0), hardware: collect::hardware::collect(&mut host) }
}

/// Prints the digits once.
fn told() -> impl FnMut(&str) {
    let mut last = String::new();
    move |digits| {
        if last != digits {
            digits.clone_into(&mut last);
            println!(
                "this computer waits for approval; its code is {}\ntell it to who runs the console; this goes on by itself",
                spoken(digits)
            );
        }
    }
}

fn spoken(digits: &str) -> String {
    match (digits.get(..3), digits.get(3..)) {
        (Some(a), Some(b)) => format!("{a} {b}"),
        _ => digits.to_owned(),
    }
}

/// How long it may take to learn whether the computer is going down; it may be gone sooner.
const SYSTEMD: Duration = Duration::from_secs(3);

async fn run(config: &Config) -> Result<ExitCode, Failure> {
    if matches!(Identity::load(&config.state), Err(IdentityError::Missing(_))) && Waiting::load(&config.state).is_some()
    {
        // Until here a signal just ends it.
        enrolling::enrol(&config.state, None, me(), true, |_| ()).await?;
    }
    let mut seed = [0_u8; 8];
    getrandom::fill(&mut seed)?;
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        let down = aside(SYSTEMD, || os::is_going_down(&System::new())).await;
        if down == Some(true) { GoodbyeReason::Shutdown } else { GoodbyeReason::Stopped }
    };
    let host = System::new().helped_by(&config.helpers);
    tokio::select! {
        done = app::run(config, host, wall_ms, u64::from_le_bytes(seed), stop) => done?,
        // On the same thread: if that hangs, systemd hears nothing any more and starts the agent anew.
        () = alive() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells systemd that the agent is alive, twice as often as it wants to hear it, for ever.
async fn alive() {
    let Some(every) = notify::watchdog() else { return std::future::pending().await };
    loop {
        notify::tell("WATCHDOG=1");
        tokio::time::sleep(every / 2).await;
    }
}

async fn desk(config: &Config, browser: bool) -> Result<ExitCode, Failure> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        // Dropping the desk ends its browser and its viewer.
        _ = term.recv() => Ok(ExitCode::SUCCESS),
        _ = int.recv() => Ok(ExitCode::SUCCESS),
        failed = kiosk::run(config, browser) => match failed? {},
    }
}

async fn terminal(config: &Config) -> Result<ExitCode, Failure> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        // Dropping it ends the viewer and gives the terminal its echo back.
        _ = term.recv() => Ok(ExitCode::SUCCESS),
        _ = int.recv() => Ok(ExitCode::from(130)),
        done = kiosk::in_terminal(config) => Ok(done.map(|()| ExitCode::SUCCESS)?),
    }
}

fn status(config: &Config, json: bool) -> Result<ExitCode, Failure> {
    if let Some(enrol) = view::Enrolling::of(&config.state) {
        match (&enrol, json) {
            (_, true) => println!("{}", serde_json::to_string_pretty(&serde_json::json!({"enrolling": enrol}))?),
            (view::Enrolling::Waits { digits }, false) => {
                println!("enrolment   waits for approval; its code is {}", spoken(digits));
            }
            (view::Enrolling::Refused { code, reason }, false) => println!("enrolment   refused ({code}): {reason}"),
        }
        return Ok(ExitCode::from(1));
    }
    let status = Status::load(&config.state)
        .map_err(|e| format!("no status in {} ({e}); is the agent running?", config.state.display()))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
        return Ok(ExitCode::SUCCESS);
    }
    let age_s = (wall_ms() - status.at_ms).max(0) / 1000;
    println!("endpoint    {}", status.endpoint_id);
    println!("controller  {}", status.controller);
    match &status.link {
        LinkStatus::Up { by: None, .. } => println!("link        up"),
        LinkStatus::Up { by: Some(by), .. } if by == "signed" => {
            println!("link        up, by signed requests: somebody on the way opens TLS and can read them");
        }
        LinkStatus::Up { .. } => {
            println!("link        up, by requests: something on the way lets no WebSocket through")
        }
        LinkStatus::Down { reason, code: None } => println!("link        down: {reason}"),
        LinkStatus::Down { reason, code: Some(code) } => println!("link        down ({code}): {reason}"),
        LinkStatus::Refused { code, reason } => println!("link        refused ({code}): {reason}"),
        LinkStatus::Quarantined { .. } => {
            println!(
                "link        quarantined: several computers show this identity; an operator has to say whose it is"
            );
        }
        LinkStatus::Stopped => println!("link        the agent was stopped"),
    }
    println!("key         {}", if status.key.is_empty() { "file" } else { &status.key });
    println!("written     {age_s} s ago by agent {} (process {})", status.agent_version, status.pid);
    Ok(if matches!(status.link, LinkStatus::Up { .. }) { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
