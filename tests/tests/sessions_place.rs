//! A session that is open at one place is moved to another only when its officer says so.

use anyhow::Result;
use axum::http::StatusCode;
use serde_json::json;
use tram_controller::domain::access::Role;
use tram_controller::domain::session::SessionState;
use tram_controller::domain::ticket::{Binding, Place};
use tram_controller::identity::secret;
use tram_controller::services::broker::{self, Ticket};
use tram_controller::services::{App, Error};
use tram_tests::db;
use tram_tests::http::{PASSWORD, TestApi};
use tram_tests::office::{Office, Plan, noon};
use uuid::Uuid;

/// A viewer comes through the door with its ticket.
async fn enter(app: &App, ticket: Option<Ticket>, here: &Binding) -> i64 {
    let text = ticket.expect("a ticket").secret;
    let opened = broker::redeem(app, text.reveal(), here, None).await.unwrap().expect("good");
    broker::attached(app, opened.session_id, Uuid::now_v7(), "192.0.2.1").await.unwrap().unwrap()
}

#[tokio::test]
async fn another_place_is_asked_first_and_the_same_one_is_not() -> Result<()> {
    for db in db::both().await? {
        let office = Office::build(&db.store, noon(), Plan::default()).await?;
        let (app, me, browser) = (&office.app, office.officer(0), Office::browser(0));
        let (desk, other) = (office.add_endpoint("may-01").await?, office.add_endpoint("may-02").await?);
        let (view, ticket) = broker::connect(app, &me, &desk).await?;
        // Nobody looks at it yet: there is nobody to ask.
        broker::connect(app, &me, &browser).await?;
        let (_, again) = broker::connect(app, &me, &desk).await?;
        assert!(broker::redeem(app, ticket.unwrap().secret.reveal(), &desk, None).await?.is_none());
        assert_eq!(enter(app, again, &desk).await, 1);

        for place in [&browser, &other] {
            for asked in [
                broker::connect(app, &me, place).await.err(),
                broker::ticket(app, &me, view.session.id, place).await.err(),
            ] {
                let Some(Error::Elsewhere(e)) = asked else { panic!("{asked:?}") };
                assert_eq!((e.place, e.name.as_deref(), e.since), (Place::Endpoint, Some("may-01"), app.clock.now()));
            }
        }
        // The same endpoint with a renewed certificate is the same endpoint.
        let renewed = Binding::Endpoint { id: desk.endpoint().unwrap(), certificate: [7; 32] };
        broker::connect(app, &me, &renewed).await?;
        assert_eq!(office.count("SELECT COUNT(*) FROM audit WHERE action = 'session.take_over'").await?, 0);

        let (moved, ticket) = broker::take_over(app, &me, &browser).await?;
        assert_eq!(moved.session.id, view.session.id);
        assert_eq!(enter(app, ticket, &browser).await, 2, "a newer connection: the old one is cut");
        assert_eq!(office.count("SELECT COUNT(*) FROM audit WHERE action = 'session.take_over'").await?, 1);
        let Err(Error::Elsewhere(e)) = broker::connect(app, &me, &desk).await else { panic!("not asked") };
        assert_eq!((e.place, e.name), (Place::Browser, None));
        // Once nobody looks any more, whoever comes is welcome.
        broker::detached(app, view.session.id, 2, 0, 0, app.clock.now()).await?;
        let (back, _) = broker::connect(app, &me, &desk).await?;
        assert_eq!(back.state, SessionState::Disconnected);
    }
    Ok(())
}

#[tokio::test]
async fn a_browser_that_signs_in_again_is_the_same_browser() -> Result<()> {
    for db in db::both().await? {
        let api = TestApi::new(&db.store).await?;
        Office::build(&db.store, api.app().clock.clone(), Plan { officers: 0, ..Plan::default() }).await?;
        api.add_user("lan", Role::Officer).await?;
        let mut lan = api.sign_in("lan").await?;
        let first = lan.post("/api/v1/connect", json!({})).await?;
        let ticket = first.json["ticket"]["ticket"].as_str().unwrap_or_default().to_owned();
        let here = Binding::Browser(secret::hash(lan.cookie.as_deref().unwrap_or_default()));
        let opened = broker::redeem(api.app(), &ticket, &here, None).await?.expect("good");
        broker::attached(api.app(), opened.session_id, Uuid::now_v7(), "").await?.unwrap();

        let elsewhere = api.sign_in("lan").await?;
        let asked = elsewhere.post("/api/v1/connect", json!({})).await?;
        assert_eq!((asked.status, asked.code()), (StatusCode::CONFLICT, "S-106"));
        assert_eq!(asked.json["elsewhere"]["kind"], "browser");
        assert!(asked.json["elsewhere"]["since"].is_string());
        assert!(!asked.json.to_string().contains("127.0.0.1"), "no address is told");
        // The first browser's sign-in ran out; it signs in anew with the old cookie still in its jar.
        assert_eq!(lan.log_in("lan", PASSWORD).await?.status, StatusCode::OK);
        assert_eq!(lan.post("/api/v1/connect", json!({})).await?.status, StatusCode::OK);
        let moved = elsewhere.post("/api/v1/connect", json!({"take_over": true})).await?;
        assert_eq!(moved.status, StatusCode::OK);
        assert!(moved.json["ticket"]["ticket"].is_string());
        let wrong = elsewhere.post("/api/v1/connect", json!({"takeover": true})).await?;
        assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
        // Signing out leaves the line, too.
        assert_eq!(elsewhere.post("/api/v1/logout", json!({})).await?.status, StatusCode::NO_CONTENT);
    }
    Ok(())
}
