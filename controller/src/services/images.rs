//! Golden images: taking one in, retiring it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};
use tram_hypervisor::image::{self, Limits};
use tram_wire::ids::ImageId;
use uuid::Uuid;

use super::{App, Ctx, Error, Result, audit};
use crate::domain::access::Role;
use crate::domain::image::{Guest, ImageState, check_version, file_name};
use crate::domain::name;
use crate::store::StoreError;
use crate::store::images::Image;

/// All images.
///
/// # Errors
/// [`Error::Forbidden`] for officers.
pub async fn list(app: &App, ctx: &Ctx) -> Result<Vec<Image>> {
    ctx.require(&[Role::Operator, Role::Support])?;
    Ok(app.store.images().await?)
}

/// One image.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`].
pub async fn get(app: &App, ctx: &Ctx, id: ImageId) -> Result<Image> {
    ctx.require(&[Role::Operator, Role::Support])?;
    app.store.image(id).await?.ok_or_else(not_found)
}

/// Takes a file in as `name` at `version`: copies it, inspects the copy (so that nobody can exchange the
/// file in between), and publishes it read-only. The same version with the same content again is no change.
/// `guest` is the machine its desktops are given. `progress` is told bytes copied and bytes in all.
///
/// # Errors
/// [`Error::Invalid`] with the code of what is wrong with the image; nothing is kept then.
pub async fn add(
    app: &App,
    ctx: &Ctx,
    image_name: &str,
    version: &str,
    guest: Guest,
    source: &Path,
    progress: impl FnMut(u64, u64) + Send + 'static,
) -> Result<Image> {
    ctx.require(&[Role::Operator])?;
    name::check(image_name).map_err(|m| Error::field("name", "I-201", m))?;
    check_version(version).map_err(|m| Error::field("version", "I-202", m))?;
    let file = file_name(image_name, version);
    let known = app.store.images().await?.into_iter().find(|i| i.file == file);
    let (folder, source) = (app.image_dir.clone(), source.to_owned());
    let taken = tokio::task::spawn_blocking(move || take(&folder, &source, progress))
        .await
        .map_err(|e| Error::Internal(Box::new(e)))??;
    if let Some(known) = known {
        let _ = fs::remove_file(&taken.path);
        if known.sha256 == taken.sha256 && known.guest == guest {
            return Ok(known);
        }
        if known.sha256 == taken.sha256 {
            return Err(Error::Conflict(
                "I-205",
                format!(
                    "{image_name} {version} exists for a {} machine; desktops may stand on it, give a new version for a {guest} one",
                    known.guest
                ),
            ));
        }
        return Err(Error::Conflict(
            "I-203",
            format!(
                "{image_name} {version} exists with other content; a published version never changes, give a new version"
            ),
        ));
    }
    let row = Image {
        id: ImageId(Uuid::now_v7()),
        name: image_name.into(),
        version: version.into(),
        file: file.clone(),
        state: ImageState::Ready,
        virtual_size_bytes: taken.virtual_size.cast_signed(),
        file_size_bytes: taken.size.cast_signed(),
        sha256: taken.sha256,
        guest,
        error: None,
        created_at: ctx.now.micros(),
        pools: 0,
    };
    // First the file, then the row: a row always has its file; a file without a row is overwritten by
    // the next try.
    fs::rename(&taken.path, app.image_dir.join(&file)).map_err(|e| folder_fault(&app.image_dir, &e))?;
    let mut tx = app.store.begin().await?;
    tx.add_image(&row).await?;
    let detail = json!({"version": version, "sha256": row.sha256, "guest": guest, "bytes": row.file_size_bytes});
    audit(&mut tx, ctx, "image.add", image_name, detail).await?;
    tx.commit().await?;
    Ok(row)
}

/// Takes an image out of the list for new pools (`retired`), or back in. Desktops made from it stay.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`].
pub async fn retire(app: &App, ctx: &Ctx, id: ImageId, retired: bool) -> Result<Image> {
    ctx.require(&[Role::Operator])?;
    let state = if retired { ImageState::Retired } else { ImageState::Ready };
    let mut tx = app.store.begin().await?;
    if !tx.set_image_state(id, state).await? {
        return Err(not_found());
    }
    audit(&mut tx, ctx, "image.retire", &id.to_string(), json!({"retired": retired})).await?;
    tx.commit().await?;
    get(app, ctx, id).await
}

struct Taken {
    path: std::path::PathBuf,
    sha256: String,
    size: u64,
    virtual_size: u64,
}

fn take(folder: &Path, source: &Path, mut progress: impl FnMut(u64, u64)) -> Result<Taken> {
    fs::create_dir_all(folder).map_err(|e| folder_fault(folder, &e))?;
    let cant = |e: std::io::Error| Error::field("file", "I-204", format!("{} can't be read: {e}", source.display()));
    let mut from = File::open(source).map_err(cant)?;
    let total = from.metadata().map_err(cant)?.len();
    // A whole look before the copy, so that a hostile or wrong file costs nothing.
    image::inspect_file(&from, None, &Limits::default()).map_err(refused)?;
    let path = folder.join(format!(".taking-{}", Uuid::new_v4().simple()));
    let copied = (|| -> std::io::Result<(String, u64)> {
        let mut to = File::create(&path)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut done = 0;
        loop {
            let n = from.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            hash.update(&buffer[..n]);
            to.write_all(&buffer[..n])?;
            done += n as u64;
            progress(done, total);
        }
        to.set_permissions(fs::Permissions::from_mode(0o444))?;
        to.sync_all()?;
        Ok((hash.finalize().iter().map(|b| format!("{b:02x}")).collect(), done))
    })();
    let inspected = copied.map_err(|e| folder_fault(folder, &e)).and_then(|(sha256, size)| {
        let info = image::inspect(&path, None).map_err(refused)?;
        Ok(Taken { path: path.clone(), sha256, size, virtual_size: info.virtual_size })
    });
    if inspected.is_err() {
        let _ = fs::remove_file(&path);
    }
    inspected
}

fn refused(f: image::ImageFault) -> Error {
    Error::field("file", f.code, f.to_string())
}

fn folder_fault(folder: &Path, e: &std::io::Error) -> Error {
    Error::from(StoreError::Folder(folder.display().to_string(), std::io::Error::new(e.kind(), e.to_string())))
}

fn not_found() -> Error {
    Error::NotFound("I-206", "there is no such image".into())
}
