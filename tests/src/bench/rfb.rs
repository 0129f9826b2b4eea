//! `rfb.updates_200ms`: small pictures a second over a line of 4 Mbit/s and 200 ms there and back. The anchor
//! is the same gateway and viewer without pacing: one request, one picture, one round trip.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::backend::{Backend, Does, UPDATE};
use super::client::{self, Stream};
use super::gateway_process::Process;
use super::relay::{PATH, offer, ticket};
use super::{Row, median};
use crate::gate::masked;

const ROUNDS: usize = 3;
const FOR: Duration = Duration::from_secs(8);
const LEAST: f64 = 15.0;
/// One way.
const DELAY: Duration = Duration::from_millis(100);
const DOWN_BITS: f64 = 4e6;
const UP_BITS: f64 = 1e6;
/// Read at once, and how much of that waits before the bottleneck: 200 kB.
const PIECE: usize = 1448;
const WAITING: usize = 138;

/// The row, if it is wanted.
pub async fn rows(wanted: impl Fn(&str) -> bool) -> Vec<Row> {
    const NAME: &str = "rfb.updates_200ms";
    if !wanted(NAME) {
        return vec![];
    }
    vec![measure(NAME).await.unwrap_or_else(|e| Row::failed(NAME, "updates/s", ">= 15/s", &e))]
}

async fn measure(row: &'static str) -> Result<Row> {
    let folder = tempfile::tempdir()?;
    let backend = Backend::start(folder.path(), Does::Change)?;
    let gateway = Process::start(folder.path(), &backend.path, 1, false).await?;
    let line = thin_line(gateway.address.clone())?;
    let (mut paced, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (fences, rates) in [(true, &mut paced), (false, &mut bare)] {
            let protocols = offer(&ticket(&gateway, 0).await?, 0);
            let socket = TcpStream::connect(&line)?;
            socket.set_read_timeout(Some(Duration::from_secs(30)))?;
            let stream = client::upgrade_on(socket, &gateway.address, PATH, &protocols, None)?;
            rates.push(tokio::task::block_in_place(|| rate(stream, fences))?);
        }
    }
    let (ours, theirs) = (median(paced), median(bare));
    Ok(Row {
        row,
        ours: Some(ours),
        anchor: Some(theirs),
        anchor_name: "unpaced, same line".into(),
        ratio: Some(ours / theirs),
        unit: "updates/s",
        goal: ">= 15/s",
        ok: ours >= LEAST,
    })
}

/// Pictures a second.
fn rate(mut stream: Stream, fences: bool) -> Result<f64> {
    client::shake_hands(&mut stream)?;
    let mut viewer = Viewer { stream, left: 0 };
    viewer.exact::<28>()?;
    let encodings = [0_i32, -312, -313];
    let list = if fences { &encodings[..] } else { &encodings[..1] };
    let mut hello = vec![2, 0, 0, list.len() as u8];
    list.iter().for_each(|e| hello.extend_from_slice(&e.to_be_bytes()));
    let screen = [0, 0, 0, 0, 4, 0, 3, 0];
    hello.extend_from_slice(&[3, 0]);
    hello.extend_from_slice(&screen);
    if fences {
        hello.extend_from_slice(&[150, 1]);
        hello.extend_from_slice(&screen);
    }
    viewer.send(&hello)?;
    let (mut pictures, mut began) = (0, Instant::now());
    loop {
        match viewer.exact::<1>()?[0] {
            0 => {
                viewer.exact::<{ UPDATE - 1 }>()?;
                pictures += 1;
                if pictures == 1 {
                    began = Instant::now();
                }
                if began.elapsed() >= FOR {
                    return Ok(f64::from(pictures - 1) / began.elapsed().as_secs_f64());
                }
                if !fences {
                    viewer.send(&[&[3, 1][..], &screen].concat())?;
                }
            }
            150 => {}
            248 => {
                let fence = viewer.exact::<12>()?;
                viewer.send(&[&[248, 0, 0, 0, 0, 0, 0, 1, 4][..], &fence[8..]].concat())?;
            }
            other => bail!("message {other}"),
        }
    }
}

/// Payload of a WebSocket.
struct Viewer {
    stream: Stream,
    left: usize,
}

impl Viewer {
    fn send(&mut self, payload: &[u8]) -> Result<()> {
        self.stream.write_all(&masked(0x82, payload))?;
        Ok(self.stream.flush()?)
    }

    fn exact<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (mut out, mut have) = ([0; N], 0);
        while have < N {
            while self.left == 0 {
                self.frame()?;
            }
            let n = self.left.min(N - have);
            self.stream.read_exact(&mut out[have..have + n])?;
            (have, self.left) = (have + n, self.left - n);
        }
        Ok(out)
    }

    fn frame(&mut self) -> Result<()> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head)?;
        let mut length = [0; 2];
        let n = match head[1] {
            126 => {
                self.stream.read_exact(&mut length)?;
                usize::from(u16::from_be_bytes(length))
            }
            n => n.into(),
        };
        match head[0] {
            0x82 => self.left = n,
            0x89 => {
                let mut ping = vec![0; n];
                self.stream.read_exact(&mut ping)?;
                self.stream.write_all(&masked(0x8a, &ping))?;
            }
            other => bail!("frame {other:#x}"),
        }
        Ok(())
    }
}

/// The address of a way to a server that is slow and long.
fn thin_line(server: String) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    std::thread::spawn(move || -> Result<()> {
        for near in listener.incoming() {
            let (near, far) = (near?, TcpStream::connect(&server)?);
            ensure!(near.set_nodelay(true).and(far.set_nodelay(true)).is_ok(), "no delay of the kernel's");
            for (from, to, bits) in
                [(near.try_clone()?, far.try_clone()?, UP_BITS), (far.try_clone()?, near.try_clone()?, DOWN_BITS)]
            {
                carry(from, to, bits);
            }
        }
        Ok(())
    });
    Ok(address)
}

fn carry(mut from: TcpStream, mut to: TcpStream, bits: f64) {
    // Bytes wait here before the bottleneck, and behind it for the length of the way.
    let (enter, waiting) = mpsc::sync_channel::<Vec<u8>>(WAITING);
    let (leave, far) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        let mut piece = [0; PIECE];
        while let Ok(n @ 1..) = from.read(&mut piece) {
            if enter.send(piece[..n].to_vec()).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        let mut free = Instant::now();
        for piece in waiting {
            free = free.max(Instant::now()) + Duration::from_secs_f64(piece.len() as f64 * 8.0 / bits);
            std::thread::sleep(free.saturating_duration_since(Instant::now()));
            if leave.send((free + DELAY, piece)).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        for (due, piece) in far {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                return;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
}
