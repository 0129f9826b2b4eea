//! The door: what is checked of a request before anything is opened for it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use metrics::counter;
use serde_json::json;

use crate::domain::ticket::Binding;
use crate::identity::secret;

/// Connections of one address that are not through their handshake. Whole districts sit behind one.
const HALF_OPEN_LIMIT: u32 = 32;

/// A refusal, answered before the upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not a WebSocket request, or without the sub-protocol.
    NotWebSocket,
    /// From another site's page.
    Origin,
    /// The ticket opens nothing, whatever the reason.
    Ticket,
    /// Too many unfinished handshakes from this address.
    HalfOpen,
    /// The database can't be asked, or the gateway is about to stop.
    Unavailable,
}

impl Refusal {
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Ticket => (
                StatusCode::FORBIDDEN,
                "G-101",
                "this ticket does not open a display; go back to your desktop page, it asks for a new one",
            ),
            Self::Origin => {
                (StatusCode::FORBIDDEN, "G-102", "displays are opened only from this controller's own pages")
            }
            Self::HalfOpen => (
                StatusCode::TOO_MANY_REQUESTS,
                "G-103",
                "too many displays are being opened from your address; wait a few seconds",
            ),
            Self::NotWebSocket => (
                StatusCode::BAD_REQUEST,
                "G-104",
                "this address speaks WebSocket (version 13) with the sub-protocols `binary` and a ticket",
            ),
            Self::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "G-503", "the gateway can't open displays now; try again in a moment")
            }
        }
    }

    /// The same for an officer who sees this answer itself, without a page around it.
    fn in_vietnamese(self) -> &'static str {
        match self {
            Self::Ticket => {
                "Vé kết nối này không mở được màn hình. Anh/chị hãy quay lại trang máy trạm ảo để nhận vé mới."
            }
            Self::Origin => "Màn hình chỉ mở được từ trang của hệ thống này.",
            Self::HalfOpen => "Có quá nhiều kết nối đang được mở từ địa chỉ này. Xin đợi vài giây.",
            Self::NotWebSocket => "Địa chỉ này chỉ dành cho trình xem màn hình.",
            Self::Unavailable => {
                "Cổng kết nối tạm thời chưa nhận kết nối mới. Phiên đang mở vẫn chạy. Xin thử lại sau giây lát."
            }
        }
    }

    /// The answer. The same for every reason of one kind.
    #[must_use]
    pub fn response(self) -> Response<Body> {
        let (status, code, detail) = self.parts();
        counter!("gateway_refused_total", "code" => code).increment(1);
        let problem = json!({
            "type": "about:blank", "title": status.canonical_reason(), "status": status.as_u16(), "code": code,
            "detail": detail, "detail_vi": self.in_vietnamese(),
        });
        let mut response = Response::new(Body::from(problem.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self == Self::NotWebSocket {
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        response
    }
}

/// What a good request carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knock {
    /// Answers `Sec-WebSocket-Key`.
    pub accept: String,
    /// The presented ticket, whatever it is.
    pub ticket: String,
    /// The sign-in cookie the browser sent along.
    pub cookie: Option<String>,
}

impl Knock {
    /// What the browser proved. Without a cookie that is the hash of none, which no sign-in has.
    #[must_use]
    pub fn proved(&self) -> Binding {
        Binding::Browser(self.cookie.as_deref().map_or([0; 32], secret::hash))
    }
}

/// Reads a request's headers.
///
/// # Errors
/// [`Refusal::NotWebSocket`] or [`Refusal::Origin`].
pub fn knock(h: &HeaderMap, public_url: &str) -> Result<Knock, Refusal> {
    let has = |name: HeaderName, wanted: &str| list(h, &name).any(|v| v.eq_ignore_ascii_case(wanted));
    let key = h.get(header::SEC_WEBSOCKET_KEY).filter(|k| k.len() == 24);
    let version = h.get(header::SEC_WEBSOCKET_VERSION).is_some_and(|v| v == "13");
    let upgrade = has(header::UPGRADE, "websocket") && has(header::CONNECTION, "upgrade");
    let (true, true, Some(key)) = (upgrade, version, key) else { return Err(Refusal::NotWebSocket) };
    if !from_here(h, public_url) {
        return Err(Refusal::Origin);
    }
    let mut offered = list(h, &header::SEC_WEBSOCKET_PROTOCOL);
    if !offered.any(|p| p == "binary") {
        return Err(Refusal::NotWebSocket);
    }
    let ticket = offered.next().unwrap_or_default().to_owned();
    let cookies = h.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    let mut pairs = cookies.flat_map(|v| v.split(';')).filter_map(|p| p.trim().split_once('='));
    let cookie = pairs.find(|(name, _)| *name == "tram_session").map(|(_, v)| v.to_owned());
    Ok(Knock { accept: accept_key(key.as_bytes()), ticket, cookie })
}

fn accept_key(key: &[u8]) -> String {
    tokio_tungstenite::tungstenite::handshake::derive_accept_key(key)
}

/// The values of a header that is a list.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(str::trim)
}

/// Whether the page that opened this is ours: of the public address, or of the one it was asked at.
fn from_here(headers: &HeaderMap, public_url: &str) -> bool {
    let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    let (Some(origin), scheme) = (text(header::ORIGIN), public_url.split("://").next().unwrap_or("https")) else {
        return false;
    };
    origin == public_url || text(header::HOST).is_some_and(|host| origin.split_once("://") == Some((scheme, host)))
}

/// Counts unfinished handshakes by address.
#[derive(Clone, Debug, Default)]
pub struct HalfOpen(Arc<Mutex<HashMap<IpAddr, u32>>>);

/// One of them, until dropped.
#[derive(Debug)]
pub struct Slot(HalfOpen, IpAddr);

impl HalfOpen {
    /// Counts one more.
    ///
    /// # Errors
    /// [`Refusal::HalfOpen`].
    pub fn enter(&self, from: IpAddr) -> Result<Slot, Refusal> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let n = map.entry(from).or_default();
        if *n >= HALF_OPEN_LIMIT {
            return Err(Refusal::HalfOpen);
        }
        *n += 1;
        Ok(Slot(self.clone(), from))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut map = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = map.get_mut(&self.1) {
            *n -= 1;
            if *n == 0 {
                map.remove(&self.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://tram.example";

    fn head(change: &[(&str, &str)]) -> HeaderMap {
        let mut headers = vec![
            ("host", "10.0.0.1:8443"),
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("origin", "https://tram.example"),
            ("sec-websocket-protocol", "binary, vdt1_x"),
            ("cookie", "a=b; tram_session=secret"),
        ];
        for (name, value) in change {
            headers.retain(|(n, _)| n != name);
            if !value.is_empty() {
                headers.push((name, value));
            }
        }
        headers.into_iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse().unwrap())).collect()
    }

    #[test]
    fn a_good_request_is_understood() {
        let k = knock(&head(&[]), URL).unwrap();
        // The key and its answer are the example of RFC 6455.
        assert_eq!(k.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!((k.ticket.as_str(), k.cookie.as_deref()), ("vdt1_x", Some("secret")));
        assert!(knock(&head(&[("origin", "https://10.0.0.1:8443")]), URL).is_ok(), "by the address it was asked at");
        assert_eq!(knock(&head(&[("sec-websocket-protocol", "binary")]), URL).unwrap().ticket, "");
    }

    #[test]
    fn other_origins_are_refused() {
        for origin in [
            "",
            "null",
            "https://evil.example",
            "http://tram.example",
            "http://10.0.0.1:8443",
            "https://10.0.0.1",
            "https://tram.example.evil",
            "https://tram.example/",
        ] {
            assert_eq!(knock(&head(&[("origin", origin)]), URL), Err(Refusal::Origin), "{origin}");
        }
    }

    #[test]
    fn what_is_no_websocket_is_refused() {
        for change in [
            ("connection", "close"),
            ("upgrade", "h2c"),
            ("sec-websocket-version", "8"),
            ("sec-websocket-key", "short"),
            ("sec-websocket-protocol", "chat"),
            ("sec-websocket-protocol", ""),
        ] {
            assert_eq!(knock(&head(&[change]), URL), Err(Refusal::NotWebSocket), "{change:?}");
        }
    }

    #[test]
    fn one_address_can_not_hold_the_door() {
        let door = HalfOpen::default();
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut slots: Vec<_> = (0..HALF_OPEN_LIMIT).map(|_| door.enter(a).unwrap()).collect();
        assert_eq!(door.enter(a).unwrap_err(), Refusal::HalfOpen);
        assert!(door.enter(b).is_ok(), "others are not kept out");
        slots.pop();
        assert!(door.enter(a).is_ok());
        drop(slots);
        assert!(door.0.lock().unwrap().is_empty());
    }
}
