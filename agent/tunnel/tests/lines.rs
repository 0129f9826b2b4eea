//! Tunnels over connections that break.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tram_tunnel::{Limits, LineEnd, Role, Stream, Tunnel, read_words, write_words};
use tram_wire::tunnel::{Class, Fault};

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

struct Ends {
    agent: Tunnel,
    gateway: Tunnel,
}

impl Ends {
    fn new() -> Self {
        let limits = Limits::default();
        Self { agent: Tunnel::new(Role::Agent, limits), gateway: Tunnel::new(Role::Gateway, limits) }
    }

    /// A connection with small buffers: half of what is under way is in them when it is cut.
    fn connect(&self) -> [JoinHandle<LineEnd>; 2] {
        let (a, g) = duplex(3000);
        self.connect_over(a, g)
    }

    /// A connection that breaks after it has carried so many bytes each way.
    fn connect_for(&self, bytes: u64) -> [JoinHandle<LineEnd>; 2] {
        let ((a, near), (far, g)) = (duplex(3000), duplex(3000));
        tokio::spawn(async move {
            let ((near_r, mut near_w), (far_r, mut far_w)) = (tokio::io::split(near), tokio::io::split(far));
            let (mut up, mut down) = (near_r.take(bytes), far_r.take(bytes));
            let _ = tokio::join!(tokio::io::copy(&mut up, &mut far_w), tokio::io::copy(&mut down, &mut near_w));
        });
        self.connect_over(a, g)
    }

    fn connect_over(&self, a: DuplexStream, g: DuplexStream) -> [JoinHandle<LineEnd>; 2] {
        let (from_agent, from_gateway) = (self.agent.stop(), self.gateway.stop());
        let (agent, gateway) = (self.agent.clone(), self.gateway.clone());
        [
            tokio::spawn(async move { agent.drive(a, from_gateway).await }),
            tokio::spawn(async move { gateway.drive(g, from_agent).await }),
        ]
    }

    async fn stream(&self) -> (Stream, Stream) {
        let ours = self.agent.open(Class::Input, Class::Display, b"who").unwrap();
        let (theirs, header) = timeout(PATIENCE, self.gateway.accept()).await.unwrap().unwrap();
        assert_eq!(header, b"who");
        (ours, theirs)
    }
}

fn pattern(seed: u32, n: usize) -> Vec<u8> {
    (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) as u8).collect()
}

#[tokio::test]
async fn a_stream_is_a_pipe() {
    let ends = Ends::new();
    let _lines = ends.connect();
    let (mut a, mut g) = ends.stream().await;
    a.write_all(b"up").await.unwrap();
    g.write_all(b"down").await.unwrap();
    let mut two = [0; 2];
    g.read_exact(&mut two).await.unwrap();
    let mut four = [0; 4];
    a.read_exact(&mut four).await.unwrap();
    assert_eq!((&two, &four), (b"up", b"down"));
    a.shutdown().await.unwrap();
    assert_eq!(g.read(&mut two).await.unwrap(), 0);
    drop(g);
    let gone = timeout(PATIENCE, a.read(&mut two)).await.unwrap().unwrap_err();
    assert_eq!(gone.kind(), std::io::ErrorKind::ConnectionReset);
    ends.gateway.send(b"{\"kind\":\"ended\"}").unwrap();
    assert_eq!(timeout(PATIENCE, ends.agent.message()).await.unwrap().unwrap(), b"{\"kind\":\"ended\"}");
}

#[tokio::test]
async fn megabytes_survive_a_hundred_cuts() {
    let ends = Ends::new();
    let first = ends.connect();
    let (a, g) = ends.stream().await;
    let n = 3 << 20;
    let both = move |mut s: Stream, own: u32, other: u32| async move {
        let (mut r, mut w) = tokio::io::split(&mut s);
        let write = async {
            w.write_all(&pattern(own, n)).await.unwrap();
            w.shutdown().await.unwrap();
        };
        let read = async {
            let mut got = Vec::new();
            r.read_to_end(&mut got).await.unwrap();
            assert!(got == pattern(other, n), "{} bytes, or not the right ones", got.len());
        };
        tokio::join!(write, read);
    };
    let mut work = tokio::spawn(async move { tokio::join!(both(a, 1, 2), both(g, 2, 1)) });
    drop(first);
    for cut in 0..100 {
        // Each connection carries so many bytes, whatever they are the middle of, and is gone.
        let lines = ends.connect_for(1 + cut * 397 % 40_000);
        for line in lines {
            timeout(PATIENCE, line).await.unwrap().unwrap();
        }
        assert!(!work.is_finished(), "it was over after {cut} cuts");
    }
    let _lines = ends.connect();
    timeout(PATIENCE, &mut work).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_newer_connection_takes_over_and_the_older_one_says_so() {
    let ends = Ends::new();
    let old = ends.connect();
    let (mut a, mut g) = ends.stream().await;
    let _new = ends.connect();
    for line in old {
        let end = timeout(PATIENCE, line).await.unwrap().unwrap();
        // Whichever end noticed first closed it for the other.
        assert!(matches!(end, LineEnd::Superseded | LineEnd::Lost(_)), "{end:?}");
    }
    a.write_all(b"on").await.unwrap();
    let mut two = [0; 2];
    timeout(PATIENCE, g.read_exact(&mut two)).await.unwrap().unwrap();
    assert_eq!(&two, b"on");
}

#[tokio::test]
async fn a_closed_tunnel_ends_everything_that_waits() {
    let ends = Ends::new();
    let [line, _] = ends.connect();
    let (mut a, _g) = ends.stream().await;
    let reader = tokio::spawn(async move { a.read(&mut [0; 1]).await });
    let agent = ends.agent.clone();
    let listener = tokio::spawn(async move { agent.message().await });
    tokio::task::yield_now().await;
    ends.agent.close();
    assert!(timeout(PATIENCE, reader).await.unwrap().unwrap().is_err());
    assert_eq!(timeout(PATIENCE, listener).await.unwrap().unwrap(), None);
    assert!(matches!(timeout(PATIENCE, line).await.unwrap().unwrap(), LineEnd::Closed | LineEnd::Lost(_)));
    assert!(ends.agent.open(Class::Input, Class::Display, b"").is_err());
}

#[tokio::test(start_paused = true)]
async fn a_line_that_swallows_everything_is_noticed() {
    let agent = Tunnel::new(Role::Agent, Limits::default());
    let (io, _swallows) = duplex(1 << 20);
    let end = agent.drive(io, 0).await;
    assert!(matches!(end, LineEnd::Silent), "{end:?}");
    assert!(!agent.is_up());
}

#[tokio::test(start_paused = true)]
async fn a_line_that_takes_nothing_is_noticed_too() {
    let agent = Tunnel::new(Role::Agent, Limits::default());
    let (io, _full) = duplex(8);
    let stream = agent.open(Class::Bulk, Class::Bulk, b"").unwrap();
    let end = agent.drive(io, 0).await;
    assert!(matches!(end, LineEnd::Silent), "{end:?}");
    drop(stream);
}

#[tokio::test]
async fn noise_is_a_fault_and_the_tunnel_goes_on_elsewhere() {
    let ends = Ends::new();
    let (mut noise, g) = duplex(4096);
    let gateway = ends.gateway.clone();
    let line = tokio::spawn(async move { gateway.drive(g, 0).await });
    noise.write_all(&[0xff; 64]).await.unwrap();
    let end = timeout(PATIENCE, line).await.unwrap().unwrap();
    assert!(matches!(end, LineEnd::Fault(Fault::Kind)), "{end:?}");
    let _lines = ends.connect();
    ends.stream().await;
}

#[tokio::test]
async fn first_words_are_read_to_the_byte() {
    let (mut a, mut g) = duplex(4096);
    write_words(&mut a, b"{\"kind\":\"hello\"}").await.unwrap();
    a.write_all(b"rest").await.unwrap();
    assert_eq!(read_words(&mut g).await.unwrap(), b"{\"kind\":\"hello\"}");
    let mut rest = [0; 4];
    g.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"rest");
    a.write_all(&[2; 32]).await.unwrap();
    assert_eq!(read_words(&mut g).await.unwrap_err().kind(), std::io::ErrorKind::InvalidData);
}
