//! JSON to a program, by POST: webhooks and SMS gateways.

use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode, header};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use ring::hmac;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use super::NotifyError;

/// What of an answer is read at most.
const ANSWER_MOST: usize = 4096;

/// Posts JSON. `token` is sent as bearer; with `key` the body is signed: `x-tram-signature: sha256=…`.
pub(super) async fn post(
    url: &str,
    body: &Value,
    token: Option<&str>,
    key: Option<&str>,
    ca: Option<&Path>,
) -> Result<(), NotifyError> {
    let body = body.to_string();
    let mut request =
        Request::post(url).header(header::CONTENT_TYPE, "application/json").header(header::USER_AGENT, "tram");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    if let Some(key) = key {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), body.as_bytes());
        let hex: String = tag.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        request = request.header("x-tram-signature", format!("sha256={hex}"));
    }
    let request = request
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| NotifyError::Permanent(format!("{url} is no address: {e}")))?;
    // Plain HTTP only where a test or a gateway on this machine is meant: the target's rule refuses it for webhooks.
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls(ca)?).https_or_http().enable_http1().build();
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let answer = client
        .request(request)
        .await
        .map_err(|e| NotifyError::Retry(format!("{url} can't be reached: {}", chain(&e))))?;
    let status = answer.status();
    let said = Limited::new(answer.into_body(), ANSWER_MOST).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    if status.is_success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said);
    let why =
        format!("{url} answers {status}: {}", said.chars().filter(|c| !c.is_control()).take(200).collect::<String>());
    // Redirects are not followed: who may be told is configured.
    let later =
        status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    Err(if later { NotifyError::Retry(why) } else { NotifyError::Permanent(why) })
}

/// All causes of an error in a line: the outermost says only that it failed.
fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(e) = source {
        text = format!("{text}: {e}");
        source = e.source();
    }
    text
}

fn tls(ca: Option<&Path>) -> Result<ClientConfig, NotifyError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(file) = ca {
        let wrong = |e: String| NotifyError::Permanent(format!("notify.ca {} can't be used: {e}", file.display()));
        for certificate in CertificateDer::pem_file_iter(file).map_err(|e| wrong(e.to_string()))? {
            roots.add(certificate.map_err(|e| wrong(e.to_string()))?).map_err(|e| wrong(e.to_string()))?;
        }
    }
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| NotifyError::Permanent(e.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
