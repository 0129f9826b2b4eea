//! `tram-updater`: run, status, use-packaged, forget.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tram_agent::config::Config as AgentConfig;
use tram_updater::config::Config;
use tram_updater::rest;
use tram_updater::run::Updater;
use tram_updater::state::State;

#[derive(Parser)]
#[command(name = "tram-updater", version, about = "Fetches, proves, tries and takes back releases of the Tram agent.")]
struct Cli {
    /// Configuration file [default: /etc/tram/updater.toml, if it exists].
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    /// The agent's configuration file [default: /etc/tram/agent.toml, if it exists].
    #[arg(long, global = true)]
    agent_config: Option<PathBuf>,
    /// The agent's folder [default: as its configuration says].
    #[arg(long, global = true)]
    agent_state: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Ask the controller, and do what was signed, until told to stop.
    Run,
    /// Print what is remembered, as JSON.
    Status,
    /// Run the package's own agent. Only while the updater is stopped.
    UsePackaged,
    /// Forget what failed here, so that it may be tried again. Only while the updater is stopped.
    Forget,
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    rest::wait();
    match command(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("tram-updater: {e}");
            ExitCode::from(3)
        }
    }
}

fn command(cli: Cli) -> Result<(), Failure> {
    let config = Config::load(cli.config.as_deref())?;
    if let Command::Status = cli.command {
        println!("{}", serde_json::to_string_pretty(&State::load(&config.state)?)?);
        return Ok(());
    }
    let agent = AgentConfig::load(cli.agent_config.as_deref(), cli.agent_state.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _inside = runtime.enter();
    let mut updater = Updater::open(config, agent)?;
    match cli.command {
        Command::Run => loop {
            let left = runtime.block_on(updater.run());
            // Comes back only if there is no beginning anew.
            eprintln!("tram-updater: {}", rest::begin(left));
            std::thread::sleep(left);
        },
        Command::UsePackaged => updater.use_packaged()?,
        Command::Forget => updater.forget()?,
        Command::Status => {}
    }
    Ok(())
}
