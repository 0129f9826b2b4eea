//! Viewers that vanish at every stage of SPICE and VNC, against the display servers of a real QEMU.
//!
//! `make torture` runs 10,000 rounds and then the negative control, which speaks to QEMU without the guard and
//! kills it; `make test` runs 200. `TRAM_TORTURE_ROUNDS` and `TRAM_TORTURE_SEED` choose others.

use std::io::IoSlice;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream as StdStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use num_bigint::BigUint;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tram_controller::gateway::protocol::spice::guard;
use tram_controller::gateway::protocol::spice::session::Channels;
use tram_controller::gateway::protocol::vnc;
use tram_controller::gateway::shape::Grant;

const SOON: Duration = Duration::from_secs(60);
const MAIN: u8 = 1;
const DISPLAY: u8 = 2;
const INPUTS: u8 = 3;
const CURSOR: u8 = 4;

/// Numbers that look random and come again with the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % n
    }
}

/// A computer without a disk; its firmware draws a screen.
struct Guest {
    child: Child,
    qmp: Mutex<BufReader<UnixStream>>,
    ports: (u16, u16),
    _folder: TempDir,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

impl Guest {
    async fn start(video: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("qmp.sock");
        let spice = free_port()?;
        let vnc =
            std::iter::repeat_with(free_port).find(|p| p.as_ref().map_or(true, |p| *p > 5900)).context("port")??;
        let child = Command::new("qemu-system-x86_64")
            .args(["-accel", "tcg", "-m", "64", "-nodefaults", "-display", "none", "-vga", video])
            .args(["-spice", &format!("addr=127.0.0.1,port={spice},disable-ticketing=on")])
            .args(["-vnc", &format!("127.0.0.1:{}", vnc - 5900)])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", socket.display())])
            .stdin(Stdio::null())
            // Its server complains of every viewer that breaks off.
            .stderr(Stdio::null())
            .spawn()?;
        let mut guest = None;
        for _ in 0..600 {
            if let Ok(stream) = UnixStream::connect(&socket).await {
                guest = Some(stream);
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        let qmp = Mutex::new(BufReader::new(guest.context("QEMU did not start")?));
        let mut guest = Self { child, qmp, ports: (spice, vnc), _folder: folder };
        guest.ask(r#"{"execute":"qmp_capabilities"}"#, None).await?;
        ensure!(guest.alive(), "QEMU is gone");
        Ok(guest)
    }

    fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    async fn ask(&self, words: &str, fd: Option<&StdStream>) -> Result<()> {
        let mut qmp = self.qmp.lock().await;
        match fd {
            None => qmp.get_mut().write_all(words.as_bytes()).await?,
            Some(fd) => {
                let fds = [fd.as_raw_fd()];
                let with = [ControlMessage::ScmRights(&fds)];
                let socket = qmp.get_ref().as_raw_fd();
                sendmsg::<()>(socket, &[IoSlice::new(words.as_bytes())], &with, MsgFlags::empty(), None)?;
            }
        }
        loop {
            let mut line = String::new();
            if timeout(SOON, qmp.read_line(&mut line)).await.context("QMP is stuck")?? == 0 {
                bail!("QMP ended");
            }
            if line.contains("\"error\"") {
                bail!("{words}: {line}");
            }
            if line.contains("\"return\"") {
                return Ok(());
            }
        }
    }

    /// A way to a display server: a descriptor, as libvirt hands it over, or a TCP port.
    async fn open(&self, protocol: &str, tcp: bool) -> Result<UnixStream> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let ours = UnixStream::from_std(ours)?;
        if tcp {
            let port = if protocol == "spice" { self.ports.0 } else { self.ports.1 };
            let mut far = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
            theirs.set_nonblocking(true)?;
            let mut near = UnixStream::from_std(theirs)?;
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        } else {
            // A name of its own: channels come at the same time.
            let name = format!("d{}", ours.as_raw_fd());
            let get = format!(r#"{{"execute":"getfd","arguments":{{"fdname":"{name}"}}}}"#);
            self.ask(&get, Some(&theirs)).await?;
            let add = format!(
                r#"{{"execute":"add_client","arguments":{{"protocol":"{protocol}","fdname":"{name}","skipauth":true}}}}"#
            );
            self.ask(&add, None).await?;
        }
        Ok(ours)
    }
}

/// An empty ticket, padded as OAEP wants it. QEMU decrypts even what it then does not look at.
const EMPTY: &[u8] = b"\
    0003347751a366ea104c069bdf4bd1a37e8e7fa749d8bcf0367fb055802993d44ae1a0fb809edd2e3899f37263a57417\
    1d607880917aefcf642294b08b982711c0fa68f6485f62c73054ab50a0c756695e2a53bd585a81948527ecf015614f8b\
    be3e96feaa86894fd543fb37ca4ca358ca98880783dd07a56fdbe4be7dd44e45";

/// The ticket for the key in a reply: RSA with 1024 bits, whose modulus stands before the exponent 65537.
fn ticket(reply: &[u8]) -> Vec<u8> {
    let modulus = BigUint::from_bytes_be(&reply[4 + 29..4 + 29 + 128]);
    let padded = BigUint::parse_bytes(EMPTY, 16).expect("digits");
    let secret = padded.modpow(&BigUint::from(65_537u32), &modulus).to_bytes_be();
    [&1u32.to_le_bytes()[..], &vec![0; 128 - secret.len()], &secret].concat()
}

fn link(connection: u32, kind: u8) -> Vec<u8> {
    let mut words = b"REDQ".to_vec();
    for n in [2, 2, 22, connection] {
        words.extend_from_slice(&u32::to_le_bytes(n));
    }
    words.extend_from_slice(&[kind, 0]);
    for n in [1, 0, 18, 0b1011] {
        words.extend_from_slice(&u32::to_le_bytes(n));
    }
    words
}

fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &(body.len() as u32).to_le_bytes(), body].concat()
}

/// A viewer's channel up to `bytes` of what it says by itself; then it is left as it is. The answer: the
/// session's id, if it is `MAIN` and came that far.
async fn speak(stream: &mut UnixStream, connection: u32, kind: u8, bytes: usize) -> Result<Option<u32>> {
    let mut left = bytes;
    let mut say = async |stream: &mut UnixStream, words: &[u8]| -> Result<bool> {
        let n = words.len().min(left);
        left -= n;
        stream.write_all(&words[..n]).await?;
        Ok(n == words.len())
    };
    if !say(stream, &link(connection, kind)).await? {
        return Ok(None);
    }
    let mut header = [0; 16];
    stream.read_exact(&mut header).await?;
    let mut reply = vec![0; u32::from_le_bytes([header[12], header[13], header[14], header[15]]) as usize];
    stream.read_exact(&mut reply).await?;
    ensure!(reply[..4] == [0; 4], "refused: {:?}", &reply[..4]);
    if !say(stream, &ticket(&reply)).await? {
        return Ok(None);
    }
    let mut result = [9; 4];
    stream.read_exact(&mut result).await?;
    ensure!(result == [0; 4], "not let in: {result:?}");
    if kind == MAIN {
        loop {
            let mut head = [0; 6];
            stream.read_exact(&mut head).await?;
            let mut body = vec![0; u32::from_le_bytes([head[2], head[3], head[4], head[5]]) as usize];
            stream.read_exact(&mut body).await?;
            if head[..2] == [103, 0] {
                return Ok(Some(u32::from_le_bytes([body[0], body[1], body[2], body[3]])));
            }
        }
    }
    if kind == DISPLAY && !say(stream, &message(101, &[1, 0, 0, 0x50, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0])).await? {
        return Ok(None);
    }
    // A key, half a key, or nothing.
    let _ = say(stream, &message(if kind == INPUTS { 101 } else { 3 }, &[30, 0, 0, 0])).await?;
    Ok(None)
}

/// What a viewer says on a channel, in bytes.
const WHOLE: u64 = 38 + 132 + 20 + 10;

/// The viewer's end of a channel, and the gateway's task behind it.
async fn channel(
    guest: &Arc<Guest>,
    channels: &Channels,
    tcp: bool,
) -> Result<(UnixStream, tokio::task::JoinHandle<()>)> {
    let (viewer, mut ours) = UnixStream::pair()?;
    let (guest, channels) = (guest.clone(), channels.clone());
    let task = tokio::spawn(async move {
        let open = || guest.open("spice", tcp);
        let Ok(linked) = guard::link(&mut ours, &channels, SOON, open).await else { return };
        let (from, mut to) = ours.into_split();
        linked.carry(&mut BufReader::new(from), &mut to, |_| {}, || std::future::ready(Grant::free(usize::MAX))).await;
    });
    Ok((viewer, task))
}

/// One session: `MAIN`, and then channels that end anywhere, before or after it.
async fn spice_round(guest: &Arc<Guest>, dice: &mut Dice) -> Result<()> {
    let tcp = dice.below(2) == 0;
    let channels = Channels::default();
    let (mut main, main_task) = channel(guest, &channels, tcp).await?;
    if dice.below(8) == 0 {
        let bytes = dice.below(WHOLE) as usize;
        let _ = timeout(SOON, speak(&mut main, 0, MAIN, bytes)).await?;
        return Ok(());
    }
    let id = timeout(SOON, speak(&mut main, 0, MAIN, usize::MAX)).await.context("MAIN")??.context("no id")?;
    let mut open = Vec::new();
    for kind in [DISPLAY, INPUTS, CURSOR, DISPLAY] {
        // The second display channel comes only where the first one was cut short.
        if dice.below(4) == 0 && kind != DISPLAY {
            continue;
        }
        let (mut viewer, task) = channel(guest, &channels, tcp).await?;
        let bytes = dice.below(WHOLE + 40) as usize;
        let spoken = timeout(SOON, speak(&mut viewer, id, kind, bytes)).await.context("a channel is stuck")?;
        if dice.below(2) == 0 && spoken.is_ok() {
            open.push((viewer, task));
        } else if dice.below(2) == 0 {
            // The tunnel ends, and its tasks with it.
            task.abort();
        }
    }
    if dice.below(3) == 0 {
        sleep(Duration::from_millis(dice.below(30))).await;
    }
    let mut main = Some((main, main_task));
    while let Some((viewer, task)) = open.pop() {
        if dice.below(3) == 0 {
            main = None;
        }
        if dice.below(2) == 0 {
            task.abort();
        }
        drop(viewer);
    }
    drop(main);
    Ok(())
}

/// A viewer of RFB that goes away anywhere, from the first byte to fifty pictures nobody reads.
async fn vnc_round(guest: &Guest, dice: &mut Dice) -> Result<()> {
    let mut display = guest.open("vnc", dice.below(2) == 0).await?;
    if dice.below(3) == 0 {
        let words = [&vnc::VERSION[..], &[vnc::NONE, vnc::SHARED]].concat();
        let n = dice.below(words.len() as u64 + 1) as usize;
        let _ = display.write_all(&words[..n]).await;
        return Ok(());
    }
    timeout(SOON, vnc::greet(&mut display)).await??;
    let mut words = vec![vnc::SHARED];
    for _ in 0..50 {
        words.extend_from_slice(&[3, 0, 0, 0, 0, 0, 2, 0, 1, 0]);
    }
    let n = dice.below(words.len() as u64 + 1) as usize;
    let _ = display.write_all(&words[..n]).await;
    if dice.below(4) == 0 {
        let _ = timeout(Duration::from_millis(dice.below(30)), display.read(&mut [0; 4096])).await;
    }
    Ok(())
}

/// Ends of the gateway's stages that no viewer may stretch or skip, each against a QEMU that must not notice.
#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_rules_of_a_link_never_reaches_the_desktop() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let guest = Arc::new(Guest::start("virtio").await?);
    let channels = Channels::default();
    let refused = async |words: Vec<u8>| -> Result<u32> {
        let (mut viewer, task) = channel(&guest, &channels, false).await?;
        viewer.write_all(&words).await?;
        let mut reply = [0; 20];
        timeout(SOON, viewer.read_exact(&mut reply)).await??;
        let mut rest = Vec::new();
        // Its end, which is a reset where words were left unread.
        let _ = timeout(SOON, viewer.read_to_end(&mut rest)).await?;
        timeout(SOON, task).await??;
        Ok(u32::from_le_bytes([reply[16], reply[17], reply[18], reply[19]]))
    };
    let (mut main, _task) = channel(&guest, &channels, false).await?;
    let id = speak(&mut main, 0, MAIN, usize::MAX).await?.context("no id")?;
    ensure!(refused(link(0, MAIN)).await? == 9, "a second MAIN");
    ensure!(refused(link(id.wrapping_add(1), INPUTS)).await? == 8, "a made-up session");
    for kind in [6, 8, 9, 10, 11] {
        ensure!(refused(link(id, kind)).await? == 7, "channel type {kind}");
    }
    let mut endless = link(id, INPUTS);
    endless[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    ensure!(refused(endless).await? == 3, "a link of 2^32-1 bytes");

    // A viewer that is let in and then says nothing is left after a while; QMP answers all that time.
    let (mut silent, task) = channel(&guest, &channels, false).await?;
    speak(&mut silent, id, DISPLAY, 38 + 132).await?;
    while !task.is_finished() {
        guest.ask(r#"{"execute":"query-status"}"#, None).await?;
        sleep(Duration::from_millis(50)).await;
    }
    ensure!(timeout(SOON, silent.read(&mut [0; 8])).await?? == 0, "the silent channel was closed");
    let mut wrong = message(102, &[0; 14]);
    for words in [std::mem::take(&mut wrong), message(101, &[0; 65])] {
        let (mut viewer, task) = channel(&guest, &channels, false).await?;
        speak(&mut viewer, id, DISPLAY, 38 + 132).await?;
        viewer.write_all(&words).await?;
        timeout(SOON, task).await.context("something else than DISPLAY_INIT came first")??;
    }
    // MAIN is as it was.
    let (mut inputs, _task) = channel(&guest, &channels, false).await?;
    speak(&mut inputs, id, INPUTS, 38 + 132).await?;
    guest.ask(r#"{"execute":"query-status"}"#, None).await
}

/// How long QMP takes to answer, asked every few milliseconds for a while: the worst of a hundred, and the worst.
async fn qmp_times(guest: &Guest, time: Duration) -> Result<(Duration, Duration)> {
    let (began, mut times) = (Instant::now(), Vec::new());
    while began.elapsed() < time {
        let asked = Instant::now();
        guest.ask(r#"{"execute":"query-status"}"#, None).await?;
        times.push(asked.elapsed());
        sleep(Duration::from_millis(5)).await;
    }
    times.sort();
    ensure!(times.len() >= 100, "only {} answers", times.len());
    Ok((times[times.len() * 99 / 100], times[times.len() - 1]))
}

/// Display channels whose viewers are let in and then say nothing, one after the other all the time: each is closed
/// after 5 s, and QEMU's main loop, which such a channel used to hold up for half a minute, does not feel them.
/// `make torture` takes 60 s for it.
#[tokio::test(flavor = "multi_thread")]
async fn torture_silent_display_links_hold_nothing_up() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let time = Duration::from_secs(number("TRAM_SILENT_SECONDS", 12));
    let guest = Arc::new(Guest::start("virtio").await?);
    let channels = Channels::default();
    let (mut main, _task) = channel(&guest, &channels, false).await?;
    let id = speak(&mut main, 0, MAIN, usize::MAX).await?.context("no id")?;
    let (before, _) = qmp_times(&guest, time.min(Duration::from_secs(5))).await?;

    let stop = tokio_util::sync::CancellationToken::new();
    let silent: Vec<_> = (0..8)
        .map(|_| {
            let (guest, channels, stop) = (guest.clone(), channels.clone(), stop.clone());
            tokio::spawn(async move {
                let mut closed = 0;
                while !stop.is_cancelled() {
                    let (mut viewer, task) = channel(&guest, &channels, false).await?;
                    speak(&mut viewer, id, DISPLAY, 38 + 132).await?;
                    // Not a byte of DISPLAY_INIT; the gateway gives up, QEMU never hears of it.
                    timeout(SOON, task).await.context("a silent channel is kept")??;
                    closed += 1;
                }
                anyhow::Ok(closed)
            })
        })
        .collect();
    let (p99, worst) = qmp_times(&guest, time).await?;
    stop.cancel();
    let mut closed = 0;
    for task in silent {
        closed += timeout(SOON, task).await???;
    }
    let (after, _) = qmp_times(&guest, time.min(Duration::from_secs(5))).await?;
    eprintln!(
        "QMP over {time:?}: p99 {p99:?}, worst {worst:?} with {closed} silent channels; p99 without {before:?}, {after:?}"
    );
    ensure!(closed >= 16, "{closed} silent channels in {time:?}");
    ensure!(worst < Duration::from_secs(10), "QEMU stood still for {worst:?}");
    // A claim about time needs a machine that has some: what a busy one takes without such channels is no fault of theirs.
    let fair = Duration::from_millis(50).max(before.max(after) * 3);
    ensure!(time < Duration::from_secs(60) || p99 < fair, "p99 {p99:?}, without {before:?} and {after:?}");
    // And the session is as it was.
    let (mut inputs, _task) = channel(&guest, &channels, false).await?;
    speak(&mut inputs, id, INPUTS, 38 + 132).await?;
    Ok(())
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}

fn skipped() -> bool {
    let skip = std::env::var_os("TRAM_SKIP_QEMU").is_some();
    if skip {
        eprintln!("TRAM_SKIP_QEMU is set: no viewer vanishes on QEMU");
    }
    skip
}

#[tokio::test(flavor = "multi_thread")]
async fn torture_no_disconnect_kills_a_desktop() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let (rounds, seed) = (number("TRAM_TORTURE_ROUNDS", 200), number("TRAM_TORTURE_SEED", 2026));
    let began = std::time::Instant::now();
    let mut dice = Dice(seed.max(1));
    for (part, video) in ["qxl", "virtio"].into_iter().enumerate() {
        let mut guest = Arc::new(Guest::start(video).await?);
        for round in 0..rounds / 2 + part as u64 * (rounds % 2) {
            let done = async {
                if dice.below(4) == 0 {
                    vnc_round(&guest, &mut dice).await
                } else {
                    spice_round(&guest, &mut dice).await
                }
            };
            // An error may be QEMU's way to say that a former `MAIN` is not yet gone; its death is not.
            let result = done.await;
            let say = |what: &str| format!("{video}, seed {seed}, round {round}: {what}: {result:?}");
            guest.ask(r#"{"execute":"query-status"}"#, None).await.with_context(|| say("QEMU died"))?;
            if round % 16 == 0
                && let Some(guest) = Arc::get_mut(&mut guest)
            {
                ensure!(guest.alive(), say("QEMU died"));
            }
            ensure!(result.is_ok(), say("a viewer was not served"));
        }
    }
    eprintln!("{rounds} rounds, seed {seed}: no QEMU died, {:?}", began.elapsed());
    Ok(())
}

/// The negative control: without the guard the first disconnect of this kind is the end of QEMU. When this
/// fails, the SPICE server was mended and the guard may go.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "kills a QEMU of its own on purpose"]
async fn torture_without_the_guard_the_same_disconnects_kill() -> Result<()> {
    for (video, tcp) in [("qxl", false), ("qxl", true), ("virtio", false), ("virtio", true)] {
        let guest = Guest::start(video).await?;
        let mut died_at = None;
        for round in 0..20 {
            let Ok(mut main) = guest.open("spice", tcp).await else {
                died_at = Some(round);
                break;
            };
            let Ok(Ok(Some(id))) = timeout(SOON, speak(&mut main, 0, MAIN, usize::MAX)).await else {
                died_at = Some(round);
                break;
            };
            let Ok(mut display) = guest.open("spice", tcp).await else {
                died_at = Some(round);
                break;
            };
            // The link and the ticket, and not one byte of DISPLAY_INIT.
            let _ = timeout(SOON, speak(&mut display, id, DISPLAY, 38 + 132)).await;
            drop(display);
            sleep(Duration::from_millis(200)).await;
            drop(main);
        }
        let mut guest = guest;
        let status = guest.child.try_wait()?;
        ensure!(status.is_some() == died_at.is_some(), "{video}, {tcp}: {status:?} after {died_at:?} rounds");
        eprintln!(
            "{video}, {}: QEMU died ({status:?}) after {died_at:?} rounds",
            if tcp { "TCP" } else { "descriptor" }
        );
        ensure!(died_at.is_some(), "{video}: QEMU outlived the disconnects");
    }
    Ok(())
}
