//! Requests whose transactions meet others in PostgreSQL, and connections that are ready for the morning's first ones.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use axum::http::StatusCode;
use tram_controller::clock::Clock;
use tram_controller::domain::access::Role;
use tram_controller::nudge::Bus;
use tram_controller::services::{TRIES, broker};
use tram_controller::store::{Db, Store};
use tram_tests::db::{self, TestDb};
use tram_tests::http::{PASSWORD, TestApi};
use tram_tests::office::{Office, Plan};

/// From now on the first so many sign-ins meet another transaction. A sequence goes on counting when a
/// transaction is broken off.
async fn meets(db: &TestDb, times: usize) -> Result<()> {
    db.raw(&format!(
        "CREATE SEQUENCE met;
         CREATE FUNCTION meet() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF nextval('met') <= {times} THEN
                 RAISE EXCEPTION 'deadlock detected' USING ERRCODE = 'deadlock_detected';
             END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER meet BEFORE INSERT ON web_sessions FOR EACH ROW EXECUTE FUNCTION meet();"
    ))
    .await
}

async fn number(db: &TestDb, sql: &'static str) -> Result<i64> {
    let Db::Postgres(pool) = db.store.db() else { bail!("only PostgreSQL has deadlocks") };
    Ok(sqlx::query_scalar(sql).fetch_one(pool).await?)
}

#[tokio::test]
async fn a_request_that_meets_another_is_made_again_unseen() -> Result<()> {
    let db = db::postgres().await?;
    let api = TestApi::new(&db.store).await?;
    api.add_user("ngoc.lan", Role::Officer).await?;
    meets(&db, TRIES).await?;
    let mut browser = api.browser();
    assert_eq!(browser.log_in("ngoc.lan", PASSWORD).await?.status, StatusCode::OK);
    assert_eq!(browser.get("/api/v1/me").await?.status, StatusCode::OK);
    assert_eq!(number(&db, "SELECT last_value FROM met").await?, i64::try_from(TRIES)? + 1);
    assert_eq!(number(&db, "SELECT count(*) FROM web_sessions").await?, 1);
    Ok(())
}

#[tokio::test]
async fn one_that_never_gets_through_is_told_so_and_changes_nothing() -> Result<()> {
    let db = db::postgres().await?;
    let api = TestApi::new(&db.store).await?;
    api.add_user("ngoc.lan", Role::Officer).await?;
    meets(&db, usize::from(u16::MAX)).await?;
    let answer = api.browser().log_in("ngoc.lan", PASSWORD).await?;
    assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "X-504"));
    assert!(answer.headers.contains_key("retry-after"));
    assert_eq!(number(&db, "SELECT last_value FROM met").await?, i64::try_from(TRIES)? + 1, "it is not tried for ever");
    assert_eq!(number(&db, "SELECT count(*) FROM web_sessions").await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_servers_connections_know_the_way_in_before_anybody_comes() -> Result<()> {
    let db = db::postgres().await?;
    let store = Store::open_to_serve(&db.url, Bus::default()).await?;
    let Db::Postgres(pool) = store.db() else { bail!("this is PostgreSQL") };
    assert_eq!(pool.size(), 8);
    let office = Office::build(&store, Clock::system(), Plan::default()).await?;
    store.warm().await?;
    // The pool takes a connection back some time after it was let go.
    tokio::time::timeout(Duration::from_secs(30), async {
        while pool.num_idle() < 8 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await?;
    let (mut all, mut know) = (Vec::new(), 0);
    while pool.num_idle() > 0 {
        all.push(pool.acquire().await?);
    }
    for one in &mut all {
        let known: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM pg_prepared_statements").fetch_one(&mut **one).await?;
        know += usize::from(known >= 10);
    }
    ensure!(know >= 8, "{know} of {} know the way in", all.len());
    drop(all);
    // It held nothing and changed nothing.
    assert_eq!(office.count("SELECT COUNT(*) FROM desktops WHERE assigned_user IS NOT NULL").await?, 0);
    let (_, ticket) = broker::connect(&office.app, &office.officer(0), &Office::browser(0)).await?;
    ensure!(ticket.is_some());
    Ok(())
}
