//! A display that writes down what it is told, and offers more pictures than any line takes.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

const PATIENCE: Duration = Duration::from_secs(60);

/// A key, as a viewer sends it.
pub const KEY: [u8; 8] = [4, 1, 0, 0, 0, 0, 0, 97];

/// The display.
#[derive(Clone, Default)]
pub struct Display(Arc<Mutex<Vec<u8>>>);

impl Display {
    /// Opens it for every desktop of a simulated host: `displays=` this folder.
    ///
    /// # Errors
    /// The socket's.
    pub fn serve(folder: &Path) -> Result<Self> {
        let listener = UnixListener::bind(folder.join("vnc.sock"))?;
        let display = Self::default();
        let heard = display.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(heard.clone().talk(stream));
            }
        });
        Ok(display)
    }

    async fn talk(self, mut viewer: UnixStream) -> Result<()> {
        viewer.write_all(b"RFB 003.008\n").await?;
        viewer.read_exact(&mut [0; 12]).await?;
        viewer.write_all(&[1, 1]).await?;
        viewer.read_exact(&mut [0; 1]).await?;
        viewer.write_all(&[0; 4]).await?;
        viewer.read_exact(&mut [0; 1]).await?;
        // 64x64, 32 bits, no name.
        viewer.write_all(&[0, 64, 0, 64, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0, 0, 0, 0, 0]).await?;
        let (mut from, mut to) = viewer.into_split();
        tokio::spawn(async move {
            // Updates of one raw rectangle.
            let mut update = [&[0, 0, 0, 1][..], &[0, 0, 0, 0, 0, 64, 0, 64], &[0; 4]].concat();
            update.resize(update.len() + 64 * 64 * 4, 0x55);
            while to.write_all(&update).await.is_ok() {}
        });
        let mut piece = [0; 4096];
        loop {
            let n = from.read(&mut piece).await?;
            ensure!(n > 0, "gone");
            self.heard().extend_from_slice(&piece[..n]);
        }
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What came until the key that was typed last, and since the last look.
    ///
    /// # Errors
    /// If the key does not come.
    pub async fn until_key(&self) -> Result<Vec<u8>> {
        let until = Instant::now() + PATIENCE;
        while !self.heard().ends_with(&KEY) {
            ensure!(Instant::now() < until, "the key never came: {:?}", self.heard());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(std::mem::take(&mut *self.heard()))
    }
}
