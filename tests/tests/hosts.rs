//! Hypervisor hosts as an operator adds, empties and removes them, in the console and at the shell.

use anyhow::{Context, Result, ensure};
use axum::http::StatusCode;
use serde_json::{Value, json};
use tram_controller::domain::access::Role;
use tram_controller::identity::node_certificate::NodeCertificate;
use tram_controller::store::audit::AuditFilter;
use tram_tests::db;
use tram_tests::http::TestApi;
use tram_tests::office::{Office, Plan};
use tram_tests::world::World;

#[tokio::test]
async fn a_host_is_added_closed_and_removed_when_it_carries_nothing() -> Result<()> {
    for db in db::both().await? {
        let api = TestApi::new(&db.store).await?;
        let office = Office::build(&db.store, api.app().clock.clone(), Plan::default()).await?;
        let operator = api.signed_in(Role::Operator).await?;
        let new = json!({"name": "may-2", "uri": "node://may-2.hanoi.example"});
        let made = operator.post("/api/v1/hosts", new.clone()).await?;
        ensure!(made.status == StatusCode::CREATED && made.json["state"] == "connecting", "{made:?}");
        let taken = operator.post("/api/v1/hosts", new).await?;
        assert_eq!((taken.status, taken.code()), (StatusCode::CONFLICT, "H-409"));
        for (bad, field) in [
            (json!({"name": "May 2", "uri": "node://x"}), "name"),
            (json!({"name": "may-3", "uri": "may-3"}), "uri"),
            (json!({"name": "may-3", "uri": "node://a b"}), "uri"),
            (json!({"name": "may-3", "uri": "node://x\n"}), ""),
        ] {
            let refused = operator.post("/api/v1/hosts", bad.clone()).await?;
            let at = refused.json["errors"][0]["at"].as_str().unwrap_or_default();
            // A line break at the end is what a copy from a mail brings along.
            ensure!(
                if field.is_empty() { refused.status == StatusCode::CREATED } else { at == field },
                "{bad}: {refused:?}"
            );
        }
        let path = format!("/api/v1/hosts/{}", made.json["id"].as_str().context("id")?);
        let change = async |body: Value| anyhow::Ok(operator.patch(&path, body).await?.json);
        let closed = change(json!({"enabled": false})).await?;
        assert_eq!((&closed["state"], &closed["draining"]), (&json!("disabled"), &json!(false)));
        let drained = change(json!({"drain": true})).await?;
        assert_eq!((&drained["state"], &drained["draining"]), (&json!("disabled"), &json!(true)));
        let open = change(json!({"enabled": true})).await?;
        assert_eq!((&open["state"], &open["draining"]), (&json!("connecting"), &json!(false)));

        let full = operator.delete(&format!("/api/v1/hosts/{}", office.host)).await?;
        assert_eq!((full.status, full.code()), (StatusCode::CONFLICT, "H-410"));
        assert_eq!(office.count("SELECT COUNT(*) FROM desktops WHERE host_id IS NOT NULL").await?, 2);
        assert_eq!(operator.delete(&path).await?.status, StatusCode::NO_CONTENT);
        assert_eq!(operator.delete(&path).await?.code(), "H-404");
        for (action, rows) in [("host.put", 2), ("host.change", 3), ("host.remove", 1)] {
            let sql = format!("SELECT COUNT(*) FROM audit WHERE action = '{action}' AND result = 'ok'");
            assert_eq!(office.count(&sql).await?, rows, "{action}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_nodes_files_are_issued_once_and_kept_nowhere() -> Result<()> {
    for db in db::both().await? {
        let folder = tempfile::tempdir()?;
        let api = TestApi::new(&db.store).await?;
        let operator = api.signed_in(Role::Operator).await?;
        let ask = json!({"name": "may-2", "names": ["may-2.hanoi.example", "10.0.0.12"]});
        let issued = operator.post("/api/v1/hosts/nodes", ask.clone()).await?;
        ensure!(issued.status == StatusCode::OK, "{issued:?}");
        let text = |key: &str| issued.json[key].as_str().unwrap_or_default().to_owned();
        ensure!(text("settings").contains(&api.app().installation.to_string()), "{issued:?}");
        ensure!(text("settings").contains("metrics = \"127.0.0.1:8446\""));
        for (name, file) in [("ca.pem", "authority"), ("node.pem", "certificate")] {
            std::fs::write(folder.path().join(name), text(file))?;
        }
        // It is what a node starts with.
        let at = |name: &str| folder.path().join(name);
        let open = NodeCertificate::open(&at("ca.pem"), &at("node.pem"), api.app().clock.clone());
        let node = open.and_then(|c| c.server_config().map(|_| c)).map_err(|e| anyhow::anyhow!(e))?;
        ensure!(node.renew_at() > api.app().clock.now());
        for (bad, at) in [
            (json!({"name": "may 2", "names": ["x"]}), "name"),
            (json!({"name": "may-2", "names": []}), "names"),
            (json!({"name": "may-2", "names": ["a/b"]}), "names"),
        ] {
            let refused = operator.post("/api/v1/hosts/nodes", bad).await?;
            assert_eq!(refused.json["errors"][0]["at"], at, "{refused:?}");
        }
        let rows = api.app().store.audit_rows(&AuditFilter { limit: 100, ..AuditFilter::default() }).await?.0;
        let row = rows.iter().find(|r| r.action == "node.issue").context("no audit row")?;
        ensure!(!format!("{row:?}").contains("PRIVATE KEY"), "{row:?}");
    }
    Ok(())
}

fn hosts(world: &World) -> Result<Vec<(String, i64)>> {
    let all = world.json(&["admin", "host", "list", "--json"])?;
    let row = |h: &Value| (h["name"].as_str().unwrap_or_default().to_owned(), h["desktops"].as_i64().unwrap_or(-1));
    Ok(all.as_array().into_iter().flatten().map(row).collect())
}

#[test]
fn an_emptied_host_loses_its_desktops_to_others_and_can_be_removed() -> Result<()> {
    let mut world = World::new()?;
    world.small_image()?;
    let add = |world: &World, name: &str| {
        world.host(name, &format!("sim:///{name}?images=1&state={}", world.path().join(name).display()))
    };
    add(&world, "may-1")?;
    world.start()?;
    let pool = ["--name", "p", "--site", "00004", "--image", "small", "--size", "6", "--memory-mib", "128"];
    world.cli(&[&["admin", "pool", "create"][..], &pool].concat())?;
    world.settled(6, "running")?;
    let full = world.cli(&["admin", "host", "remove", "may-1"]).err().context("it was removed")?.to_string();
    ensure!(full.contains("still carries desktops"), "{full}");

    // There is nowhere to go: nothing moves, and nobody loses a desktop.
    world.cli(&["admin", "host", "drain", "may-1"])?;
    std::thread::sleep(std::time::Duration::from_secs(3));
    world.settled(6, "running")?;
    ensure!(hosts(&world)? == [("may-1".to_owned(), 6)]);

    add(&world, "may-2")?;
    world.until("all of them moved", |w| Ok(hosts(w)? == [("may-1".to_owned(), 0), ("may-2".to_owned(), 6)]))?;
    world.settled(6, "running")?;
    world.cli(&["admin", "host", "remove", "may-1"])?;
    ensure!(hosts(&world)? == [("may-2".to_owned(), 6)]);
    ensure!(world.cli(&["admin", "host", "open", "may-9"]).is_err_and(|e| e.to_string().contains("no host named")));

    // Nowhere to go says so on the pool and on each desktop, and no longer once there is room.
    let told = |world: &World, what: &str| -> Result<Vec<String>> {
        let all = world.json(&["admin", what, "list", "--json"])?;
        let of = |row: &Value| if what == "pool" { row["problem"].to_string() } else { row["error"].to_string() };
        Ok(all.as_array().into_iter().flatten().map(of).collect())
    };
    world.cli(&["admin", "host", "close", "may-2"])?;
    world.cli(&["admin", "pool", "resize", "p", "8"])?;
    let waiting = |all: &[String]| all.iter().filter(|t| t.contains("no host is up")).count();
    world.until("it is said why two wait", |w| {
        Ok(waiting(&told(w, "desktop")?) == 2 && waiting(&told(w, "pool")?) == 1)
    })?;
    world.cli(&["admin", "host", "open", "may-2"])?;
    world.settled(8, "running")?;
    ensure!(waiting(&told(&world, "desktop")?) == 0);
    world.until("the pool says so no longer", |w| Ok(waiting(&told(w, "pool")?) == 0))?;
    Ok(())
}
