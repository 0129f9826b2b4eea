//! The two migration folders describe the same tables.

use anyhow::Result;
use std::collections::BTreeSet;
use tram_controller::store::{Db, POSTGRES_MIGRATIONS, SQLITE_MIGRATIONS};
use tram_tests::db;

#[test]
fn both_folders_have_the_same_numbers_and_names() {
    let names =
        |m: &sqlx::migrate::Migrator| m.iter().map(|m| (m.version, m.description.to_string())).collect::<Vec<_>>();
    assert_eq!(names(&SQLITE_MIGRATIONS), names(&POSTGRES_MIGRATIONS));
}

#[tokio::test]
async fn both_databases_have_the_same_tables_and_columns() -> Result<()> {
    let mut seen = Vec::new();
    for db in db::both().await? {
        let columns: Vec<(String, String)> = match db.store.db() {
            Db::Sqlite { read, .. } => {
                sqlx::query_as("SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'")
                    .fetch_all(read)
                    .await?
            }
            Db::Postgres(p) => {
                sqlx::query_as("SELECT table_name::text, column_name::text FROM information_schema.columns WHERE table_schema = 'public'")
                    .fetch_all(p)
                    .await?
            }
        };
        let ours: BTreeSet<_> = columns.into_iter().filter(|(t, _)| t != "_sqlx_migrations").collect();
        assert!(ours.len() > 50, "too few columns: {ours:?}");
        seen.push(ours);
    }
    let only = |a: usize, b: usize| seen[a].difference(&seen[b]).cloned().collect::<Vec<_>>();
    assert_eq!((only(0, 1), only(1, 0)), (vec![], vec![]));
    Ok(())
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_by_name() -> Result<()> {
    for db in db::both().await? {
        db.raw("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) SELECT 9999, 'later', success, checksum, 0 FROM _sqlx_migrations LIMIT 1").await?;
        let error = db.store.migrate().await.unwrap_err();
        assert!(error.to_string().contains("newer version of Tram"), "{error}");
    }
    Ok(())
}

/// Says where its cluster lies, and waits to be killed.
const KILLED: &str = "TRAM_TEST_IS_KILLED";

#[test]
fn a_killed_test_leaves_no_cluster_behind() -> Result<()> {
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Command, Stdio};
    if std::env::var_os(KILLED).is_some() {
        let cluster = db::Cluster::start()?;
        println!("\n{}", cluster.url());
        std::io::stdin().read_to_end(&mut Vec::new())?;
        return Ok(());
    }
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "a_killed_test_leaves_no_cluster_behind", "--nocapture"])
        .env(KILLED, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(child.stdout.take().ok_or_else(|| anyhow::anyhow!("no output"))?).lines();
    let place = lines.map_while(Result::ok).find_map(|l| l.split_once("host=").map(|(_, folder)| folder.to_owned()));
    let folder = std::path::PathBuf::from(place.ok_or_else(|| anyhow::anyhow!("no cluster"))?);
    assert!(folder.join("data/postmaster.pid").exists());
    child.kill()?;
    child.wait()?;
    tram_tests::screen::wait("its folder's end", || Ok((!folder.exists()).then_some(())))
}
