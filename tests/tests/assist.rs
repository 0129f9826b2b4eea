//! Support looks at an officer's session: who may, with what consent, until when; and what is written down.

use anyhow::{Context, Result};
use axum::http::StatusCode;
use serde_json::{Value, json};
use tram_controller::domain::access::Role;
use tram_controller::domain::policy::PoolPolicy;
use tram_controller::domain::ticket::Binding;
use tram_controller::identity::secret;
use tram_controller::reconcile::session_reaper;
use tram_controller::services::{Ctx, assists, broker, pools};
use tram_controller::store::assists::Opened;
use tram_tests::db::{self, TestDb};
use tram_tests::http::{Browser, DISTRICT, TestApi};
use tram_tests::office::{Office, Plan};
use tram_wire::ids::SessionId;
use uuid::Uuid;

/// An officer who works in a session, and support that may look at it.
struct Desk<'a> {
    api: &'a TestApi,
    office: Office,
    lan: Browser<'a>,
    mai: Browser<'a>,
    session: SessionId,
    path: String,
}

async fn api(db: &TestDb) -> Result<TestApi> {
    let api = TestApi::new(&db.store).await?;
    api.add_user("lan", Role::Officer).await?;
    api.add_user("minh", Role::Officer).await?;
    api.add_user_at("mai", Role::Support, Some(DISTRICT)).await?;
    api.add_user_at("binh", Role::Support, Some(DISTRICT)).await?;
    api.add_user_at("far", Role::Support, Some("017")).await?;
    Ok(api)
}

impl<'a> Desk<'a> {
    async fn open(db: &TestDb, api: &'a TestApi, consent: Value) -> Result<Self> {
        let clock = api.app().clock.clone();
        let office = Office::build(&db.store, clock, Plan { officers: 0, ..Plan::default() }).await?;
        let policy: PoolPolicy = serde_json::from_value(json!({"assist": consent}))?;
        pools::set_policy(api.app(), &Ctx::local_admin(api.app().clock.now()), office.pool, policy).await?;
        let (lan, mai) = (api.sign_in("lan").await?, api.sign_in("mai").await?);
        let connected = lan.post("/api/v1/connect", json!({})).await?.json;
        let session: SessionId = connected["session"]["id"].as_str().context("no session")?.parse()?;
        let path = format!("/api/v1/sessions/{session}/assists");
        let ticket = connected["ticket"]["ticket"].as_str().context("no ticket")?;
        let opened = broker::redeem(api.app(), ticket, &Binding::Browser(cookie(&lan)), None).await?;
        broker::attached(api.app(), opened.context("good")?.session_id, Uuid::now_v7(), "").await?.ok();
        Ok(Self { api, office, lan, mai, session, path })
    }

    async fn ask(&self) -> Result<Value> {
        let asked = self.mai.post(&self.path, json!({"reason": "the printer does nothing"})).await?;
        anyhow::ensure!(asked.status == StatusCode::OK, "{asked:?}");
        Ok(asked.json)
    }

    async fn answer(&self, by: &Browser<'_>, assist: &Value, question: &str, allow: bool) -> Result<(u16, String)> {
        let body = json!({"assist": assist["id"], "question": question, "allow": allow});
        let got = by.post(&format!("{}/answer", self.path), body).await?;
        Ok((got.status.as_u16(), got.code().to_owned()))
    }

    async fn ticket(&self) -> Result<String> {
        let got = self.mai.post(&format!("{}/ticket", self.path), json!({})).await?;
        anyhow::ensure!(got.status == StatusCode::OK, "{got:?}");
        assert!(got.json["url"].as_str().is_some_and(|u| u.ends_with("/gateway/v1/assist")), "{got:?}");
        Ok(got.json["ticket"].as_str().context("no ticket")?.to_owned())
    }

    /// The supporter's viewer comes through the door.
    async fn begin(&self) -> Result<Opened> {
        let ticket = self.ticket().await?;
        let opened = assists::redeem(self.api.app(), &ticket, &cookie(&self.mai)).await?.context("a good ticket")?;
        anyhow::ensure!(assists::began(self.api.app(), &opened, Uuid::now_v7(), "192.0.2.9").await?);
        Ok(opened)
    }

    /// The latest assist as the officer finds it.
    async fn latest(&self) -> Result<Value> {
        Ok(self.lan.get(&self.path).await?.json["items"][0].clone())
    }

    async fn audited(&self, action: &str) -> Result<i64> {
        self.office.count(&format!("SELECT COUNT(*) FROM audit WHERE action = '{action}'")).await
    }
}

fn cookie(b: &Browser<'_>) -> [u8; 32] {
    secret::hash(b.cookie.as_deref().unwrap_or_default())
}

#[tokio::test]
async fn an_officer_is_asked_and_every_step_is_written_down() -> Result<()> {
    for db in db::both().await? {
        let api = api(&db).await?;
        let desk = Desk::open(&db, &api, json!("ask")).await?;
        let asked = desk.ask().await?;
        assert_eq!(
            (&asked["state"], &asked["consent"], &asked["control"]),
            (&json!("asked"), &json!("ask"), &json!("none"))
        );
        let early = desk.mai.post(&format!("{}/ticket", desk.path), json!({})).await?;
        assert_eq!((early.status, early.code()), (StatusCode::CONFLICT, "S-113"), "nobody has said yes");
        let shown = desk.lan.get(&format!("/api/v1/sessions/{}", desk.session)).await?.json["assist"].clone();
        assert_eq!(shown["supporter"]["username"], "mai");
        assert_eq!(shown["reason"], "the printer does nothing");

        let (minh, binh) = (api.sign_in("minh").await?, api.sign_in("binh").await?);
        assert_eq!(desk.answer(&minh, &asked, "watch", true).await?.0, 404, "not their session");
        assert_eq!(desk.answer(&desk.mai, &asked, "watch", true).await?.0, 403, "nobody allows it to themselves");
        let other = json!({"id": Uuid::nil()});
        assert_eq!(desk.answer(&desk.lan, &other, "watch", true).await?, (409, "S-112".into()), "another assist");
        assert_eq!(desk.answer(&desk.lan, &asked, "control", true).await?, (409, "S-112".into()), "not asked yet");
        assert_eq!(desk.answer(&desk.lan, &asked, "watch", true).await?.0, 200);
        assert_eq!(desk.answer(&desk.lan, &asked, "watch", true).await?, (409, "S-112".into()), "once only");
        let second = binh.post(&desk.path, json!({"reason": "me, too"})).await?;
        assert_eq!((second.status, second.code()), (StatusCode::CONFLICT, "S-111"));
        assert_eq!(binh.post(&format!("{}/ticket", desk.path), json!({})).await?.code(), "S-113", "not theirs");

        desk.begin().await?;
        assert_eq!(desk.latest().await?["state"], "active");
        assert_eq!(
            broker::get(api.app(), &Ctx::local_admin(api.app().clock.now()), desk.session).await?.state.as_str(),
            "active"
        );
        let control = desk.mai.post(&format!("{}/control", desk.path), json!({})).await?.json;
        assert_eq!(control["control"], "asked");
        assert_eq!(desk.answer(&desk.lan, &asked, "control", false).await?.0, 200);
        desk.mai.post(&format!("{}/control", desk.path), json!({})).await?;
        assert_eq!(desk.answer(&desk.lan, &asked, "control", true).await?.0, 200);
        assert_eq!(desk.latest().await?["control"], "granted");

        assert_eq!(desk.lan.delete(&desk.path).await?.status, StatusCode::NO_CONTENT);
        assert_eq!(desk.lan.delete(&desk.path).await?.status, StatusCode::NO_CONTENT, "twice is no fault");
        let over = desk.latest().await?;
        assert_eq!(
            (&over["state"], &over["end_reason"], &over["ended_by"]),
            (&json!("ended"), &json!("officer"), &json!("lan"))
        );
        for (action, rows) in [
            ("assist.ask", 1),
            ("assist.allow", 1),
            ("assist.begin", 1),
            ("assist.control_ask", 2),
            ("assist.control_refuse", 1),
            ("assist.control_grant", 1),
            ("assist.end", 1),
        ] {
            assert_eq!(desk.audited(action).await?, rows, "{action}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn no_answer_is_a_no_and_so_is_a_late_one() -> Result<()> {
    for db in db::both().await? {
        let api = api(&db).await?;
        let desk = Desk::open(&db, &api, Value::Null).await?;
        let asked = desk.ask().await?;
        assert_eq!(asked["consent"], "ask", "unless the pool says otherwise");
        assert_eq!(assists::reap(api.app()).await?, 0);
        desk.office.sql("UPDATE assists SET due_at = due_at - 31000000").await?;
        assert_eq!(desk.answer(&desk.lan, &asked, "watch", true).await?, (409, "S-112".into()));
        assert_eq!((assists::reap(api.app()).await?, assists::reap(api.app()).await?), (1, 0));
        let over = desk.latest().await?;
        assert_eq!((&over["end_reason"], &over["ended_by"]), (&json!("expired"), &json!("system")));
        assert_eq!(desk.audited("assist.expire").await?, 1);

        // An answer for the one before is none for the next.
        let next = desk.ask().await?;
        assert_eq!(desk.answer(&desk.lan, &asked, "watch", true).await?, (409, "S-112".into()));
        assert_eq!(desk.answer(&desk.lan, &next, "watch", false).await?.0, 200);
        assert_eq!(desk.latest().await?["end_reason"], "refused");
        assert_eq!(desk.audited("assist.refuse").await?, 1);

        // Nor is a late word for control one for it.
        let third = desk.ask().await?;
        desk.answer(&desk.lan, &third, "watch", true).await?;
        desk.begin().await?;
        desk.mai.post(&format!("{}/control", desk.path), json!({})).await?;
        desk.office
            .sql("UPDATE assists SET control_due_at = control_due_at - 31000000 WHERE control = 'asked'")
            .await?;
        assert_eq!(desk.answer(&desk.lan, &third, "control", true).await?, (409, "S-112".into()));
        assert!(assists::standings(api.app()).await?.iter().all(|(_, over, control)| over.is_none() && !control));
    }
    Ok(())
}

#[tokio::test]
async fn a_ticket_opens_one_look_once_for_the_sign_in_that_asked() -> Result<()> {
    for db in db::both().await? {
        let api = api(&db).await?;
        let desk = Desk::open(&db, &api, json!("notify")).await?;
        desk.ask().await?;
        let app = api.app();
        let here = cookie(&desk.mai);
        let first = desk.ticket().await?;
        let second = desk.ticket().await?;
        assert!(second.starts_with(assists::TICKET_PREFIX));
        assert!(assists::redeem(app, &first, &here).await?.is_none(), "a newer one was issued");
        let elsewhere = api.sign_in("mai").await?;
        assert!(assists::redeem(app, &second, &cookie(&elsewhere)).await?.is_none(), "another sign-in of theirs");
        assert!(assists::redeem(app, &second, &cookie(&desk.lan)).await?.is_none(), "the officer's");
        // Neither kind is good for the other, even with the other's cookie.
        for proved in [&desk.mai, &desk.lan] {
            assert!(broker::redeem(app, &second, &Binding::Browser(cookie(proved)), None).await?.is_none());
        }
        let session = desk.lan.post(&format!("/api/v1/sessions/{}/ticket", desk.session), json!({})).await?;
        let session = session.json["ticket"].as_str().context("a ticket")?.to_owned();
        assert!(assists::redeem(app, &session, &here).await?.is_none());
        let opened = assists::redeem(app, &second, &here).await?.context("good")?;
        assert_eq!((opened.session, desk.office.desktops.contains(&opened.desktop)), (desk.session, true));
        assert!(assists::redeem(app, &second, &here).await?.is_none(), "once");
        assert_eq!(assists::note_refusal(app, &second, "192.0.2.9").await?, "redeemed");
        assert_eq!(desk.audited("assist.ticket_refuse").await?, 1);
        let old = desk.ticket().await?;
        desk.office
            .sql("UPDATE assist_tickets SET issued_at = issued_at - 31000000, expires_at = expires_at - 31000000")
            .await?;
        assert!(assists::redeem(app, &old, &here).await?.is_none(), "31 s old");
        // The officer's own session went on all the time, with its own ticket unspent.
        assert!(broker::redeem(app, &session, &Binding::Browser(cookie(&desk.lan)), None).await?.is_some());
        desk.lan.delete(&desk.path).await?;
        assert!(!assists::began(app, &opened, Uuid::now_v7(), "").await?, "stopped between the door and the picture");
    }
    Ok(())
}

#[tokio::test]
async fn whoever_may_not_look_any_more_does_not() -> Result<()> {
    for db in db::both().await? {
        let api = api(&db).await?;
        let mut desk = Desk::open(&db, &api, json!("none")).await?;
        let app = api.app();
        for (how, why) in [
            ("UPDATE users SET disabled = TRUE WHERE username = 'mai'", "not_allowed"),
            ("UPDATE users SET role = 'officer' WHERE username = 'mai'", "not_allowed"),
            ("UPDATE users SET site_code = '017' WHERE username = 'mai'", "not_allowed"),
            ("DELETE FROM gateways", "gateway_lost"),
            ("UPDATE assists SET due_at = due_at - 3601000000 WHERE state = 'active'", "longest"),
            ("DELETE FROM web_sessions WHERE user_id IN (SELECT id FROM users WHERE username = 'mai')", "not_allowed"),
        ] {
            desk.ask().await?;
            desk.begin().await?;
            assert!(assists::standings(app).await?.iter().all(|(_, over, _)| over.is_none()));
            desk.office.sql(how).await?;
            let over = assists::standings(app).await?[0].1.context("over")?;
            assert_eq!(over.as_str(), why, "{how}");
            assert_eq!(assists::reap(app).await?, 1);
            assert_eq!(desk.latest().await?["end_reason"], why);
            desk.office
                .sql("UPDATE users SET disabled = FALSE, role = 'support', site_code = '001' WHERE username = 'mai'")
                .await?;
        }
        desk.mai = api.sign_in("mai").await?;
        // What is allowed and not begun ends the same ways; the end of the session is one.
        desk.ask().await?;
        let ticket = desk.ticket().await?;
        desk.lan.delete(&format!("/api/v1/sessions/{}", desk.session)).await?;
        assert!(assists::redeem(app, &ticket, &cookie(&desk.mai)).await?.is_none());
        session_reaper::pass(app).await?;
        assert_eq!(desk.latest().await?["end_reason"], "session_over");
        let over = desk.mai.post(&desk.path, json!({"reason": "again"})).await?;
        assert_eq!((over.status, over.code()), (StatusCode::CONFLICT, "S-110"));
    }
    Ok(())
}

#[tokio::test]
async fn the_policy_says_what_the_officer_says() -> Result<()> {
    for db in db::both().await? {
        let api = api(&db).await?;
        let desk = Desk::open(&db, &api, json!("notify")).await?;
        let far = api.sign_in("far").await?;
        assert_eq!(
            far.post(&desk.path, json!({"reason": "x"})).await?.status,
            StatusCode::NOT_FOUND,
            "another district"
        );
        for reason in [" ", "two\nlines", &"x".repeat(201)] {
            let refused = desk.mai.post(&desk.path, json!({"reason": reason})).await?;
            assert_eq!((refused.status, refused.code()), (StatusCode::UNPROCESSABLE_ENTITY, "S-114"));
        }
        assert_eq!(desk.ask().await?["state"], "allowed", "they are told");
        desk.begin().await?;
        let control = desk.mai.post(&format!("{}/control", desk.path), json!({})).await?.json;
        assert_eq!(control["control"], "asked", "being told is not enough to lose one's mouse");
        desk.mai.delete(&desk.path).await?;
        assert_eq!(desk.latest().await?["end_reason"], "supporter");

        // A screen that shows no mark: there an officer is asked where a browser only tells.
        desk.office.sql("UPDATE sessions SET holder_kind = 'endpoint'").await?;
        assert_eq!(desk.ask().await?["state"], "asked");
        let operator = api.signed_in(Role::Operator).await?;
        operator.delete(&desk.path).await?;
        assert_eq!(desk.latest().await?["end_reason"], "staff");
    }
    Ok(())
}
