//! The tree of sites on both databases: import, days, search.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, anyhow};
use axum::http::{Method, StatusCode};
use serde_json::Value;
use tram_controller::domain::access::Role;
use tram_controller::services::sites::HANOI_2016;
use tram_tests::db;
use tram_tests::http::{Browser, TestApi};

async fn import(browser: &Browser<'_>, query: &str, csv: &str) -> Result<tram_tests::http::Answer> {
    browser
        .send(Method::POST, &format!("/api/v1/sites/import?{query}"), Some(("text/csv", csv.as_bytes().to_vec())))
        .await
}

async fn codes(browser: &Browser<'_>, query: &str) -> Result<Vec<String>> {
    let answer = browser.get(&format!("/api/v1/sites?{query}")).await?;
    let items = answer.json["items"].as_array().ok_or_else(|| anyhow!("{answer:?}"))?;
    Ok(items.iter().map(|s| s["code"].as_str().unwrap_or_default().to_owned()).collect())
}

#[tokio::test]
async fn hanoi_is_imported_once_and_found_in_any_spelling() -> Result<()> {
    for db in db::both().await? {
        let api = TestApi::new(&db.store).await?;
        db.raw("DELETE FROM sites").await?;
        let operator = api.signed_in(Role::Operator).await?;
        assert_eq!(import(&operator, "dry_run=true", HANOI_2016).await?.json["created"], 615);
        assert_eq!(codes(&operator, "").await?.len(), 0, "a dry run writes nothing");
        assert_eq!(import(&operator, "", HANOI_2016).await?.json["created"], 615);
        let again = import(&operator, "", HANOI_2016).await?;
        assert_eq!((&again.json["created"], &again.json["unchanged"]), (&0.into(), &615.into()));

        assert_eq!(codes(&operator, "level=commune&q=minh+khai").await?, ["00295", "00613", "09838"]);
        assert_eq!(codes(&operator, "q=minh+khai+b%E1%BA%AFc+t%E1%BB%AB").await?, ["00613"], "by the district");
        for q in ["x%C3%A3%20c%E1%BB%95%20loa", "CO%20LOA", "co%CC%89%20loa%20dong"] {
            assert_eq!(codes(&operator, &format!("q={q}")).await?.len(), 1, "{q}");
        }
        let one = operator.get("/api/v1/sites/00613").await?;
        assert_eq!(one.json["district"]["name"], "Quận Bắc Từ Liêm");
        assert_eq!(operator.get("/api/v1/sites/99999").await?.code(), "S-214");
    }
    Ok(())
}

#[tokio::test]
async fn names_that_repeat_show_their_district_and_a_citys_kind_finds_not_all_of_it() -> Result<()> {
    for db in db::both().await? {
        let api = TestApi::new(&db.store).await?;
        db.raw("DELETE FROM sites").await?;
        let operator = api.signed_in(Role::Operator).await?;
        import(&operator, "", HANOI_2016).await?;
        let all = operator.get("/api/v1/sites?level=commune&limit=1000").await?;
        let mut by_name: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for site in all.json["items"].as_array().into_iter().flatten() {
            by_name.entry(site["short_name"].as_str().unwrap_or_default()).or_default().push(site);
        }
        let repeated: Vec<_> = by_name.iter().filter(|(_, sites)| sites.len() > 1).collect();
        assert_eq!(repeated.len(), 25, "{:?}", by_name.len());
        for (name, sites) in repeated {
            let shown: BTreeSet<(&str, &str)> = sites
                .iter()
                .map(|s| (s["name"].as_str().unwrap_or_default(), s["district"]["name"].as_str().unwrap_or_default()))
                .collect();
            assert!(shown.iter().all(|(_, district)| !district.is_empty()), "{name}: {shown:?}");
            assert_eq!(shown.len(), sites.len(), "{name}: two of them look alike: {shown:?}");
        }

        // A word of a name, not of what the city is called: Thành Công, Trung Thành, La Thành and the city itself.
        let found = operator.get("/api/v1/sites?q=th%C3%A0nh&limit=1000").await?;
        for site in found.json["items"].as_array().into_iter().flatten() {
            let words = format!("{} {} {}", site["name"], site["alt_name"], site["district"]["name"]).to_lowercase();
            let word = ["thành", "thanh", "thạnh", "thánh"].iter().any(|w| words.contains(w));
            assert!(word, "{site}");
        }
        assert!(found.json["total"].as_i64().is_some_and(|n| (2..100).contains(&n)), "{}", found.json["total"]);
        assert_eq!(codes(&operator, "q=th%C3%A0nh+ph%E1%BB%91").await?, ["01"], "the city by its kind");
        assert_eq!(codes(&operator, "level=commune&q=co+loa+ha+noi").await?.len(), 1, "by the city's name");
        assert_eq!(codes(&operator, "q=minh+khai+quan+bac").await?, ["00613"], "a district's kind still helps");
    }
    Ok(())
}

/// Each row as one commune of a good list, changed by `bend`.
fn bent(bend: impl Fn(&str) -> String) -> Vec<u8> {
    let mut lines = HANOI_2016.lines().take(2);
    let (header, row) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    format!("{header}\n{}\n", bend(row)).into_bytes()
}

#[tokio::test]
async fn what_spreadsheets_write_is_read_and_what_they_break_is_named() -> Result<()> {
    let db = db::sqlite().await?;
    let api = TestApi::new(&db.store).await?;
    db.raw("DELETE FROM sites").await?;
    let operator = api.signed_in(Role::Operator).await?;
    let send = async |csv: Vec<u8>, query: &str| {
        operator.send(Method::POST, &format!("/api/v1/sites/import?{query}"), Some(("text/csv", csv))).await
    };
    let plain = String::from_utf8(bent(str::to_owned))?;
    let quoted: String = plain
        .lines()
        .map(|l| l.split(',').map(|f| format!("\"{f}\"")).collect::<Vec<_>>().join(",") + "\r\n")
        .collect();
    for (what, good) in [
        ("as it is", plain.clone().into_bytes()),
        ("a byte order mark", [b"\xef\xbb\xbf", plain.as_bytes()].concat()),
        ("CRLF", plain.replace('\n', "\r\n").into_bytes()),
        ("everything quoted, CRLF, a mark", [b"\xef\xbb\xbf", quoted.as_bytes()].concat()),
        ("no newline at the end", plain.trim_end().as_bytes().to_vec()),
        ("decomposed letters", plain.replace('ú', "u\u{301}").into_bytes()),
    ] {
        let answer = send(good, "dry_run=true").await?;
        assert_eq!((answer.status, &answer.json["created"]), (StatusCode::OK, &3.into()), "{what}: {answer:?}");
    }
    let name = "Phúc Xá";
    let utf16 = |order: fn(u16) -> [u8; 2]| plain.encode_utf16().flat_map(order).collect::<Vec<u8>>();
    for (what, bad, code) in [
        ("UTF-16 with a mark", [&[0xff, 0xfe][..], &utf16(u16::to_le_bytes)].concat(), "S-201"),
        ("UTF-16, the other way", [&[0xfe, 0xff][..], &utf16(u16::to_be_bytes)].concat(), "S-201"),
        ("UTF-16 without one", utf16(u16::to_le_bytes), "S-201"),
        ("NUL", bent(|r| r.replacen(name, "Phúc\0Xá", 1)), "S-206"),
        ("an escape", bent(|r| r.replacen(name, "Phúc\u{1b}[31mXá", 1)), "S-206"),
        ("a right-to-left override", bent(|r| r.replacen(name, "Phúc \u{202e}Xá", 1)), "S-206"),
        ("a newline inside quotes", bent(|r| r.replacen("Phường Phúc Xá", "\"Phường\nPhúc Xá\"", 1)), "S-206"),
        ("101 characters", bent(|r| r.replacen(name, &"ạ".repeat(101), 1)), "S-206"),
        ("10 kB", bent(|r| r.replacen(name, &"x".repeat(10_240), 1)), "S-206"),
        ("a quotation mark left open", bent(|r| r.replacen("Phường Phúc Xá", "\"Phường Phúc Xá", 1)), "S-203"),
        ("semicolons", plain.replace(',', ";").into_bytes(), "S-204"),
        ("a path for a code", bent(|r| r.replacen("00001", "../01", 1)), "S-205"),
    ] {
        let answer = send(bad, "").await?;
        assert_eq!((answer.status, answer.code()), (StatusCode::UNPROCESSABLE_ENTITY, "S-200"), "{what}: {answer:?}");
        let told: Vec<&str> =
            answer.json["errors"].as_array().into_iter().flatten().filter_map(|e| e["code"].as_str()).collect();
        assert!(told.contains(&code), "{what}: {answer:?}");
        assert!(!String::from_utf8_lossy(&answer.bytes).contains("\u{1b}"), "{what}: echoed as it is");
    }
    assert_eq!(codes(&operator, "").await?.len(), 0, "nothing of it was imported");
    Ok(())
}

#[tokio::test]
async fn a_later_list_closes_the_old_row_and_opens_a_new_one() -> Result<()> {
    for db in db::both().await? {
        let api = TestApi::new(&db.store).await?;
        db.raw("DELETE FROM sites").await?;
        let operator = api.signed_in(Role::Operator).await?;
        import(&operator, "", HANOI_2016).await?;
        let renamed = HANOI_2016.replace("Xã Cổ Loa,Cổ Loa", "Xã Âu Lạc,Âu Lạc");
        assert_ne!(renamed, HANOI_2016);
        let fewer: String = renamed.lines().filter(|l| !l.contains(",00004,")).map(|l| format!("{l}\n")).collect();
        let answer = import(&operator, "valid_from=2020-03-01", &fewer).await?;
        assert_eq!(answer.json["updated"], 1, "{answer:?}");
        assert_eq!(answer.json["missing"], serde_json::json!(["00004"]));
        assert_eq!(codes(&operator, "q=au+lac&at=2020-02-29").await?.len(), 0);
        assert_eq!(codes(&operator, "q=au+lac&at=2020-03-01").await?.len(), 1);
        assert_eq!(codes(&operator, "q=co+loa&at=2020-02-29").await?.len(), 1);
        assert_eq!(operator.get("/api/v1/sites/00004?at=2021-01-01").await?.status, StatusCode::OK);
        let closing = import(&operator, "valid_from=2020-03-01&close_missing=true", &fewer).await?;
        assert_eq!((&closing.json["closed"], &closing.json["unchanged"]), (&1.into(), &614.into()));
        assert_eq!(operator.get("/api/v1/sites/00004?at=2021-01-01").await?.code(), "S-214");
        assert_eq!(import(&operator, "", HANOI_2016).await?.json["unchanged"], 615, "2016 stays as it was");
    }
    Ok(())
}

#[tokio::test]
async fn every_fault_is_told_by_line_and_nothing_imported() -> Result<()> {
    let db = db::sqlite().await?;
    let api = TestApi::new(&db.store).await?;
    db.raw("DELETE FROM sites").await?;
    let operator = api.signed_in(Role::Operator).await?;
    let mut lines: Vec<Vec<u8>> = HANOI_2016.lines().take(9).map(|l| l.as_bytes().to_vec()).collect();
    let line = |old: &[u8], from: &str, to: &str| String::from_utf8_lossy(old).replace(from, to).into_bytes();
    lines[2] = lines[1].clone();
    lines[3] = [lines[3].clone(), b"\xff".to_vec()].concat();
    lines[4] = line(&lines[4], "Quận Ba Đình", "Quận Ba Vì");
    lines[5] = line(&lines[5], "001,Quận Ba Đình,quận", "777,,");
    lines[6] = line(&lines[6], ",phường,", ",làng,");
    lines[7] = line(&lines[7], ",urban,", ",3,");
    lines[8] = b"01,too,few".to_vec();
    let csv = lines.join(&b'\n');
    let answer = operator.send(Method::POST, "/api/v1/sites/import", Some(("text/csv", csv))).await?;
    assert_eq!((answer.status, answer.code()), (StatusCode::UNPROCESSABLE_ENTITY, "S-200"), "{answer:?}");
    let told: Vec<(String, String)> = answer.json["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|e| (e["at"].as_str().unwrap_or_default().into(), e["code"].as_str().unwrap_or_default().into()))
        .collect();
    let wanted = [
        ("3", "S-210"),
        ("4", "S-201"),
        ("5", "S-211"),
        ("6", "S-212"),
        ("7", "S-208"),
        ("8", "S-209"),
        ("9", "S-203"),
    ];
    assert_eq!(told, wanted.map(|(l, c)| (l.to_owned(), c.to_owned())));
    let header = HANOI_2016.replace("commune_type", "kind");
    assert_eq!(import(&operator, "", &header).await?.json["errors"].as_array().map(Vec::len), Some(2));
    assert_eq!(codes(&operator, "").await?.len(), 0);
    Ok(())
}

#[tokio::test]
async fn what_a_line_carries_is_set_one_by_one_or_by_a_list_that_holds_together() -> Result<()> {
    for db in db::both().await? {
        let api = TestApi::new(&db.store).await?;
        db.raw("DELETE FROM sites").await?;
        let operator = api.signed_in(Role::Operator).await?;
        import(&operator, "", HANOI_2016).await?;
        let put = |code: &str, body: &str| {
            let (path, body) = (format!("/api/v1/sites/{code}/line"), body.as_bytes().to_vec());
            let operator = &operator;
            async move { operator.send(Method::PUT, &path, Some(("application/json", body))).await }
        };
        let set = put("00004", r#"{"down_kbit": 8000}"#).await?;
        assert_eq!((&set.json["line"]["down_kbit"], &set.json["line"]["budget_kbit"]), (&8000.into(), &6800.into()));
        for (code, body, status, fault) in [
            ("00004", r#"{"down_kbit": 63}"#, StatusCode::UNPROCESSABLE_ENTITY, "S-213"),
            ("00004", r#"{"down_kbit": -1}"#, StatusCode::UNPROCESSABLE_ENTITY, "X-422"),
            ("00004", r#"{"kbit": 8000}"#, StatusCode::UNPROCESSABLE_ENTITY, "X-422"),
            ("99999", r#"{"down_kbit": 8000}"#, StatusCode::NOT_FOUND, "S-214"),
        ] {
            let answer = put(code, body).await?;
            assert_eq!((answer.status, answer.code()), (status, fault), "{body}");
        }
        let list = |query: &str, csv: &str| {
            let (path, csv) = (format!("/api/v1/sites/lines?{query}"), csv.as_bytes().to_vec());
            let operator = &operator;
            async move { operator.send(Method::POST, &path, Some(("text/csv", csv))).await }
        };
        let wrong = list("", "site_code,down_kbit\n00006,4000\n99999,4000\n").await?;
        assert_eq!((wrong.code(), &wrong.json["errors"][0]["at"]), ("S-200", &"3".into()), "{wrong:?}");
        assert!(operator.get("/api/v1/sites/00006").await?.json["line"]["down_kbit"].is_null(), "nothing of it");
        let good = "site_code,down_kbit\n00006,4000\n00004,\n";
        assert_eq!(list("dry_run=true", good).await?.json["changed"], 2);
        assert_eq!(operator.get("/api/v1/sites/00004").await?.json["line"]["down_kbit"], 8000, "only tried");
        assert_eq!(list("", good).await?.json["changed"], 2);
        assert_eq!(list("", good).await?.json["changed"], 0);
        assert!(operator.get("/api/v1/sites/00004").await?.json["line"]["budget_kbit"].is_null());
        assert_eq!(operator.get("/api/v1/sites?q=00006").await?.json["items"][0]["line"]["down_kbit"], 4000);
        let support = api.signed_in(Role::Support).await?;
        let body = Some(("application/json", br#"{"down_kbit": 1000}"#.to_vec()));
        assert_eq!(support.send(Method::PUT, "/api/v1/sites/00004/line", body).await?.status, StatusCode::FORBIDDEN);
        let audit = operator.get("/api/v1/audit?limit=10").await?.json.to_string();
        assert!(audit.contains("site.line"), "{audit}");
    }
    Ok(())
}
