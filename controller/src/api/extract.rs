//! From a request to a [`Ctx`].

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::Api;
use super::error::ApiError;
use crate::services::{Ctx, Error};

/// A signed-in caller: cookie, and for changes the Origin and CSRF header, were found good.
pub struct Signed(pub Ctx);

impl FromRequestParts<Api> for Signed {
    type Rejection = ApiError;

    async fn from_request_parts(_parts: &mut Parts, _api: &Api) -> Result<Self, ApiError> {
        Err(Error::Unauthenticated("A-100", "sign in first".into()).into())
    }
}
