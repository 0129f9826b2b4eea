//! Version 1 of the API, one file a resource.

use serde::Serialize;
use utoipa::ToSchema;

pub mod assists;
pub mod audit;
pub mod calls;
pub mod desktops;
pub mod diagnosis;
mod endpoint_copies;
pub mod endpoints;
pub mod enrolments;
pub mod gateways;
pub mod health;
pub mod hosts;
pub mod images;
pub mod incidents;
pub mod login;
pub mod notify;
pub mod overview;
pub mod pools;
pub mod runbooks;
pub mod sessions;
pub mod sites;
pub mod sla;
pub mod support;
pub mod time_travel;
pub mod updates;
pub mod users;

pub use pools::SiteRef;

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Rows that match in all.
    pub total: i64,
    /// Pass as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// A list that is always given whole.
    #[must_use]
    pub fn whole(items: Vec<T>) -> Self {
        Self { total: items.len().try_into().unwrap_or(i64::MAX), items, next: None }
    }
}

impl From<crate::domain::site::SiteRef> for SiteRef {
    fn from(s: crate::domain::site::SiteRef) -> Self {
        Self { code: s.code, name: s.name, district: s.district }
    }
}

/// Rows of one page: what was asked for, within what one answer may carry.
#[must_use]
pub fn limit(asked: Option<i64>) -> i64 {
    asked.unwrap_or(500).clamp(1, 5000)
}

/// The cursor of the next page: the key of the last row of a full page.
#[must_use]
pub fn next<T>(items: &[T], limit: i64, key: impl Fn(&T) -> String) -> Option<String> {
    let full = i64::try_from(items.len()).is_ok_and(|n| n >= limit);
    items.last().filter(|_| full).map(key)
}
