//! A gateway on another machine: `admin gateway issue` makes all it needs, without the keys of the authorities.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tokio::time::timeout;
use tram_controller::nudge::Bus;
use tram_controller::store::{Db, Store};
use tram_tests::db::Cluster;
use tram_tests::device::{Console, Device};
use tram_tests::gateways::{Gateway, Stage, works};
use tram_tests::tunnels::{ask, rectangle, shake_hands};
use tram_tests::world::{PATIENCE, World, free_address, program};
use tram_wire::session::Protocol;
use tram_wire::tunnel::Class;

/// Every file below a folder, with its mode.
fn files(folder: &Path) -> Result<Vec<(PathBuf, u32)>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        ensure!(fs::metadata(&folder)?.permissions().mode() & 0o077 == 0, "{} is open", folder.display());
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push((path.clone(), fs::metadata(&path)?.permissions().mode() & 0o777)),
            }
        }
    }
    found.sort();
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_starts_from_its_files_alone_and_carries() -> Result<()> {
    let cluster = Cluster::start()?;
    let mut stage = Stage::build(Some(cluster.url()), 2, &[])?;
    // Nobody but that gateway is to carry.
    stage.world.stop()?;
    stage.world.start_with(&[("TRAM_GATEWAY_EMBEDDED", "false")])?;
    stage.world.listening()?;
    let (web, agents) = (free_address()?, free_address()?);
    let elsewhere = tempfile::tempdir()?;
    let out = elsewhere.path().join("gw-far");
    let [folder, browsers, endpoints] =
        [out.display().to_string(), format!("https://{web}"), format!("https://{agents}")];
    let words = ["admin", "gateway", "issue", "gw-far", "--public-url", &browsers, "--agent-url", &endpoints];
    let said = stage.world.cli(&[&words[..], &["--out", &folder]].concat())?;
    ensure!(said.contains("scp") && said.contains("good until"), "{said}");
    let names: Vec<(String, u32)> = files(&out)?
        .into_iter()
        .map(|(path, mode)| (path.strip_prefix(&out).map(|p| p.display().to_string()).unwrap_or_default(), mode))
        .collect();
    let wanted = [
        ("controller.toml", 0o600),
        ("data/gateway-endpoints.pem", 0o600),
        ("data/gateway-nodes.pem", 0o600),
        ("data/tls/server.key", 0o600),
        ("data/tls/server.pem", 0o644),
    ];
    ensure!(names.iter().map(|(n, m)| (n.as_str(), *m)).eq(wanted), "{names:?}");
    // No line of an authority's key is among them.
    for authority in ["device-ca.pem", "node-ca.pem", "lease-keys.pem"] {
        let Ok(own) = fs::read_to_string(stage.world.path().join(authority)) else { continue };
        let key = own.lines().skip_while(|l| !l.contains("PRIVATE")).nth(1).context("a key")?.to_owned();
        for (file, _) in files(&out)? {
            ensure!(!fs::read_to_string(&file)?.contains(&key), "{} has the key of {authority}", file.display());
        }
    }

    stage.gateways.push(Gateway::of_files(&out, "gw-far", web, agents)?);
    stage.until_gateway("gw-far", "live")?;
    let row = stage.gateway("gw-far")?;
    ensure!(row["local_hosts"] == false && row["agent_url"] == endpoints.as_str(), "{row}");
    // A browser and an endpoint, each to its desktop on the host with a node.
    let (lan, _) = Console::officer(&stage.world, "lan")?;
    let (_, url, mut viewer) = stage.view(&lan).await?;
    ensure!(url.contains(&web.to_string()), "{url}");
    works(&mut viewer, b'a').await?;
    let (_, password) = Console::officer(&stage.world, "hoa")?;
    let (device, _) = Device::enrolled(&stage.world)?;
    let session = stage.endpoint(&device, "hoa", &password).await?;
    let mut stream = session.stream(Protocol::Vnc, Class::Input, Class::Display)?;
    shake_hands(&mut stream).await?;
    ask(&mut stream, (640, 400)).await?;
    timeout(PATIENCE, rectangle(&mut stream)).await.context("no picture")??;
    let operator = Console::sign_in(&stage.world, "operator")?;
    let id = session.id().to_string();
    Stage::until_session(&operator, &id, "it is counted there", |s| s["gateway"] == "gw-far")?;
    // It outlives the controller, as any gateway does.
    stage.world.kill9()?;
    works(&mut viewer, b'b').await?;

    // No controller grows out of a gateway's folder: it would make another authority.
    let mut server = Command::new(program("tram-controller")?);
    server.env_clear().arg("--config").arg(out.join("controller.toml")).arg("--data").arg(out.join("data"));
    let refused = server.env("TRAM_SERVER_LISTEN", free_address()?.to_string()).arg("server").output()?;
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && why.contains("folder of a gateway"), "{why}");
    ensure!(!out.join("data/device-ca.pem").exists() && !out.join("data/node-ca.pem").exists());
    let store = Store::open(&cluster.url(), Bus::default()).await?;
    let Db::Postgres(p) = store.db() else { anyhow::bail!("not PostgreSQL") };
    let audited = "SELECT COUNT(*) FROM audit WHERE action = 'gateway.issue' AND target = 'gw-far'";
    let audited: i64 = sqlx::query_scalar(audited).fetch_one(p).await?;
    ensure!(audited == 1, "{audited}");
    Ok(())
}

#[test]
fn what_could_not_work_is_not_issued() -> Result<()> {
    let world = World::new()?;
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("out").display().to_string();
    let issue = |name: &str, url: &str, more: &[&str]| -> Result<String> {
        let words = ["admin", "gateway", "issue", name, "--public-url", url, "--out", &out];
        let done = world.command()?.args(words).args(more).output()?;
        ensure!(!done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
        Ok(String::from_utf8(done.stderr)?)
    };
    let postgres = ["--database-url", "postgres://tram@db.example/tram"];
    let here = "https://127.0.0.1:9443";
    for (said, wanted) in [
        (issue("gw-2", here, &[])?, "PostgreSQL"),
        (issue("gw-2", "https://gw2.elsewhere.example", &postgres)?, "gateway.public_url"),
        (issue("gw-2", "gw2", &postgres)?, "gateway.public_url"),
        (issue("Cổng 2", here, &postgres)?, "gateway.name"),
        (issue("gw-2", here, &[&postgres[..], &["--agent-url", "http://127.0.0.1:1"]].concat())?, "gateway.agent_url"),
        (issue("gw-2", here, &[&postgres[..], &["--tls-cert", "/nowhere"]].concat())?, "--tls-key"),
    ] {
        ensure!(said.contains(wanted), "{wanted}: {said}");
    }
    // A name below the cookies' domain, but not one of the certificate.
    let done = world
        .command()?
        .args(["admin", "gateway", "issue", "gw-2", "--public-url", "https://gw2.hanoi.example", "--out", &out])
        .args(postgres)
        .env("TRAM_SERVER_PUBLIC_URL", "https://tram.hanoi.example")
        .env("TRAM_SERVER_COOKIE_DOMAIN", "hanoi.example")
        .output()?;
    let said = String::from_utf8(done.stderr)?;
    ensure!(said.contains("is not for gw2.hanoi.example") && said.contains("--tls-cert"), "{said}");
    ensure!(!Path::new(&out).exists(), "something was left behind");
    Ok(())
}
