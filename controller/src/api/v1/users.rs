//! `/users`: accounts.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::{Page, SiteRef};
use crate::api::Api;
use crate::api::error::{ApiError, Problem};
use crate::api::extract::{Signed, ValidJson, ValidQuery};
use crate::domain::access::Role;
use crate::domain::credential::Language;
use crate::domain::time::Time;
use crate::identity::secret::Secret;
use crate::services::sign_in::Person;
use crate::services::users::{self, NewUser, UserChange};
use crate::store::users::UserFilter;

/// An account.
#[derive(Debug, Serialize, ToSchema)]
pub struct User {
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
    /// Switched off.
    pub disabled: bool,
    /// Locked for wrong passwords until then.
    pub locked_until: Option<Time>,
    /// Last sign-in.
    pub last_login_at: Option<Time>,
    /// When it was made.
    pub created_at: Time,
}

impl From<Person> for User {
    fn from(Person { user: u, site }: Person) -> Self {
        Self {
            id: u.id.0,
            username: u.username,
            display_name: u.display_name,
            role: u.role,
            site: site.map(SiteRef::from),
            language: u.language,
            disabled: u.disabled,
            locked_until: u.locked_until.map(Time::from_micros),
            last_login_at: u.last_sign_in_at.map(Time::from_micros),
            created_at: Time::from_micros(u.created_at),
        }
    }
}

/// A new account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserCreate {
    /// Sign-in name: 3 to 40 of a-z, 0-9, dot, hyphen, underscore.
    pub username: String,
    /// Name for people.
    pub display_name: String,
    /// What they may do.
    pub role: Role,
    /// Where they may do it; an officer's commune.
    pub site_code: Option<String>,
    /// The language they read; Vietnamese if absent.
    pub language: Option<Language>,
    /// First password, at least 12 characters.
    #[schema(format = Password, min_length = 12)]
    pub password: String,
}

/// What changes of an account; what is absent stays.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UserPatch {
    /// Name for people.
    pub display_name: Option<String>,
    /// What they may do.
    pub role: Option<Role>,
    /// Where they may do it; `null` is everywhere.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub site_code: Option<Option<String>>,
    /// The language they read.
    pub language: Option<Language>,
    /// Off ends every sign-in at once.
    pub disabled: Option<bool>,
    /// Takes the lock of wrong passwords away.
    pub unlock: Option<bool>,
    /// New password. Ends every sign-in at once.
    #[schema(format = Password, min_length = 12)]
    pub password: Option<String>,
}

/// Tells `null` from absent.
fn present<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(d).map(Some)
}

/// Which accounts.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct UserQuery {
    /// Beginnings of words of the sign-in name or name, in any spelling.
    #[serde(default)]
    q: String,
    /// Only this role.
    role: Option<Role>,
    /// At most so many, up to 5000.
    limit: Option<i64>,
    /// `next` of the page before.
    #[serde(default)]
    cursor: String,
}

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(change))
}

/// Accounts by sign-in name.
#[utoipa::path(get, path = "/users", tag = "users", params(UserQuery), responses(
    (status = 200, body = Page<User>), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem)))]
async fn list(
    State(api): State<Api>,
    Signed(ctx): Signed,
    ValidQuery(query): ValidQuery<UserQuery>,
) -> Result<Json<Page<User>>, ApiError> {
    let limit = super::limit(query.limit);
    let filter = UserFilter { text: query.q, role: query.role, after: query.cursor, limit };
    let (people, total) = users::list(&api.app, &ctx, &filter).await?;
    let items: Vec<User> = people.into_iter().map(User::from).collect();
    let next = super::next(&items, limit, |u| u.username.clone());
    Ok(Json(Page { items, total, next }))
}

/// Makes an account.
#[utoipa::path(post, path = "/users", tag = "users", request_body = UserCreate, responses(
    (status = 201, body = User), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 409, body = Problem, description = "U-109 the sign-in name is taken"), (status = 413, body = Problem),
    (status = 415, body = Problem), (status = 422, body = Problem, description = "Every wrong field: U-101 to U-104"),
    (status = 503, body = Problem)))]
async fn create(
    State(api): State<Api>,
    Signed(ctx): Signed,
    ValidJson(body): ValidJson<UserCreate>,
) -> Result<(StatusCode, Json<User>), ApiError> {
    let new = NewUser {
        username: body.username,
        display_name: body.display_name,
        role: body.role,
        site_code: body.site_code,
        language: body.language.unwrap_or(Language::Vi),
        password: Secret::from_text(body.password),
    };
    Ok((StatusCode::CREATED, Json(users::create(&api.app, &ctx, &new).await?.into())))
}

/// Changes an account, switches it off or on, unlocks it.
#[utoipa::path(patch, path = "/users/{id}", tag = "users", params(("id" = Uuid, Path)), request_body = UserPatch, responses(
    (status = 200, body = User), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem), (status = 409, body = Problem, description = "U-105 one's own account"),
    (status = 413, body = Problem), (status = 415, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
async fn change(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    ValidJson(body): ValidJson<UserPatch>,
) -> Result<Json<User>, ApiError> {
    let change = UserChange {
        display_name: body.display_name,
        role: body.role,
        site_code: body.site_code,
        language: body.language,
        disabled: body.disabled,
        unlock: body.unlock == Some(true),
        password: body.password.map(Secret::from_text),
    };
    Ok(Json(users::change(&api.app, &ctx, id.into(), &change).await?.into()))
}
