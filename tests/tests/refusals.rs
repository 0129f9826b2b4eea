//! What no handler ever sees is refused as everything else is: with a problem and a code, at every address of the API.

use anyhow::Result;
use axum::http::Method;
use tram_controller::api::router::openapi;
use tram_controller::domain::access::Role;
use tram_tests::db;
use tram_tests::http::TestApi;

#[tokio::test]
async fn nonsense_is_refused_with_a_code_at_every_address() -> Result<()> {
    let db = db::sqlite().await?;
    let api = TestApi::new(&db.store).await?;
    let operator = api.signed_in(Role::Operator).await?;
    let (mut asked, mut refused) = (0, 0);
    for (path, item) in openapi().paths.paths {
        let methods = [
            (Method::GET, &item.get),
            (Method::PUT, &item.put),
            (Method::POST, &item.post),
            (Method::PATCH, &item.patch),
            (Method::DELETE, &item.delete),
        ];
        for (method, operation) in methods.into_iter().filter_map(|(m, o)| Some((m, o.as_ref()?))) {
            // The one would end our own sign-in, the other answers for ever.
            if path.ends_with("/logout") || path.ends_with("/events") {
                continue;
            }
            let mut address = path.clone();
            while let (Some(from), Some(to)) = (address.find('{'), address.find('}')) {
                address.replace_range(from..=to, "%E2%80%AEzz");
            }
            let query = if method == Method::GET { "?limit=-1&at=x&decided=%00" } else { "" };
            let body = operation.request_body.is_some().then(|| ("application/json", b"[[[[".to_vec()));
            let answer = operator.send(method.clone(), &format!("{address}{query}"), body).await?;
            asked += 1;
            if !answer.status.is_success() {
                refused += 1;
                let code = answer.code();
                let right = code.len() == 5 && code.as_bytes()[1] == b'-';
                assert!(answer.status.is_client_error() && right, "{method} {address}: {answer:?}");
            }
        }
        let none = operator.send(Method::TRACE, &path.replace(['{', '}'], ""), None).await?;
        assert_eq!(none.code(), "X-405", "{path}: {none:?}");
    }
    for nowhere in ["/api/v1/nothing", "/api/v2/sites"] {
        let answer = operator.get(nowhere).await?;
        assert_eq!(answer.status.as_u16(), 404, "{nowhere}: {answer:?}");
        assert!(answer.code().starts_with("X-"), "{nowhere}: {answer:?}");
    }
    let long = format!("{{\"{}\":1}}", "k".repeat(100_000)).into_bytes();
    let long = operator.send(Method::POST, "/api/v1/endpoint-tokens", Some(("application/json", long))).await?;
    assert_eq!(long.code(), "X-422");
    assert!(
        long.json.to_string().len() < 1000 && long.json["detail"].to_string().contains("kkk"),
        "what was sent, in part"
    );
    assert!(asked > 100 && refused > asked / 2, "{refused} of {asked}");
    Ok(())
}
