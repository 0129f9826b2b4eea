//! Version 1 of the API, one file a resource.

use serde::Serialize;
use utoipa::ToSchema;

pub mod audit;
pub mod desktops;
pub mod endpoints;
pub mod hosts;
pub mod images;
pub mod login;
pub mod overview;
pub mod pools;
pub mod sessions;
pub mod sites;
pub mod users;

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
