//! The far ends that measured programs speak to. Each counts what a real line would carry, headers included.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Bytes of IP and TCP with timestamps, and of IP and UDP.
const TCP: u64 = 52;
const UDP: u64 = 28;
/// Payload of a full packet on Ethernet.
const SEGMENT: u64 = 1448;
/// Packets without payload that open and close a connection.
const OPENING_AND_END: u64 = 7;
/// How long TCP waits for something to send along with an acknowledgement.
const DELAYED_ACK: Duration = Duration::from_millis(40);
/// Longest wait for somebody who is asked.
const WITHIN: Duration = Duration::from_secs(10);

/// What went over a line, both ways.
#[derive(Clone, Debug, Default)]
pub struct Count {
    all: Arc<AtomicU64>,
    payload: Arc<AtomicU64>,
}

impl Count {
    /// So far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.all.load(Ordering::Relaxed)
    }

    /// Of these, without the headers of IP, TCP and UDP and without acknowledgements.
    #[must_use]
    pub fn payload(&self) -> u64 {
        self.payload.load(Ordering::Relaxed)
    }

    fn add(&self, payload: usize, headers: u64) {
        self.payload.fetch_add(payload as u64, Ordering::Relaxed);
        self.all.fetch_add(payload as u64 + headers, Ordering::Relaxed);
    }

    /// Payload in packets.
    fn tcp(&self, payload: usize) {
        self.add(payload, TCP * (payload as u64).div_ceil(SEGMENT));
    }

    fn acknowledgement(&self) {
        self.add(0, TCP);
    }

    fn udp(&self, payload: usize) {
        self.add(payload, UDP);
    }

    fn connection(&self) {
        self.add(0, OPENING_AND_END * TCP);
    }
}

/// Acknowledgements of one connection, as TCP sends them: with what goes the other way soon, else after a while alone;
/// at the latest for the second packet.
#[derive(Default)]
struct Acknowledgements {
    /// Of what came up, and of what came down: since when it is owed.
    owed: [Option<Instant>; 2],
}

impl Acknowledgements {
    /// Something goes up (0) or down (1); how many go alone because of it or did before it.
    fn passes(&mut self, way: usize, now: Instant) -> u64 {
        let back = self.owed[1 - way].take();
        let late = back.is_some_and(|since| now.duration_since(since) > DELAYED_ACK);
        let second = self.owed[way].take();
        if second.is_none_or(|since| now.duration_since(since) > DELAYED_ACK) {
            self.owed[way] = Some(now);
        }
        u64::from(late) + u64::from(second.is_some())
    }
}

/// A line to somebody who listens; where it begins.
///
/// # Errors
/// If there is no address for it.
pub fn relay(to: SocketAddr, count: &Count) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (at, count) = (listener.local_addr()?, count.clone());
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect(to) else { continue };
            count.connection();
            let owed = Arc::<Mutex<Acknowledgements>>::default();
            for (way, (mut from, mut to)) in [(near.try_clone(), far.try_clone()), (Ok(far), Ok(near))]
                .into_iter()
                .filter_map(|(f, t)| Some((f.ok()?, t.ok()?)))
                .enumerate()
            {
                let (count, owed) = (count.clone(), owed.clone());
                std::thread::spawn(move || {
                    let mut buffer = [0; 16_384];
                    while let Ok(n @ 1..) = from.read(&mut buffer) {
                        count.tcp(n);
                        let alone = owed.lock().map_or(0, |mut o| o.passes(way, Instant::now()));
                        (0..alone).for_each(|_| count.acknowledgement());
                        if to.write_all(&buffer[..n]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(Shutdown::Both);
                });
            }
        }
    });
    Ok(at)
}

/// Where collectd sends its packets.
///
/// # Errors
/// If there is no address for it.
pub fn sink(count: &Count) -> Result<SocketAddr> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let (at, count) = (socket.local_addr()?, count.clone());
    std::thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok(n) = socket.recv(&mut buffer) {
            count.udp(n);
        }
    });
    Ok(at)
}

/// A Zabbix server that wants these items each minute and takes what it gets. Says how many values that were.
///
/// # Errors
/// If there is no address for it.
pub fn zabbix(items: &'static [&'static str], count: &Count) -> Result<(SocketAddr, Arc<AtomicU64>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (at, count, values) = (listener.local_addr()?, count.clone(), Arc::<AtomicU64>::default());
    let taken = values.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            count.connection();
            let (count, taken) = (count.clone(), taken.clone());
            std::thread::spawn(move || {
                if let Ok(n) = answer(stream, items, &count) {
                    taken.fetch_add(n, Ordering::Relaxed);
                }
            });
        }
    });
    Ok((at, values))
}

/// One request of a Zabbix agent; how many values were in it.
fn answer(mut stream: TcpStream, items: &[&str], count: &Count) -> Result<u64> {
    const COMPRESSED: u8 = 2;
    stream.set_read_timeout(Some(WITHIN))?;
    let mut head = [0; 13];
    stream.read_exact(&mut head)?;
    ensure!(head.starts_with(b"ZBXD"), "not Zabbix's protocol");
    let length = u32::from_le_bytes(head[5..9].try_into()?) as usize;
    ensure!(length < 1 << 20, "too long");
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    count.tcp(head.len() + body.len());
    if head[4] & COMPRESSED != 0 {
        body = miniz_oxide::inflate::decompress_to_vec_zlib(&body).map_err(|e| anyhow::anyhow!("{e}"))?;
    }
    let asked: Value = serde_json::from_slice(&body)?;
    let values = asked["data"].as_array().map_or(0, Vec::len);
    let said = match asked["request"].as_str() {
        Some("active checks") => {
            let item = |(n, key): (usize, &&str)| json!({"key": key, "key_orig": key, "itemid": n + 1, "delay": "60s", "timeout": "3s", "lastlogsize": 0, "mtime": 0});
            let data: Vec<_> = items.iter().enumerate().map(item).collect();
            json!({"response": "success", "config_revision": 1, "data": data})
        }
        Some("agent data") => {
            let info = format!("processed: {values}; failed: 0; total: {values}; seconds spent: 0.000100");
            json!({"response": "success", "info": info})
        }
        _ => json!({"response": "success"}),
    };
    let body = said.to_string();
    let mut packet = b"ZBXD\x01".to_vec();
    packet.extend(u32::try_from(body.len())?.to_le_bytes());
    packet.extend([0; 4]);
    packet.extend(body.as_bytes());
    stream.write_all(&packet)?;
    count.tcp(packet.len());
    count.acknowledgement();
    Ok(values as u64)
}

/// Asks a page of metrics over and over, as a Prometheus would, until this is dropped.
pub struct Scraper(Arc<AtomicBool>);

impl Drop for Scraper {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Scraper {
    /// Asks at once, once more for as long as nobody answers, and then so often.
    ///
    /// # Errors
    /// If nobody answers within two minutes.
    pub fn new(at: SocketAddr, path: &'static str, every: Duration) -> Result<Self> {
        let mut tries = 0;
        while let Err(e) = scrape(at, path) {
            tries += 1;
            ensure!(tries < 240, "no metrics at http://{at}{path}: {e:#}");
            std::thread::sleep(Duration::from_millis(500));
        }
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(every);
                let _ = scrape(at, path);
            }
        });
        Ok(Self(stop))
    }
}

/// One page of metrics, packed.
fn scrape(at: SocketAddr, path: &str) -> Result<()> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(WITHIN))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: bench\r\nUser-Agent: Prometheus/2.42.0\r\n\
         Accept: text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\nAccept-Encoding: gzip\r\n\
         X-Prometheus-Scrape-Timeout-Seconds: 10\r\nConnection: close\r\n\r\n"
    )?;
    let mut page = Vec::new();
    stream.read_to_end(&mut page)?;
    let head = page.split(|b| *b == b'\r').next().context("no answer")?;
    ensure!(head.ends_with(b"200 OK") && page.len() > 1000, "{}", String::from_utf8_lossy(head));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_comes_at_once_acknowledges() {
        let (mut a, t) = (Acknowledgements::default(), Instant::now());
        let at = |ms| t + Duration::from_millis(ms);
        assert_eq!(a.passes(0, at(0)), 0);
        assert_eq!(a.passes(1, at(5)), 0, "with the answer");
        assert_eq!(a.passes(0, at(30_000)), 1, "the answer's own went alone");
        assert_eq!(a.passes(0, at(30_001)), 1, "the second packet is acknowledged at once");
        assert_eq!(a.passes(1, at(30_002)), 0);
        assert_eq!(a.passes(0, at(60_000)), 1);
        assert_eq!(a.passes(1, at(60_100)), 1, "too late to go along");
    }
}
