//! The desktop's side of a relay measurement: an RFB server on a UNIX socket that floods, swallows or rests.
//! Every relay under test is put before the same one.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

/// What it does after the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// Sends without end.
    Flood,
    /// Reads without end.
    Sink,
    /// Sends one small update and then nothing.
    Rest,
    /// Sends one small update for each request, as QEMU does: of a screen that changes a hundred times a second.
    Change,
}

/// A running server; its thread ends with the process.
pub struct Backend {
    /// Its socket.
    pub path: PathBuf,
    received: Arc<AtomicU64>,
}

impl Backend {
    /// Starts one in a folder.
    ///
    /// # Errors
    /// If the socket can't be made.
    pub fn start(folder: &Path, does: Does) -> Result<Self> {
        let path = folder.join(format!("{does:?}.sock").to_lowercase());
        let listener = UnixListener::bind(&path)?;
        let received = Arc::new(AtomicU64::new(0));
        let total = received.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let total = total.clone();
                // Whoever leaves first, it is no fault.
                std::thread::spawn(move || serve(stream, does, &total));
            }
        });
        Ok(Self { path, received })
    }

    /// Bytes swallowed since the last call.
    #[must_use]
    pub fn swallowed(&self) -> u64 {
        self.received.swap(0, Ordering::SeqCst)
    }

    /// Waits until so many bytes were swallowed.
    pub fn wait_for(&self, bytes: u64) {
        while self.received.load(Ordering::SeqCst) < bytes {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
    }
}

fn serve(mut s: UnixStream, does: Does, total: &AtomicU64) -> std::io::Result<()> {
    s.write_all(b"RFB 003.008\n")?;
    s.read_exact(&mut [0; 12])?;
    s.write_all(&[1, 1])?;
    s.read_exact(&mut [0; 1])?;
    s.write_all(&[0; 4])?;
    s.read_exact(&mut [0; 1])?;
    let mut init = vec![4, 0, 3, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0, 0, 0, 0, 4];
    init.extend_from_slice(b"test");
    s.write_all(&init)?;
    let mut buffer = vec![0x55; 256 * 1024];
    match does {
        Does::Flood => loop {
            s.write_all(&buffer)?;
        },
        Does::Sink => loop {
            match s.read(&mut buffer)? {
                0 => return Ok(()),
                n => total.fetch_add(n as u64, Ordering::SeqCst),
            };
        },
        Does::Rest => {
            // One update of one raw pixel.
            s.write_all(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 9, 9, 9, 9])?;
            while s.read(&mut buffer[..64])? > 0 {}
            Ok(())
        }
        Does::Change => change(s),
    }
}

/// Side of the square that changes, pixels.
const SIDE: u16 = 20;
/// Bytes of a [`Does::Change`] update: its head, and raw pixels.
pub const UPDATE: usize = 16 + SIDE as usize * SIDE as usize * 4;

fn change(mut s: UnixStream) -> std::io::Result<()> {
    let side = SIDE.to_be_bytes();
    let mut update = [&[0, 0, 0, 1, 0, 0, 0, 0][..], &side, &side, &[0; 4]].concat();
    update.resize(UPDATE, 0x55);
    let mut last = Instant::now();
    loop {
        let mut kind = [0];
        s.read_exact(&mut kind)?;
        let rest = match kind[0] {
            0 => 19,
            2 => {
                let mut count = [0; 3];
                s.read_exact(&mut count)?;
                usize::from(u16::from_be_bytes([count[1], count[2]])) * 4
            }
            3 => 9,
            4 => 7,
            5 => 5,
            other => return Err(std::io::Error::other(format!("message {other}"))),
        };
        s.read_exact(&mut vec![0; rest])?;
        if kind[0] == 3 {
            std::thread::sleep((last + Duration::from_millis(10)).saturating_duration_since(Instant::now()));
            last = Instant::now();
            s.write_all(&update)?;
        }
    }
}
