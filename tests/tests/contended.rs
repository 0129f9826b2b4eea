//! Requests whose transactions meet others in PostgreSQL.

use anyhow::{Result, bail};
use axum::http::StatusCode;
use tram_controller::domain::access::Role;
use tram_controller::services::TRIES;
use tram_controller::store::Db;
use tram_tests::db::{self, TestDb};
use tram_tests::http::{PASSWORD, TestApi};

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
