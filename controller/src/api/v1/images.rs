//! `/images`: golden images. Taking one in is `tram-controller admin image add`: images are gigabytes.

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Page;
use crate::api::Api;
use crate::api::error::{ApiError, Problem};
use crate::api::extract::Signed;
use crate::domain::image::{Guest, ImageState};
use crate::domain::time::Time;
use crate::services::images;
use crate::store;

/// A golden image version.
#[derive(Debug, Serialize, ToSchema)]
pub struct Image {
    /// Id.
    pub id: Uuid,
    /// Name, shared by its versions.
    pub name: String,
    /// Version.
    pub version: String,
    /// File name in the image folder.
    pub file: String,
    /// Always `qcow2`.
    pub format: &'static str,
    /// Size the guest sees, in bytes.
    pub virtual_size_bytes: i64,
    /// Size of the file, in bytes.
    pub file_size_bytes: i64,
    /// SHA-256 of the file.
    pub sha256: String,
    /// The machine its desktops are given.
    pub guest: Guest,
    /// Whether new pools may use it.
    pub state: ImageState,
    /// Why it was refused.
    pub error: Option<String>,
    /// When it was added.
    pub created_at: Time,
    /// Pools that use it.
    pub pools: i64,
}

impl From<store::images::Image> for Image {
    fn from(i: store::images::Image) -> Self {
        Self {
            id: i.id.0,
            name: i.name,
            version: i.version,
            file: i.file,
            format: "qcow2",
            virtual_size_bytes: i.virtual_size_bytes,
            file_size_bytes: i.file_size_bytes,
            sha256: i.sha256,
            guest: i.guest,
            state: i.state,
            error: i.error,
            created_at: Time::from_micros(i.created_at),
            pools: i.pools,
        }
    }
}

/// What may be changed of an image.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageChange {
    /// `true`: not offered for new pools any more.
    pub retired: bool,
}

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get_one, change))
}

/// All golden images.
#[utoipa::path(get, path = "/images", tag = "images", responses((status = 200, body = Page<Image>), (status = "4XX", body = Problem)))]
async fn list(State(api): State<Api>, Signed(ctx): Signed) -> Result<Json<Page<Image>>, ApiError> {
    let rows = images::list(&api.app, &ctx).await?;
    Ok(Json(Page::whole(rows.into_iter().map(Image::from).collect())))
}

/// One golden image.
#[utoipa::path(get, path = "/images/{id}", tag = "images", params(("id" = Uuid, Path)), responses((status = 200, body = Image), (status = "4XX", body = Problem)))]
async fn get_one(State(api): State<Api>, Signed(ctx): Signed, Path(id): Path<Uuid>) -> Result<Json<Image>, ApiError> {
    Ok(Json(images::get(&api.app, &ctx, id.into()).await?.into()))
}

/// Retires an image, or offers it again.
#[utoipa::path(patch, path = "/images/{id}", tag = "images", params(("id" = Uuid, Path)), request_body = ImageChange, responses((status = 200, body = Image), (status = "4XX", body = Problem)))]
async fn change(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    Json(body): Json<ImageChange>,
) -> Result<Json<Image>, ApiError> {
    Ok(Json(images::retire(&api.app, &ctx, id.into(), body.retired).await?.into()))
}
