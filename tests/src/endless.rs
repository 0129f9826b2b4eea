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

/// A message of SPICE behind its short header.
#[must_use]
pub fn spice(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &(body.len() as u32).to_le_bytes(), body].concat()
}

/// A key, as a SPICE viewer sends it.
#[must_use]
pub fn spice_key() -> Vec<u8> {
    spice(101, &[30, 0, 0, 0])
}

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

    /// Opens it for SPICE as well: beside the other socket.
    ///
    /// # Errors
    /// The socket's.
    pub fn serve_spice(&self, folder: &Path) -> Result<()> {
        let listener = UnixListener::bind(folder.join("spice.sock"))?;
        let heard = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(heard.clone().talk_spice(stream));
            }
        });
        Ok(())
    }

    async fn talk_spice(self, mut viewer: UnixStream) -> Result<()> {
        let mut head = [0; 16];
        viewer.read_exact(&mut head).await?;
        let mut mess = vec![0; u32::from_le_bytes([head[12], head[13], head[14], head[15]]) as usize];
        viewer.read_exact(&mut mess).await?;
        // No error, a key nobody uses, one word of capabilities behind these fields.
        let fields: [&[u8]; 5] = [&[0; 166], &[1, 0, 0, 0], &[0; 4], &[178, 0, 0, 0], &[0b1011, 0, 0, 0]];
        let head: [&[u8]; 4] = [b"REDQ", &[2, 0, 0, 0], &[2, 0, 0, 0], &[182, 0, 0, 0]];
        viewer.write_all(&[head.concat(), fields.concat()].concat()).await?;
        viewer.read_exact(&mut [0; 132]).await?;
        viewer.write_all(&[0; 4]).await?;
        match mess[4] {
            // MAIN: the session's id, and the rest of its first message.
            1 => viewer.write_all(&spice(103, &[&[7, 0, 0, 0][..], &[0; 28]].concat())).await?,
            2 => {
                viewer.read_exact(&mut [0; 20]).await?;
                let picture = spice(304, &[0x55; 16_384]);
                while viewer.write_all(&picture).await.is_ok() {}
                return Ok(());
            }
            _ => {}
        }
        let mut piece = [0; 4096];
        loop {
            let n = viewer.read(&mut piece).await?;
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
        self.until(&KEY).await
    }

    /// The same up to the key of a SPICE viewer.
    ///
    /// # Errors
    /// If the key does not come.
    pub async fn until_spice_key(&self) -> Result<Vec<u8>> {
        self.until(&spice_key()).await
    }

    async fn until(&self, key: &[u8]) -> Result<Vec<u8>> {
        let until = Instant::now() + PATIENCE;
        while !self.heard().ends_with(key) {
            ensure!(Instant::now() < until, "the key never came: {:?}", self.heard());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(std::mem::take(&mut *self.heard()))
    }
}
