//! From a request to a [`Ctx`] and a checked body.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, OptionalFromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use serde::de::DeserializeOwned;

use super::Api;
use super::error::{ApiError, Problem};
use crate::identity::secret;
use crate::services::sign_in::{self, Visit};
use crate::services::{Ctx, Error};

/// The session cookie.
pub const COOKIE: &str = "tram_session";
/// What changes must carry besides the cookie.
pub const CSRF_HEADER: &str = "x-tram-csrf";

/// A signed-in caller: cookie, and for changes the Origin and CSRF header, were found good.
pub struct Signed(pub Ctx);

/// Like [`Signed`], for what needs the sign-in itself.
pub struct Visitor(pub Visit);

/// A change that no foreign page caused; for signing in, when there is no cookie yet.
pub struct OwnPage;

/// The session cookie a browser sent, good or not; empty if it has none.
pub struct Former(pub String);

/// The address a request came from; empty if it did not come over a network.
pub struct Peer(pub String);

impl FromRequestParts<Api> for Signed {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let Visitor(visit) = <Visitor as FromRequestParts<Api>>::from_request_parts(parts, api).await?;
        Ok(Self(visit.ctx))
    }
}

impl FromRequestParts<Api> for Visitor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let token = cookie(&parts.headers).unwrap_or_default().to_owned();
        let visit = sign_in::visit(&api.app, &peer(parts), &token).await?;
        if changes(&parts.method) {
            check_origin(parts, &api.app.public_url)?;
            let given = parts.headers.get(CSRF_HEADER).map_or(&[][..], |v| v.as_bytes());
            if !secret::same(given, visit.csrf.as_bytes()) {
                return Err(
                    forbidden("A-107", "the request lacks this sign-in's x-tram-csrf header; reload the page").into()
                );
            }
        }
        Ok(Self(visit))
    }
}

impl OptionalFromRequestParts<Api> for Visitor {
    type Rejection = ApiError;

    /// `None` without a good sign-in; a good one must still prove that its own page sent the request.
    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Option<Self>, ApiError> {
        match <Self as FromRequestParts<Api>>::from_request_parts(parts, api).await {
            Ok(visitor) => Ok(Some(visitor)),
            Err(ApiError(Error::Unauthenticated(..))) => Ok(None),
            Err(other) => Err(other),
        }
    }
}

impl FromRequestParts<Api> for OwnPage {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        check_origin(parts, &api.app.public_url)?;
        Ok(Self)
    }
}

impl FromRequestParts<Api> for Former {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _api: &Api) -> Result<Self, ApiError> {
        Ok(Self(cookie(&parts.headers).unwrap_or_default().to_owned()))
    }
}

impl FromRequestParts<Api> for Peer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _api: &Api) -> Result<Self, ApiError> {
        Ok(Self(peer(parts)))
    }
}

fn peer(parts: &Parts) -> String {
    let address = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    // One spelling for an IPv4 client, whichever kind of socket accepted it.
    address.map_or_else(String::new, |ConnectInfo(a)| a.ip().to_canonical().to_string())
}

/// The session token of the first session cookie.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(';')).find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

fn changes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// A browser says which page sent a change (`Origin`, `Sec-Fetch-Site`): it must be one of ours. A program
/// that is no browser says neither, and brings no cookie that somebody else's page could ride on.
fn check_origin(parts: &Parts, public_url: &str) -> Result<(), Error> {
    let text = |name: &str| parts.headers.get(name).map(|v| v.to_str().unwrap_or("?"));
    let good = match (text("origin"), text("sec-fetch-site")) {
        (Some(origin), _) => is_own_origin(origin, public_url, host(&parts.headers, &parts.uri)),
        (None, Some(site)) => matches!(site, "same-origin" | "none"),
        (None, None) => true,
    };
    if good { Ok(()) } else { Err(forbidden("A-106", "the request was sent by a page of another address")) }
}

/// Our own address is the configured one, or the very one the browser connected to: a browser does not let
/// a page choose `Host`, and a foreign name that resolves to us fails at our certificate.
pub(crate) fn is_own_origin(origin: &str, public_url: &str, host: Option<&str>) -> bool {
    if origin.eq_ignore_ascii_case(public_url) {
        return true;
    }
    let scheme = if public_url.starts_with("http://") { "http://" } else { "https://" };
    let name = origin.get(..scheme.len()).filter(|s| s.eq_ignore_ascii_case(scheme)).map(|s| &origin[s.len()..]);
    matches!((name, host), (Some(name), Some(host)) if !name.is_empty() && name.eq_ignore_ascii_case(host))
}

/// The name the client connected to: `:authority` in HTTP/2, `Host` in HTTP/1.
pub(crate) fn host<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<&'a str> {
    uri.authority().map(|a| a.as_str()).or_else(|| headers.get(header::HOST)?.to_str().ok())
}

fn forbidden(code: &'static str, text: &str) -> Error {
    Error::Forbidden(code, text.into())
}

/// A JSON body that parses into `T`; otherwise a problem that says where it does not.
pub struct ValidJson<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Api> for ValidJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        match Json::<T>::from_request(request, api).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(JsonRejection::MissingJsonContentType(_)) => {
                Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "X-415", "send the body as application/json"))
            }
            Err(JsonRejection::JsonDataError(e)) => {
                Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "X-422", plain(&e.body_text())))
            }
            Err(JsonRejection::JsonSyntaxError(e)) => {
                Err(Problem::new(StatusCode::BAD_REQUEST, "X-400", plain(&e.body_text())))
            }
            Err(other) => Err(unread(other.status())),
        }
    }
}

/// What is wrong with the JSON, without axum's introduction.
fn plain(text: &str) -> String {
    let reason = text.split_once(": ").map_or(text, |(_, reason)| reason);
    format!("the body is not what is asked for here: {reason}")
}

/// A body that could not be read to its end.
pub(super) fn unread(status: StatusCode) -> Problem {
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        Problem::new(status, "X-413", "the body is too large")
    } else {
        Problem::new(StatusCode::BAD_REQUEST, "X-400", "the body could not be read")
    }
}

/// Query parameters that parse into `T`.
pub struct ValidQuery<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Api> for ValidQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, api).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(e) => {
                let reason = e.body_text();
                let reason = reason.split_once(": ").map_or(reason.as_str(), |(_, r)| r);
                Err(Problem::new(StatusCode::BAD_REQUEST, "X-400", format!("a query parameter is wrong: {reason}")))
            }
        }
    }
}

/// A body as it is, for files.
pub struct RawBody(pub axum::body::Bytes);

impl FromRequest<Api> for RawBody {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        axum::body::Bytes::from_request(request, api).await.map(Self).map_err(|e| unread(e.status()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_origins_are_the_configured_and_the_connected_one() {
        let own = |origin, host| is_own_origin(origin, "https://tram.example:8443", host);
        assert!(own("https://tram.example:8443", None));
        assert!(own("https://127.0.0.1:8443", Some("127.0.0.1:8443")));
        assert!(own("HTTPS://LOCALHOST:8443", Some("localhost:8443")));
        for (origin, host) in [
            ("https://evil.example", Some("tram.example:8443")),
            ("https://tram.example", Some("tram.example:8443")),
            ("http://127.0.0.1:8443", Some("127.0.0.1:8443")),
            ("https://tram.example:8443.evil.example", Some("tram.example:8443")),
            ("https://", Some("")),
            ("null", Some("null")),
            ("?", None),
            ("đ", Some("đ")),
        ] {
            assert!(!own(origin, host), "{origin} {host:?}");
        }
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "a=b; tram_sessions=no; tram_session=yes".parse().unwrap());
        headers.append(header::COOKIE, "tram_session=later".parse().unwrap());
        assert_eq!(cookie(&headers), Some("yes"));
        assert_eq!(cookie(&HeaderMap::new()), None);
    }
}
