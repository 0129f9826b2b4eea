//! `/login`, `/logout`, `/me`: signing in and out, and one's own account.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::SiteRef;
use crate::api::Api;
use crate::api::error::{ApiError, Problem};
use crate::api::extract::{COOKIE, Former, OwnPage, Peer, ValidJson, Visitor};
use crate::domain::access::Role;
use crate::domain::credential::{Language, SESSION_MAX};
use crate::identity::secret::Secret;
use crate::services::sign_in::{self, Person};
use crate::services::users;

/// A sign-in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// Sign-in name.
    pub username: String,
    /// Password.
    #[schema(format = Password)]
    pub password: String,
}

/// The person signed in.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserMe {
    /// Id.
    pub id: Uuid,
    /// Sign-in name.
    pub username: String,
    /// Name for people.
    pub display_name: String,
    /// What they may do.
    pub role: Role,
    /// Where they may do it; absent is everywhere.
    pub site: Option<SiteRef>,
    /// The language they read.
    pub language: Language,
}

/// The answer to a sign-in. The cookie comes with it.
#[derive(Debug, Serialize, ToSchema)]
pub struct LoginResponse {
    /// Who.
    pub user: UserMe,
    /// Send it as `x-tram-csrf` with every change.
    pub csrf: String,
}

/// Who I am.
#[derive(Debug, Serialize, ToSchema)]
pub struct Me {
    /// Who.
    pub user: UserMe,
    /// Send it as `x-tram-csrf` with every change.
    pub csrf: String,
    /// The controller's version.
    pub version: &'static str,
}

/// What everybody may change of their own account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MeChange {
    /// The language to read.
    pub language: Option<Language>,
    /// The present password; needed for a new one.
    #[schema(format = Password)]
    pub password: Option<String>,
    /// The new password. Other browsers are signed out.
    #[schema(format = Password)]
    pub new_password: Option<String>,
}

impl From<Person> for UserMe {
    fn from(p: Person) -> Self {
        Self {
            id: p.user.id.0,
            username: p.user.username,
            display_name: p.user.display_name,
            role: p.user.role,
            site: p.site.map(SiteRef::from),
            language: p.user.language,
        }
    }
}

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(login)).routes(routes!(logout)).routes(routes!(me, change_me))
}

/// `Max-Age` is the longest a sign-in lasts; the server ends it earlier when idle.
fn set_cookie(api: &Api, token: &str, max_age_s: u64) -> AppendHeaders<[(header::HeaderName, HeaderValue); 2]> {
    let domain = match api.app.cookie_domain.as_str() {
        "" => String::new(),
        // Gateways under other names are shown it too.
        domain => format!("; Domain={domain}"),
    };
    let cookie = format!("{COOKIE}={token}; Path=/; HttpOnly; Secure; SameSite=Strict; Max-Age={max_age_s}{domain}");
    // Our tokens are base64url and the domain was checked: every header may carry them.
    let cookie = HeaderValue::try_from(cookie).unwrap_or_else(|_| HeaderValue::from_static(""));
    AppendHeaders([(header::SET_COOKIE, cookie), (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))])
}

/// Signs in.
#[utoipa::path(post, path = "/login", tag = "sign-in", request_body = LoginRequest, responses(
    (status = 200, body = LoginResponse, description = "Signed in; the cookie `tram_session` comes with it"),
    (status = 400, body = Problem, description = "X-400 not JSON"),
    (status = 401, body = Problem, description = "A-101 wrong, with `remaining`; A-109 switched off"),
    (status = 403, body = Problem, description = "A-106 sent by a foreign page"),
    (status = 413, body = Problem, description = "X-413 too large"),
    (status = 415, body = Problem, description = "X-415 not sent as JSON"),
    (status = 422, body = Problem, description = "X-422 a field is missing or unknown"),
    (status = 423, body = Problem, description = "A-102 account or A-104 address locked, with `until`"),
    (status = 503, body = Problem, description = "A-103 too many at once")))]
async fn login(
    State(api): State<Api>,
    _own: OwnPage,
    Peer(ip): Peer,
    Former(former): Former,
    ValidJson(body): ValidJson<LoginRequest>,
) -> Result<impl IntoResponse, ApiError> {
    let opened = sign_in::sign_in(&api.app, &ip, &body.username, &Secret::from_text(body.password)).await?;
    sign_in::same_browser(&api.app, &opened.token, &former).await?;
    let cookie = set_cookie(&api, opened.token.reveal(), SESSION_MAX.as_secs());
    Ok((cookie, Json(LoginResponse { user: opened.person.into(), csrf: opened.csrf })))
}

/// Signs out this browser. Also without a good sign-in: then there is nothing to end.
#[utoipa::path(post, path = "/logout", tag = "sign-in", responses(
    (status = 204, description = "Signed out; the cookie is taken away"),
    (status = 403, body = Problem, description = "A-106 foreign page, A-107 no CSRF header")))]
async fn logout(State(api): State<Api>, visitor: Option<Visitor>) -> Result<impl IntoResponse, ApiError> {
    if let Some(Visitor(visit)) = visitor {
        sign_in::sign_out(&api.app, &visit).await?;
    }
    Ok((StatusCode::NO_CONTENT, set_cookie(&api, "", 0)))
}

/// Who I am.
#[utoipa::path(get, path = "/me", tag = "sign-in", responses(
    (status = 200, body = Me), (status = 401, body = Problem, description = "A-100")))]
async fn me(State(api): State<Api>, Visitor(visit): Visitor) -> Result<impl IntoResponse, ApiError> {
    let person = sign_in::person(&api.app, visit.user, visit.ctx.now).await?;
    let me = Me { user: person.into(), csrf: visit.csrf, version: env!("CARGO_PKG_VERSION") };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(me)))
}

/// Changes my language or password.
#[utoipa::path(patch, path = "/me", tag = "sign-in", request_body = MeChange, responses(
    (status = 200, body = UserMe),
    (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 413, body = Problem), (status = 415, body = Problem),
    (status = 422, body = Problem, description = "U-103 weak password, U-106 wrong present password"),
    (status = 503, body = Problem)))]
async fn change_me(
    State(api): State<Api>,
    Visitor(visit): Visitor,
    ValidJson(body): ValidJson<MeChange>,
) -> Result<Json<UserMe>, ApiError> {
    let new = body.new_password.map(Secret::from_text);
    let present = Secret::from_text(body.password.unwrap_or_default());
    let password = new.as_ref().map(|new| (&present, new));
    Ok(Json(users::change_own(&api.app, &visit, body.language, password).await?.into()))
}
