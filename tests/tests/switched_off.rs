//! A person is signed out or switched off while things of theirs are open: pages that follow changes, a
//! viewer, and a ticket on its way.

use std::time::Duration;

use anyhow::{Result, ensure};
use axum::body::BodyDataStream;
use axum::http::StatusCode;
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::timeout;
use tram_controller::domain::access::Role;
use tram_controller::domain::session::Policy;
use tram_controller::services::users::{self, UserChange};
use tram_controller::services::{Ctx, sign_in};
use tram_tests::db;
use tram_tests::gate::Gate;
use tram_tests::http::{DISTRICT, TestApi};
use tram_tests::office::Plan;

/// It is a matter of five seconds; a busy machine may take longer to look.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for the end of a stream.
async fn ends(mut stream: BodyDataStream) -> Result<()> {
    Ok(timeout(PATIENCE, async { while stream.next().await.is_some() {} }).await?)
}

#[tokio::test]
async fn a_stream_of_changes_ends_with_its_sign_in() -> Result<()> {
    for db in db::both().await? {
        let api = TestApi::new(&db.store).await?;
        let operator = api.signed_in(Role::Operator).await?;
        let off = api.add_user_at("off", Role::Support, Some(DISTRICT)).await?;
        api.add_user_at("out", Role::Support, Some(DISTRICT)).await?;
        let (switched, leaving) = (api.sign_in("off").await?, api.sign_in("out").await?);
        let streams = [switched.follow().await?, leaving.follow().await?];
        let mut other = operator.follow().await?;
        let changed = operator.patch(&format!("/api/v1/users/{}", off.0), json!({"disabled": true})).await?;
        ensure!(changed.status == StatusCode::OK, "{changed:?}");
        leaving.post("/api/v1/logout", json!({})).await?;
        for stream in streams {
            ends(stream).await?;
        }
        // Whoever still works keeps theirs: it has looked as often as the others, and says nothing.
        let more = timeout(Duration::from_secs(1), other.next()).await;
        assert!(!matches!(more, Ok(None)), "the operator's stream ended too");
        // Nor does an open page keep a sign-in alive that nobody uses.
        api.pass(Duration::from_secs(31 * 60));
        ends(other).await?;
    }
    Ok(())
}

#[tokio::test]
async fn looking_again_sees_what_changed_of_a_persons_sites() -> Result<()> {
    for db in db::both().await? {
        let api = TestApi::new(&db.store).await?;
        let id = api.add_user_at("moving", Role::Support, Some(DISTRICT)).await?;
        let browser = api.sign_in("moving").await?;
        let cookie = browser.cookie.unwrap_or_default();
        let visit = sign_in::visit(api.app(), "192.0.2.7", &cookie).await?;
        assert!(visit.ctx.caller.scope().covers(DISTRICT));
        let change = UserChange { site_code: Some(Some("017".into())), ..UserChange::default() };
        users::change(api.app(), &Ctx::local_admin(api.app().clock.now()), id, &change).await?;
        let visit = sign_in::still(api.app(), &visit).await?;
        assert!(!visit.ctx.caller.scope().covers(DISTRICT) && visit.ctx.caller.scope().covers("017"));
    }
    Ok(())
}

#[tokio::test]
async fn a_viewer_is_cut_and_a_ticket_on_its_way_opens_nothing() -> Result<()> {
    for db in db::both().await? {
        let plan = Plan { desktops: 2, officers: 2, ..Plan::default() };
        let gate = Gate::open(&db.store, plan, "picture", Policy::default()).await?;
        let app = &gate.office.app;
        let (_, mut viewer) = gate.view(0).await?;
        let (_, ticket) = gate.ticket(1).await?;
        for (user, _) in &gate.office.officers {
            let change = UserChange { disabled: Some(true), ..UserChange::default() };
            users::change(app, &Ctx::local_admin(app.clock.now()), *user, &change).await?;
        }
        assert!(gate.knock(&ticket).await.is_err(), "a ticket is no better than its owner");
        assert_eq!(timeout(PATIENCE, viewer.closed()).await??, 4000);
        // On again: what was refused stays refused, for the sign-in it belonged to has ended.
        for (user, _) in &gate.office.officers {
            let change = UserChange { disabled: Some(false), ..UserChange::default() };
            users::change(app, &Ctx::local_admin(app.clock.now()), *user, &change).await?;
        }
        assert!(gate.knock(&ticket).await.is_err());
    }
    Ok(())
}
