//! Golden images.

use tram_wire::ids::ImageId;
use uuid::Uuid;

use super::{Result, Store, Tx, exec_tx, on_read};
use crate::domain::image::{Guest, ImageState};
use crate::nudge::Kind;

/// One row.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Image {
    /// Id.
    #[sqlx(try_from = "Uuid")]
    pub id: ImageId,
    /// Name, shared by its versions.
    pub name: String,
    /// Version.
    pub version: String,
    /// File name within the image folder.
    pub file: String,
    /// Whether it may be used.
    #[sqlx(try_from = "String")]
    pub state: ImageState,
    /// Size the guest sees.
    pub virtual_size_bytes: i64,
    /// Size of the file.
    pub file_size_bytes: i64,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// The machine it expects.
    #[sqlx(try_from = "String")]
    pub guest: Guest,
    /// Why it was refused.
    pub error: Option<String>,
    /// When it was added, microseconds.
    pub created_at: i64,
    /// Pools that use it.
    #[sqlx(default)]
    pub pools: i64,
}

const SELECT: &str = "SELECT i.id, i.name, i.version, i.file, i.state, i.virtual_size_bytes, i.file_size_bytes, i.sha256, i.guest, i.error, \
    i.created_at, (SELECT COUNT(*) FROM pools p WHERE p.image_id = i.id) AS pools FROM images i";

impl Store {
    /// All images, newest version of each name first.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn images(&self) -> Result<Vec<Image>> {
        let sql = format!("{SELECT} ORDER BY i.name, i.created_at DESC");
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(c))?)
    }

    /// One image.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn image(&self, id: ImageId) -> Result<Option<Image>> {
        let sql = format!("{SELECT} WHERE i.id = $1");
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id.0).fetch_optional(c))?)
    }
}

impl Tx {
    /// Adds a published image.
    ///
    /// # Errors
    /// [`super::StoreError::Duplicate`] if that version of it exists.
    pub async fn add_image(&mut self, i: &Image) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO images (id, name, version, file, state, virtual_size_bytes, file_size_bytes, sha256, guest, error, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)")
            .bind(i.id.0).bind(&i.name).bind(&i.version).bind(&i.file).bind(i.state.as_str())
            .bind(i.virtual_size_bytes).bind(i.file_size_bytes).bind(&i.sha256).bind(i.guest.as_str()).bind(&i.error).bind(i.created_at).execute(c))?;
        self.touch(Kind::Image, i.id.0);
        Ok(())
    }

    /// Takes an image out of the list for new pools, or back in. `false` if there is none.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn set_image_state(&mut self, id: ImageId, state: ImageState) -> Result<bool> {
        let rows = exec_tx!(self, c => sqlx::query("UPDATE images SET state = $2 WHERE id = $1")
            .bind(id.0).bind(state.as_str()).execute(c))?;
        self.touch(Kind::Image, id.0);
        Ok(rows == 1)
    }
}
