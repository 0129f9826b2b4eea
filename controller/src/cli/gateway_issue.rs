//! `admin gateway issue`: what a gateway on another machine needs, as files in a folder.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::json;

use super::admin::{explain, say};
use crate::config::Config;
use crate::identity::{ca, nodes, tls};
use crate::services::{App, Ctx, gateways};
use crate::store::sqlite_path;

/// Where endpoints reach a gateway unless told otherwise.
const AGENT_PORT: u16 = 9444;

#[derive(Debug, Args)]
pub(super) struct Issue {
    /// Name of the gateway, one for each.
    name: String,
    /// Where browsers reach it: https://NAME[:PORT], NAME below server.cookie_domain.
    #[arg(long, value_name = "URL")]
    public_url: String,
    /// Where endpoints reach it [default: the same name, port 9444].
    #[arg(long, value_name = "URL")]
    agent_url: Option<String>,
    /// How it reaches the database, PostgreSQL [default: as this controller does].
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Certificate chain for browsers [default: this controller's own, if it is for that name].
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Key of that certificate.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Folder for controller.toml and data/.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: &Config, app: &App, ctx: &Ctx, wanted: Issue) -> Result<()> {
    let database = wanted.database_url.clone().unwrap_or_else(|| config.database_url.clone());
    ensure!(
        sqlite_path(&database).is_none(),
        "a gateway on another machine can't reach this controller's SQLite file: use PostgreSQL, or give --database-url"
    );
    let (host, port) = place(&wanted.public_url)?;
    let agent_url = match &wanted.agent_url {
        Some(url) => url.clone(),
        None if host.contains(':') => format!("https://[{host}]:{AGENT_PORT}"),
        None => format!("https://{host}:{AGENT_PORT}"),
    };
    let (_, agent_port) = place(&agent_url)?;
    let settings = settings(config, &wanted, &database, &agent_url, (port, agent_port))?;
    let (file, data) = (wanted.out.join("controller.toml"), wanted.out.join("data"));
    // As the gateway will read it, so that what is wrong is said here.
    Config::read(&file, &settings, &data, |_| None)?;
    let web = match (&wanted.tls_cert, &wanted.tls_key) {
        (Some(cert), Some(key)) => tls::Files { ca: config.tls.ca.clone(), cert: cert.clone(), key: key.clone() },
        _ => config.tls.clone(),
    };
    tls::server_config(&web)?;
    if !tls::covers(&web, &host)? {
        bail!(
            "{} is not for {host}, and browsers would refuse it: give --tls-cert and --tls-key of one that is",
            web.cert.display()
        );
    }
    let passes = gateways::issue(app, ctx, &wanted.name).await.map_err(explain)?;
    let read = |path: &Path| std::fs::read(path).with_context(|| path.display().to_string());
    let (cert, key) = (read(&web.cert)?, read(&web.key)?);
    for folder in [&wanted.out, &data, &data.join("tls")] {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(|| folder.display().to_string())?;
    }
    let to = tls::Files::below(&data);
    for (path, content, mode) in [
        (&file, settings.as_bytes(), 0o600),
        (&data.join(ca::PASS), passes.endpoints.as_bytes(), 0o600),
        (&data.join(nodes::PASS), passes.nodes.as_bytes(), 0o600),
        (&to.cert, &cert, 0o644),
        (&to.key, &key, 0o600),
    ] {
        tls::write(path, content, mode)?;
    }
    let out = wanted.out.display();
    if wanted.json {
        return say(&json!({"name": wanted.name, "folder": wanted.out, "not_after": passes.not_after}).to_string());
    }
    say(&format!(
        "{out}: controller.toml and data/, with keys and the way to the database; good until {}\n\
         carry them to {host}, where the package is installed, and start it there:\n  \
         scp {out}/controller.toml root@{host}:/etc/tram/ && scp -r {out}/data/. root@{host}:/var/lib/tram/ && rm -r {out}\n  \
         ssh root@{host} 'chown root:tram /etc/tram/controller.toml && chmod 640 /etc/tram/controller.toml && \
         chown -R tram:tram /var/lib/tram && systemctl enable --now tram-gateway'",
        passes.not_after
    ))
}

/// Name and port of an address.
fn place(url: &str) -> Result<(String, u16)> {
    let parsed: axum::http::Uri = url.parse().with_context(|| format!("{url}: give https://NAME[:PORT]"))?;
    let host = parsed.host().with_context(|| format!("{url}: give https://NAME[:PORT]"))?;
    Ok((host.trim_matches(['[', ']']).to_owned(), parsed.port_u16().unwrap_or(443)))
}

/// The gateway's configuration: what it has of its own, and what it must have in common with its controller.
fn settings(
    config: &Config,
    wanted: &Issue,
    database: &str,
    agent_url: &str,
    (port, agent_port): (u16, u16),
) -> Result<String> {
    // A text of JSON is one of TOML, too.
    let text = |value: &str| serde_json::to_string(value);
    let limits = &config.sessions.limits;
    let gateway_kbit = limits.gateway_kbit.map(|kbit| format!("gateway_kbit = {kbit}\n")).unwrap_or_default();
    Ok(format!(
        "# The gateway {name}: /etc/tram/controller.toml on its machine, for nobody but tram to read.\n\
         [gateway]\n\
         name = {name_text}\n\
         listen = \"0.0.0.0:{port}\"\n\
         agent_listen = \"0.0.0.0:{agent_port}\"\n\
         public_url = {public}\n\
         agent_url = {agents}\n\
         # Only hosts with a node: this machine reaches no other.\n\
         local_hosts = false\n\n\
         [database]\n\
         url = {database}\n\n\
         # As the controller has them.\n\
         [server]\n\
         public_url = {server}\n\
         cookie_domain = {domain}\n\n\
         [sessions]\n\
         lease_minutes = {lease}\n\
         line_grace_minutes = {line_grace}\n\n\
         [limits]\n\
         site_percent = {percent}\n\
         {gateway_kbit}\n\
         [support]\n\
         phone = {phone}\n\n\
         [log]\n\
         format = {format}\n",
        name = wanted.name,
        name_text = text(&wanted.name)?,
        public = text(&wanted.public_url)?,
        agents = text(agent_url)?,
        database = text(database)?,
        server = text(&config.public_url)?,
        domain = text(&config.cookie_domain)?,
        lease = config.sessions.lease.as_secs() / 60,
        line_grace = config.sessions.line_grace.as_secs() / 60,
        percent = limits.site_percent,
        phone = text(&config.support_phone)?,
        format = text(&config.log_format)?,
    ))
}
