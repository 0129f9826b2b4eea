//! Floor 5: the command line, and the only place that builds objects.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tram_wire::ids::InstallationId;
use uuid::Uuid;

use crate::clock::Clock;
use crate::config::Config;
use crate::identity::password::Passwords;
use crate::nudge::Bus;
use crate::services::App;
use crate::store::{ServerLock, Store, StoreError, sqlite_path};
use crate::telemetry;

mod admin;
mod admin_people;
mod calls;
mod clock;
mod diagnose;
mod doctor;
mod endpoint;
mod enrolment;
mod file;
mod gateway;
mod gateway_issue;
mod gateways;
mod lease;
mod listener;
mod node;
mod place;
mod runbook;
mod server;
mod sla;
mod status;
mod updates;

/// Virtual desktops for public offices: the controller.
#[derive(Debug, Parser)]
#[command(name = "tram-controller", version, about, max_term_width = 100)]
struct Cli {
    /// Configuration file (TOML); every key has a default. Without --config and --data it is
    /// /etc/tram/controller.toml, if that exists.
    #[arg(long, global = true, env = "TRAM_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder for everything the controller keeps [default: /var/lib/tram].
    #[arg(long, global = true, env = "TRAM_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the controller: API, console, reconcilers and, unless `gateway.embedded` is false, a gateway in one process.
    Server,
    /// Run a gateway of its own: sessions it carries do not notice when the controller ends.
    #[command(long_about = gateway::ABOUT)]
    Gateway,
    /// Run the node of this hypervisor host: the one process here that holds libvirt's socket.
    Node {
        /// Its settings, made by `admin node issue`.
        #[arg(long, value_name = "FILE", default_value = "/etc/tram/node.toml")]
        settings: PathBuf,
    },
    /// Bring the database up to this version.
    Migrate,
    /// Look for what is wrong with this installation.
    Doctor {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print counts of hosts, pools and desktops.
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make, sign and check runbooks.
    #[command(subcommand)]
    Runbook(runbook::Runbook),
    /// Evidence of a line's outages for its carrier.
    #[command(subcommand)]
    Sla(sla::Sla),
    /// Print the OpenAPI 3.1 document.
    Openapi,
    /// Work on the installation with a shell on this machine; every change is audited.
    #[command(subcommand)]
    Admin(admin::Admin),
}

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // An error only if a provider is installed already, and then it is this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(r) => r,
        Err(e) => {
            eprintln!("tram-controller: the runtime can't start: {e}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("tram-controller: {e:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<ExitCode> {
    if let Command::Openapi = cli.command {
        println!("{}", crate::api::router::openapi().to_pretty_json()?);
        return Ok(ExitCode::SUCCESS);
    }
    if let Command::Node { settings } = &cli.command {
        let env = |name: &str, usual: &str| std::env::var(name).unwrap_or_else(|_| usual.into());
        telemetry::logging(&env("TRAM_LOG_FORMAT", "text"), &env("TRAM_LOG_LEVEL", "info"));
        node::run(settings).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let place = place::Place::find(cli.config, cli.data);
    place.become_owner()?;
    let config = Config::load(place.config.as_deref(), &place.data, |k| std::env::var(k).ok())?;
    match cli.command {
        Command::Server => {
            telemetry::logging(&config.log_format, &config.log_level);
            server::run(config).await?;
        }
        Command::Gateway => {
            telemetry::logging(&config.log_format, &config.log_level);
            gateway::run(config).await?;
        }
        Command::Migrate => {
            let app = open(&config).await?;
            println!("{} is at the version of this program", app.store.engine());
        }
        Command::Doctor { json } => return doctor::run(&config, json).await,
        Command::Status { json } => status::run(&open(&config).await?, json).await?,
        Command::Runbook(what) => runbook::run(&config, what)?,
        Command::Sla(what) => sla::run(&config, what).await?,
        Command::Admin(admin) => {
            telemetry::logging(&config.log_format, "warn");
            admin::run(&config, admin).await?;
        }
        Command::Openapi | Command::Node { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens and migrates the database and puts together what use cases need.
async fn open(config: &Config) -> Result<App> {
    migrated(config, Store::open(&config.database_url, Bus::default()).await).await
}

/// The same for a server.
async fn open_to_serve(config: &Config) -> Result<App> {
    migrated(config, Store::open_to_serve(&config.database_url, Bus::default()).await).await
}

async fn migrated(config: &Config, opened: Result<Store, StoreError>) -> Result<App> {
    let store = opened.context("opening the database")?;
    store.migrate().await.context("bringing the database up to date")?;
    app(config, store).await
}

/// What use cases need, on a database of this version.
async fn app(config: &Config, store: Store) -> Result<App> {
    let clock = Clock::system();
    let installation = store.installation(InstallationId(Uuid::now_v7()), clock.now()).await?;
    let app = App {
        store,
        clock,
        installation,
        image_dir: config.image_dir.clone(),
        data_dir: config.data.clone(),
        passwords: Passwords::default(),
        public_url: config.public_url.clone(),
        agent_url: config.agent_url.clone(),
        policy: config.sessions.clone(),
        support_phone: config.support_phone.clone(),
        runbooks: config.runbooks.clone(),
        rings: config.updates.0.clone(),
        signers: config.updates.1.clone(),
        hours: config.health.hours.clone(),
        embedded: config.gateway.embedded,
        cookie_domain: config.cookie_domain.clone(),
        pace: config.health.pace,
    };
    clock::look(&app).await;
    Ok(app)
}

/// One server a SQLite file; several on PostgreSQL.
fn lock(config: &Config) -> Result<Option<ServerLock>> {
    sqlite_path(&config.database_url).map(ServerLock::take).transpose().map_err(Into::into)
}
