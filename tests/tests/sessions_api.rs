//! `/connect` and `/sessions` as a browser sees them.

use anyhow::Result;
use axum::http::StatusCode;
use serde_json::json;
use tram_controller::domain::access::Role;
use tram_controller::domain::ticket::Binding;
use tram_controller::services::broker;
use tram_tests::db;
use tram_tests::http::TestApi;
use tram_tests::office::{Office, Plan};

#[tokio::test]
async fn an_officer_connects_and_others_are_told_no() -> Result<()> {
    for db in db::both().await? {
        let api = TestApi::new(&db.store).await?;
        let office = Office::build(&db.store, api.app().clock.clone(), Plan { officers: 0, ..Plan::default() }).await?;
        for name in ["lan", "minh"] {
            api.add_user(name, Role::Officer).await?;
        }
        let nobody = api.browser();
        assert_eq!(nobody.post("/api/v1/connect", json!({})).await?.status, StatusCode::UNAUTHORIZED);
        assert_eq!(nobody.get("/api/v1/sessions").await?.status, StatusCode::UNAUTHORIZED);
        let operator = api.signed_in(Role::Operator).await?;
        let no = operator.post("/api/v1/connect", json!({})).await?;
        assert_eq!((no.status, no.code()), (StatusCode::FORBIDDEN, "A-105"));

        let lan = api.sign_in("lan").await?;
        let yes = lan.post("/api/v1/connect", json!({})).await?;
        assert_eq!(yes.status, StatusCode::OK, "{yes:?}");
        let session = &yes.json["session"];
        assert_eq!(session["state"], "ready");
        assert_eq!(session["user"]["username"], "lan");
        assert_eq!(session["desktop"]["state"], "running");
        assert!(session["step"].is_null());
        let ticket = &yes.json["ticket"];
        assert_eq!(ticket["url"], "wss://tram.test:8443/gateway/v1/vnc");
        assert_eq!(ticket["expires_in"], 30);
        assert!(ticket["ticket"].as_str().is_some_and(|t| t.starts_with(broker::TICKET_PREFIX)));

        let path = format!("/api/v1/sessions/{}", session["id"].as_str().unwrap_or_default());
        let minh = api.sign_in("minh").await?;
        for stranger in
            [minh.get(&path).await?, minh.delete(&path).await?, minh.post(&format!("{path}/ticket"), json!({})).await?]
        {
            assert_eq!((stranger.status, stranger.code()), (StatusCode::NOT_FOUND, "S-404"));
        }
        assert_eq!(minh.get("/api/v1/sessions").await?.json["total"], 0);
        assert_eq!(operator.get("/api/v1/sessions?live=true&limit=1").await?.json["total"], 1);
        let wrong = operator.get("/api/v1/sessions?limit=0").await?;
        assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);

        // Bound to the sign-in it was issued to, and void when that ends.
        let fresh = lan.post(&format!("{path}/ticket"), json!({})).await?;
        let text = fresh.json["ticket"].as_str().unwrap_or_default().to_owned();
        assert!(broker::redeem(api.app(), &text, &Binding::Browser([0; 32]), None).await?.is_none());
        lan.post("/api/v1/logout", json!({})).await?;
        assert_eq!(office.count("SELECT COUNT(*) FROM tickets WHERE redeemed_at IS NOT NULL").await?, 0);
        assert_eq!(operator.get(&path).await?.json["state"], "ready", "signing out alone ends no session");

        assert_eq!(operator.delete(&path).await?.status, StatusCode::NO_CONTENT);
        let lan = api.sign_in("lan").await?;
        let over = lan.post(&format!("{path}/ticket"), json!({})).await?;
        assert_eq!((over.status, over.code()), (StatusCode::CONFLICT, "S-105"));
        assert_eq!(lan.get(&path).await?.json["end_reason"], "staff");
    }
    Ok(())
}

#[tokio::test]
async fn a_site_without_room_is_told_so() -> Result<()> {
    for db in db::both().await? {
        let api = TestApi::new(&db.store).await?;
        api.add_user("lan", Role::Officer).await?;
        let lan = api.sign_in("lan").await?;
        let none = lan.post("/api/v1/connect", json!({})).await?;
        assert_eq!((none.status, none.code()), (StatusCode::INSUFFICIENT_STORAGE, "S-101"));
        let office =
            Office::build(&db.store, api.app().clock.clone(), Plan { desktops: 1, officers: 0, ..Plan::default() })
                .await?;
        office.sql("UPDATE desktops SET state = 'booting'").await?;
        let wait = lan.post("/api/v1/connect", json!({})).await?;
        assert_eq!(wait.json["session"]["state"], "starting");
        assert_eq!(wait.json["session"]["step"]["code"], "booting");
        assert!(wait.json["session"]["step"]["estimate_s"].as_u64().is_some_and(|s| s > 0));
        assert!(wait.json.get("ticket").is_none());
        let path = format!("/api/v1/sessions/{}/ticket", wait.json["session"]["id"].as_str().unwrap_or_default());
        let early = lan.post(&path, json!({})).await?;
        assert_eq!((early.status, early.code()), (StatusCode::CONFLICT, "S-104"));
    }
    Ok(())
}
