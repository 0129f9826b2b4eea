//! Signing in over HTTP, on both databases: what lets people in, and what does not.

use std::time::Duration;

use anyhow::Result;
use axum::http::{Method, StatusCode, header};
use serde_json::json;
use tram_controller::domain::access::Role;
use tram_tests::db;
use tram_tests::http::{COMMUNE, PASSWORD, TestApi};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_person_signs_in_is_known_and_signs_out() -> Result<()> {
    for db in db::both().await? {
        let api = TestApi::new(&db.store).await?;
        api.add_user("ngoc.lan", Role::Officer).await?;
        let mut browser = api.browser();
        assert_eq!(browser.get("/api/v1/me").await?.code(), "A-100");

        let answer = browser.log_in(" Ngoc.LAN ", PASSWORD).await?;
        assert_eq!(answer.status, StatusCode::OK);
        let cookie = answer.headers[header::SET_COOKIE].to_str()?;
        for part in ["HttpOnly", "Secure", "SameSite=Strict", "Path=/", "Max-Age=28800"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        let me = browser.get("/api/v1/me").await?;
        assert_eq!(me.json["user"]["username"], "ngoc.lan");
        assert_eq!(
            me.json["user"]["site"],
            json!({"code": COMMUNE, "name": "Phường Trúc Bạch", "district": "Quận Ba Đình"})
        );
        assert_eq!(me.json["csrf"], answer.json["csrf"]);

        let copy = browser.clone();
        assert_eq!(browser.send(Method::POST, "/api/v1/logout", None).await?.status, StatusCode::NO_CONTENT);
        assert_eq!(copy.get("/api/v1/me").await?.code(), "A-100", "the cookie is dead, not only forgotten");
        assert_eq!(api.browser().send(Method::POST, "/api/v1/logout", None).await?.status, StatusCode::NO_CONTENT);
    }
    Ok(())
}

#[tokio::test]
async fn the_database_keeps_no_secret() -> Result<()> {
    for db in db::both().await? {
        let api = TestApi::new(&db.store).await?;
        let browser = api.signed_in(Role::Operator).await?;
        let cookie = browser.cookie.clone().unwrap_or_default();
        // Both would find it: the text as it is, and in bytes.
        let hash = tram_controller::identity::secret::hash(&cookie);
        assert!(db.store.web_session(&hash).await?.is_some());
        let mut raw = [0_u8; 32];
        raw.copy_from_slice(&cookie.as_bytes()[..32]);
        assert!(db.store.web_session(&raw).await?.is_none());
    }
    Ok(())
}

#[tokio::test]
async fn five_wrong_passwords_lock_a_name_whether_or_not_it_exists() -> Result<()> {
    for db in db::both().await? {
        let api = TestApi::new(&db.store).await?;
        api.add_user("known", Role::Support).await?;
        for name in ["known", "nobody", "not a name at all!"] {
            let mut browser = api.browser();
            for left in (1..5).rev() {
                let answer = browser.log_in(name, "wrong").await?;
                assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "A-101"), "{name}");
                assert_eq!(answer.json["remaining"], left, "{name}");
            }
            let answer = browser.log_in(name, "wrong").await?;
            assert_eq!((answer.status, answer.code()), (StatusCode::LOCKED, "A-102"), "{name}");
            assert_eq!(answer.json["until"], "2016-11-15T05:15:00.000Z", "{name}");
            let answer = browser.log_in(name, PASSWORD).await?;
            assert_eq!(answer.code(), "A-102", "{name}: also the right one");
        }
        api.pass(15 * MINUTE);
        assert_eq!(api.browser().log_in("known", "wrong").await?.json["remaining"], 4, "counted anew");
        assert_eq!(api.browser().log_in("known", PASSWORD).await?.status, StatusCode::OK);
        assert_eq!(api.browser().log_in("known", "wrong").await?.json["remaining"], 4, "a success clears the count");
    }
    Ok(())
}

#[tokio::test]
async fn guesses_side_by_side_cannot_race_past_the_lock() -> Result<()> {
    for db in db::both().await? {
        let api = TestApi::new(&db.store).await?;
        api.add_user("known", Role::Support).await?;
        let guesses = (0..30).map(|n| {
            let mut browser = api.browser();
            // The right one among them comes late.
            let password = if n == 25 { PASSWORD } else { "wrong" };
            async move { browser.log_in("known", password).await }
        });
        let answers = futures_util::future::try_join_all(guesses).await?;
        let told = answers.iter().filter(|a| a.code() == "A-101").count();
        let locked = answers.iter().filter(|a| a.code() == "A-102").count();
        let inside = answers.iter().filter(|a| a.status == StatusCode::OK).count();
        assert_eq!(told + locked + inside, 30);
        // Once more than five only if the right one cleared the count in between.
        assert!(told <= 4 + 4 * inside, "{told} guesses were told wrong");
    }
    Ok(())
}

#[tokio::test]
async fn an_address_that_fails_too_often_must_wait() -> Result<()> {
    for db in db::both().await? {
        let api = TestApi::new(&db.store).await?;
        api.add_user("known", Role::Support).await?;
        let mut browser = api.browser();
        for n in 0..50 {
            assert_eq!(browser.log_in(&format!("guess{n}"), "wrong").await?.code(), "A-101");
        }
        let answer = browser.log_in("known", PASSWORD).await?;
        assert_eq!((answer.status, answer.code()), (StatusCode::LOCKED, "A-104"));
        let mut elsewhere = api.browser();
        elsewhere.ip = "192.0.2.8".into();
        assert_eq!(elsewhere.log_in("known", PASSWORD).await?.status, StatusCode::OK);
        api.pass(15 * MINUTE);
        assert_eq!(browser.log_in("known", PASSWORD).await?.status, StatusCode::OK);
    }
    Ok(())
}

#[tokio::test]
async fn a_sign_in_ends_when_idle_and_after_eight_hours() -> Result<()> {
    for db in db::both().await? {
        let api = TestApi::new(&db.store).await?;
        let idle = api.signed_in(Role::Support).await?;
        let busy = api.signed_in(Role::Support).await?;
        let mut minutes = 0;
        while minutes < 8 * 60 - 29 {
            api.pass(29 * MINUTE);
            minutes += 29;
            assert_eq!(busy.get("/api/v1/me").await?.status, StatusCode::OK, "after {minutes} minutes");
        }
        assert_eq!(idle.get("/api/v1/me").await?.code(), "A-100");
        api.pass((8 * 60 - minutes) * MINUTE);
        assert_eq!(busy.get("/api/v1/me").await?.code(), "A-100", "after eight hours");
    }
    Ok(())
}

#[tokio::test]
async fn switching_an_account_off_ends_its_sign_ins_at_once() -> Result<()> {
    for db in db::both().await? {
        let api = TestApi::new(&db.store).await?;
        let operator = api.signed_in(Role::Operator).await?;
        let id = api.add_user("leaver", Role::Officer).await?;
        let (one, two) = (api.sign_in("leaver").await?, api.sign_in("leaver").await?);
        let path = format!("/api/v1/users/{}", id.0);
        assert_eq!(operator.patch(&path, json!({"disabled": true})).await?.json["disabled"], true);
        for browser in [&one, &two] {
            assert_eq!(browser.get("/api/v1/me").await?.code(), "A-100");
        }
        let answer = api.browser().log_in("leaver", PASSWORD).await?;
        assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "A-109"));
        assert_eq!(api.browser().log_in("leaver", "wrong").await?.code(), "A-101", "told only with the right password");
        operator.patch(&path, json!({"disabled": false})).await?;
        assert_eq!(one.get("/api/v1/me").await?.code(), "A-100", "old cookies stay dead");
        api.sign_in("leaver").await?;
    }
    Ok(())
}

#[tokio::test]
async fn changes_need_the_header_and_our_own_page() -> Result<()> {
    let db = db::sqlite().await?;
    let api = TestApi::new(&db.store).await?;
    let good = api.signed_in(Role::Operator).await?;
    let change = json!({"language": "en"});

    let mut bent = good.clone();
    for csrf in [None, Some(String::new()), Some("x".repeat(43)), api.signed_in(Role::Operator).await?.csrf] {
        bent.csrf = csrf;
        let answer = bent.patch("/api/v1/me", change.clone()).await?;
        assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "A-107"), "{:?}", bent.csrf);
    }
    let mut bent = good.clone();
    for origin in ["https://evil.example", "null", "http://tram.test:8443", "https://tram.test", ""] {
        bent.origin = Some(origin.into());
        let answer = bent.patch("/api/v1/me", change.clone()).await?;
        assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "A-106"), "{origin}");
        assert_eq!(bent.log_in("somebody", "wrong").await?.code(), "A-106", "{origin}");
    }
    for (site, wanted) in [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)] {
        let request = axum::http::Request::builder()
            .method("PATCH")
            .uri("/api/v1/me")
            .header("cookie", format!("tram_session={}", good.cookie.as_deref().unwrap_or_default()))
            .header("x-tram-csrf", good.csrf.as_deref().unwrap_or_default())
            .header("sec-fetch-site", site)
            .header("content-type", "application/json")
            .body(change.to_string().into())?;
        assert_eq!(good.answer(request).await?.status.as_u16(), wanted, "{site}");
    }
    // A program without Origin is let in by cookie and header alone.
    let mut program = good.clone();
    program.origin = None;
    assert_eq!(program.patch("/api/v1/me", change).await?.json["language"], "en");
    Ok(())
}

#[tokio::test]
async fn bad_bodies_get_a_clear_answer() -> Result<()> {
    let db = db::sqlite().await?;
    let api = TestApi::new(&db.store).await?;
    let browser = api.browser();
    let post = |kind: &'static str, body: Vec<u8>| {
        let browser = browser.clone();
        async move { browser.send(Method::POST, "/api/v1/login", Some((kind, body))).await }
    };
    let json = "application/json";
    for (kind, body, status, code) in [
        (json, b"{".to_vec(), 400, "X-400"),
        (json, b"\xff\xfe".to_vec(), 400, "X-400"),
        (json, b"{}".to_vec(), 422, "X-422"),
        (json, br#"{"username":"a","password":"b","admin":true}"#.to_vec(), 422, "X-422"),
        (json, br#"{"username":["a"],"password":"b"}"#.to_vec(), 422, "X-422"),
        ("text/plain", b"{}".to_vec(), 415, "X-415"),
    ] {
        let answer = post(kind, body.clone()).await?;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (status, code),
            "{:?} {answer:?}",
            body.escape_ascii().to_string()
        );
    }
    let huge = post(json, vec![b' '; 9 << 20]).await?;
    assert_eq!((huge.status.as_u16(), huge.code()), (413, "X-413"), "{huge:?}");
    let long = br#"{"username":"x","password":""#.iter().copied().chain(std::iter::repeat_n(b'p', 1 << 20)).chain(*br#""}"#).collect();
    assert_eq!(post(json, long).await?.code(), "A-101");
    Ok(())
}

#[tokio::test]
async fn accounts_are_made_changed_and_listed() -> Result<()> {
    for db in db::both().await? {
        let api = TestApi::new(&db.store).await?;
        let operator = api.signed_in(Role::Operator).await?;
        let new = json!({"username": "Lan.Anh", "display_name": "Nguyễn Thị  Lan Anh", "role": "officer",
            "site_code": COMMUNE, "password": PASSWORD});
        let made = operator.post("/api/v1/users", new.clone()).await?;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
        assert_eq!(made.json["username"], "lan.anh");
        assert_eq!(made.json["display_name"], "Nguyễn Thị Lan Anh");
        assert_eq!(made.json["site"]["district"], "Quận Ba Đình");
        assert_eq!(operator.post("/api/v1/users", new).await?.code(), "U-109");
        let id = made.json["id"].as_str().unwrap_or_default().to_owned();

        for (q, found) in [("nguyen lan", 1), ("LAN.A", 1), ("ngu%", 1), ("%", 0), ("binh", 0)] {
            let path = format!("/api/v1/users?q={}", q.replace('%', "%25").replace(' ', "+"));
            let list = operator.get(&path).await?;
            assert_eq!(list.json["total"], found, "{q} {list:?}");
        }
        for n in 0..3 {
            api.add_user(&format!("page{n}"), Role::Support).await?;
        }
        let first = operator.get("/api/v1/users?limit=2&q=page").await?;
        assert_eq!((&first.json["total"], &first.json["next"]), (&json!(3), &json!("page1")));
        let second = operator.get("/api/v1/users?limit=2&q=page&cursor=page1").await?;
        assert_eq!(second.json["items"][0]["username"], "page2");
        assert_eq!(second.json["next"], json!(null));

        let path = format!("/api/v1/users/{id}");
        let lan = api.sign_in("lan.anh").await?;
        let word = "chợ Đồng Xuân đông vui";
        assert_eq!(operator.patch(&path, json!({"password": word})).await?.status, StatusCode::OK);
        assert_eq!(lan.get("/api/v1/me").await?.code(), "A-100", "a new password ends old sign-ins");
        assert_eq!(api.browser().log_in("lan.anh", word).await?.status, StatusCode::OK);
        let moved = operator.patch(&path, json!({"role": "support", "site_code": null})).await?;
        assert_eq!((&moved.json["role"], &moved.json["site"]), (&json!("support"), &json!(null)));
    }
    Ok(())
}

#[tokio::test]
async fn every_fault_of_an_account_is_named() -> Result<()> {
    let db = db::sqlite().await?;
    let api = TestApi::new(&db.store).await?;
    let operator = api.signed_in(Role::Operator).await?;
    let bad = json!({"username": "a<b", "display_name": "x\n", "role": "officer", "password": "short"});
    let answer = operator.post("/api/v1/users", bad).await?;
    assert_eq!((answer.status, answer.code()), (StatusCode::UNPROCESSABLE_ENTITY, "U-100"));
    let at: Vec<_> =
        answer.json["errors"].as_array().into_iter().flatten().map(|e| e["at"].as_str().unwrap_or_default()).collect();
    assert_eq!(at, ["username", "display_name", "password", "site_code"]);

    for (role, site) in [("officer", "001"), ("officer", "99999"), ("operator", COMMUNE), ("support", "' OR 1=1")] {
        let body =
            json!({"username": "abc", "display_name": "x", "role": role, "site_code": site, "password": PASSWORD});
        let answer = operator.post("/api/v1/users", body).await?;
        assert_eq!(answer.code(), "U-104", "{role} {site} {answer:?}");
    }
    for (name, word) in [("ngoclan", "ngoclan12345"), ("abc", "matkhau12345"), ("abc", "11111111111111")] {
        let body = json!({"username": name, "display_name": "x", "role": "support", "password": word});
        assert_eq!(operator.post("/api/v1/users", body).await?.code(), "U-103", "{word}");
    }
    let own = operator.get("/api/v1/me").await?.json["user"]["id"].as_str().unwrap_or_default().to_owned();
    for body in [json!({"disabled": true}), json!({"role": "support"})] {
        assert_eq!(operator.patch(&format!("/api/v1/users/{own}"), body).await?.code(), "U-105");
    }
    let nobody = operator.patch(&format!("/api/v1/users/{}", uuid::Uuid::nil()), json!({})).await?;
    assert_eq!(nobody.code(), "U-404");
    Ok(())
}

#[tokio::test]
async fn people_change_their_own_password_only_with_the_present_one() -> Result<()> {
    let db = db::sqlite().await?;
    let api = TestApi::new(&db.store).await?;
    api.add_user("lan", Role::Officer).await?;
    let (here, there) = (api.sign_in("lan").await?, api.sign_in("lan").await?);
    let word = "chợ Đồng Xuân đông vui";
    for present in ["", "wrong"] {
        let body = json!({"password": present, "new_password": word});
        assert_eq!(here.patch("/api/v1/me", body).await?.code(), "U-106");
    }
    let weak = json!({"password": PASSWORD, "new_password": "short"});
    assert_eq!(here.patch("/api/v1/me", weak).await?.code(), "U-103");
    let good = json!({"password": PASSWORD, "new_password": word});
    assert_eq!(here.patch("/api/v1/me", good).await?.status, StatusCode::OK);
    assert_eq!(here.get("/api/v1/me").await?.status, StatusCode::OK, "this browser stays");
    assert_eq!(there.get("/api/v1/me").await?.code(), "A-100", "others do not");
    assert_eq!(api.browser().log_in("lan", PASSWORD).await?.code(), "A-101");
    Ok(())
}
