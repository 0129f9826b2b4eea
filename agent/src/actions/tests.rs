//! Orders, from the signature to the last word, with a made-up computer.

use std::path::Path;

use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;
use tram_wire::diagnosis::{Bundle, OrderKey, Outcome, Step, Target, VERSION, Work};

use super::*;
use crate::host::fake::Fake;

const NOW: i64 = 1_795_000_000_000;
const HERE: &str = "01992f3c-7a10-7c3e-8a41-5f0c7d1e2b3a";
const THERE: &str = "01992f3c-7a10-7c3e-8a41-5f0c7d1e2b3b";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

struct Controller(Ed25519KeyPair);

impl Controller {
    fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    fn key(&self) -> OrderKey {
        OrderKey { id: "k".into(), public: hex(self.0.public_key().as_ref()) }
    }

    fn sign_text(&self, id: OrderId, order: String) -> SignedOrder {
        let mut signed = SignedOrder { id, key: "k".into(), order, signature: String::new() };
        signed.signature = hex(self.0.sign(&signed.signed_bytes()).as_ref());
        signed
    }

    fn sign(&self, order: &Order) -> SignedOrder {
        self.sign_text(order.id, serde_json::to_string(order).unwrap())
    }
}

fn order(n: u64, work: Work) -> Order {
    Order {
        version: VERSION,
        id: id(n),
        installation: HERE.parse().unwrap(),
        endpoint: HERE.parse().unwrap(),
        by: "Hoa".into(),
        agreed: None,
        why: "chậm".into(),
        work,
        issued_ms: NOW - 1000,
        expires_ms: NOW + 30_000,
    }
}

fn id(n: u64) -> OrderId {
    format!("00000000-0000-0000-0000-{n:012x}").parse().unwrap()
}

fn ping() -> Work {
    Work::Action(Action::Ping { to: Target::Gateway, count: 3 })
}

fn gate(state: &Path) -> (Gate, Controller) {
    let c = Controller::new(1);
    let mut g = Gate::open(state, &state.join("deny"), HERE.parse().unwrap());
    g.keys(&[c.key()]);
    (g, c)
}

fn code(r: Result<Order, (Option<Box<Order>>, Refused)>) -> &'static str {
    r.map_or_else(|(_, e)| e.code(), |_| "good")
}

#[test]
fn only_what_the_controller_signed_for_this_computer_now_is_obeyed_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut g, c) = gate(dir.path());
    let good = c.sign(&order(1, ping()));
    // One bit anywhere, another key under the same name, a key nobody gave, no context, and rubbish.
    for at in [0, good.order.len() / 2, good.order.len() - 1] {
        let mut bytes = good.order.clone().into_bytes();
        bytes[at] ^= 1;
        let bad = SignedOrder { order: String::from_utf8(bytes).unwrap(), ..good.clone() };
        assert_eq!(code(g.prove(&bad, NOW)), "signature");
    }
    assert_eq!(code(g.prove(&Controller::new(2).sign(&order(1, ping())), NOW)), "signature");
    assert_eq!(code(g.prove(&SignedOrder { key: "z".into(), ..good.clone() }, NOW)), "key");
    let bare = hex(c.0.sign(good.order.as_bytes()).as_ref());
    assert_eq!(code(g.prove(&SignedOrder { signature: bare, ..good.clone() }, NOW)), "signature");
    for (bad, want) in [
        ("", "malformed"),
        ("zz", "malformed"),
        (&"é".repeat(64), "signature"),
        (&"0".repeat(128), "signature"),
        (&"0".repeat(1 << 16), "malformed"),
    ] {
        assert_eq!(code(g.prove(&SignedOrder { signature: bad.into(), ..good.clone() }, NOW)), want);
    }
    assert_eq!(code(g.prove(&SignedOrder { order: "x".repeat(20_000), ..good.clone() }, NOW)), "malformed");
    // Under another id than the one signed: what is remembered is the signed one.
    assert_eq!(code(g.prove(&SignedOrder { id: id(9), ..good.clone() }, NOW)), "malformed");
    // For another computer; too late; from the future; good for ever.
    let with = |change: fn(&mut Order)| {
        let mut o = order(2, ping());
        change(&mut o);
        c.sign(&o)
    };
    assert_eq!(code(g.prove(&with(|o| o.endpoint = THERE.parse().unwrap()), NOW)), "endpoint");
    assert_eq!(code(g.prove(&good, NOW + 30_000)), "expired");
    assert_eq!(code(g.prove(&with(|o| o.issued_ms = NOW + 200_000), NOW)), "expired");
    assert_eq!(code(g.prove(&with(|o| o.expires_ms = i64::MAX), NOW)), "expired");
    assert_eq!(code(g.prove(&with(|o| o.version = 2), NOW)), "malformed");
    // Nothing of that was remembered as seen; the good one works once, also after a restart.
    assert_eq!(code(g.prove(&good, NOW)), "good");
    assert_eq!(code(g.prove(&good, NOW)), "replayed");
    let (mut again, _) = gate(dir.path());
    assert_eq!(code(again.prove(&good, NOW)), "replayed");
}

#[test]
fn what_is_signed_and_unknown_or_too_much_is_refused_too() {
    let dir = tempfile::tempdir().unwrap();
    let (mut g, c) = gate(dir.path());
    let mut text = serde_json::to_value(order(3, ping())).unwrap();
    for work in [
        json!({"action": {"do": "shell", "command": "id"}}),
        json!({"action": {"do": "ping", "to": "gateway", "count": 3, "options": "-f"}}),
        json!({"action": {"do": "ping", "to": "-f", "count": 3}}),
        json!({"action": {"do": "ping", "to": "gateway", "count": 9999}}),
        json!({"script": {"text": "id"}}),
    ] {
        text["work"] = work;
        assert_eq!(code(g.prove(&c.sign_text(id(3), text.to_string()), NOW)), "unknown");
    }
    assert_eq!(code(g.prove(&c.sign_text(id(3), "[]".into()), NOW)), "malformed");
}

#[test]
fn the_deny_file_forbids_and_never_allows() {
    let dir = tempfile::tempdir().unwrap();
    let (mut g, c) = gate(dir.path());
    let line = Work::Bundle { bundle: Bundle::Line, listed: Vec::new() };
    let mut n = 100;
    for (text, wants) in [
        ("", ["good", "good"]),
        ("# nothing\n\nreboot # never\n", ["good", "good"]),
        ("ping", ["denied", "denied"]),
        ("network", ["good", "denied"]),
        ("line", ["good", "denied"]),
        ("silent", ["denied", "denied"]),
        ("all", ["denied", "denied"]),
        ("pingg", ["denied", "denied"]),
    ] {
        std::fs::write(dir.path().join("deny"), text).unwrap();
        for (work, want) in [ping(), line.clone()].into_iter().zip(wants) {
            n += 1;
            assert_eq!(code(g.prove(&c.sign(&order(n, work)), NOW)), want, "{text}");
        }
    }
    // One that is there and can't be read.
    std::fs::remove_file(dir.path().join("deny")).unwrap();
    std::fs::create_dir(dir.path().join("deny")).unwrap();
    assert_eq!(code(g.prove(&c.sign(&order(99, ping())), NOW)), "denied");
}

#[test]
fn what_can_not_be_remembered_is_not_done() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("orders-seen.json"), "rubbish").unwrap();
    let (mut g, c) = gate(dir.path());
    assert_eq!(code(g.prove(&c.sign(&order(1, ping())), NOW)), "disk");
    let c = Controller::new(1);
    let mut g = Gate::open(Path::new("/proc/nowhere"), Path::new("/proc/nowhere/deny"), HERE.parse().unwrap());
    g.keys(&[c.key()]);
    assert_eq!(code(g.prove(&c.sign(&order(1, ping())), NOW)), "disk");
}

/// An agent with a made-up computer.
struct Rig {
    orders: Orders,
    controller: Controller,
    dir: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let controller = Controller::new(1);
        let mut orders = Orders::new(dir.path(), &dir.path().join("deny"), HERE.parse().unwrap());
        orders.keys(&[controller.key()]);
        Self { orders, controller, dir }
    }

    fn take(&mut self, n: u64, action: Action, host: &Fake) -> String {
        let signed = self.controller.sign(&order(n, Work::Action(action)));
        self.orders.take(&signed, host, Here::default(), NOW)
    }

    /// All its news until the end.
    async fn course(&mut self) -> Vec<News> {
        let mut all = Vec::new();
        loop {
            let n = self.orders.next().await;
            assert_eq!(n.n as usize, all.len());
            let last = matches!(n.news, News::Ended { .. } | News::Refused { .. });
            all.push(n.news);
            if last {
                return all;
            }
        }
    }
}

fn steps(all: &[News]) -> Vec<&Step> {
    all.iter().filter_map(|n| if let News::Step(s) = n { Some(s) } else { None }).collect()
}

const ROUTE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
    eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n";

#[tokio::test]
async fn a_ping_tells_how_far_it_is_and_what_it_found() {
    let mut rig = Rig::new();
    let mut host = Fake::new().file("/proc/net/route", ROUTE);
    host.pings = vec![("192.168.1.1".parse().unwrap(), Duration::from_micros(510))];
    let said = rig.take(1, Action::Ping { to: Target::Gateway, count: 3 }, &host);
    assert!(said.contains("begun") && said.contains("Hoa") && said.contains("chậm"), "{said}");
    let all = rig.course().await;
    assert_eq!(all[0], News::Begun);
    assert!(matches!(all.last(), Some(News::Ended { outcome: Outcome::Done })));
    let [s] = steps(&all)[..] else { panic!("{all:?}") };
    assert_eq!((s.state, s.code.as_str(), s.facts["median_ms"].as_str()), (CheckState::Ok, "done", "0.51"));
    assert!(all.iter().any(|n| matches!(n, News::Text { .. })));
}

#[tokio::test]
async fn what_never_returns_is_killed_and_what_talks_too_much_is_cut() {
    let mut rig = Rig::new();
    let mut host = Fake::new().program("journalctl", &"0123456\n".repeat(60_000));
    host.programs.push(("systemctl".into(), Err(())));
    let unit = || "cups".to_owned().try_into().unwrap();
    rig.take(1, Action::Journal { unit: unit(), lines: 2000 }, &host);
    let all = rig.course().await;
    let told: usize = all.iter().map(|n| if let News::Text { text, .. } = n { text.len() } else { 0 }).sum();
    assert!(steps(&all)[0].cut && told == 256 * 1024, "{told}");
    assert!(all.len() < 64);
    rig.take(2, Action::Unit { unit: unit() }, &host);
    assert_eq!(steps(&rig.course().await)[0].code, "timed_out");
}

#[tokio::test]
async fn no_more_than_two_at_once_and_a_cancelled_one_ends() {
    let mut rig = Rig::new();
    let host = Fake::new().file("/proc/net/route", ROUTE);
    // Nobody answers at the router: each takes a moment.
    for n in 1..=2 {
        assert!(rig.take(n, Action::Top { count: 1 }, &host).contains("begun"));
    }
    assert!(rig.take(3, Action::Clock {}, &host).contains("busy"));
    rig.orders.cancel(id(1));
    let (mut cancelled, mut busy, mut ended) = (false, false, 0);
    while ended < 2 || !busy {
        match rig.orders.next().await.news {
            News::Ended { outcome } => {
                ended += 1;
                cancelled |= outcome == Outcome::Cancelled;
            }
            News::Refused { code } => busy = code == Refused::Busy,
            _ => {}
        }
    }
    assert!(cancelled);
}

#[tokio::test]
async fn who_must_be_asked_is_asked_and_silence_is_a_no() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut rig = Rig::new();
    let host = Fake::new().program("shutdown -r +1", "");
    rig.take(1, Action::Reboot {}, &host);
    let all = rig.course().await;
    assert_eq!(all, [News::Asking, News::Refused { code: Refused::NobodyThere }]);
    let desk = tokio::net::UnixListener::bind(rig.dir.path().join(SOCKET)).unwrap();
    tokio::spawn(async move {
        for allow in [false, true] {
            let (mut line, _) = desk.accept().await.unwrap();
            let mut asked = String::new();
            line.read_to_string(&mut asked).await.unwrap();
            let q: Question = serde_json::from_str(&asked).unwrap();
            assert_eq!((q.ask, q.action.as_str(), q.who.as_str()), (true, "reboot", "Hoa"));
            line.write_all(&serde_json::to_vec(&Answer { allow }).unwrap()).await.unwrap();
        }
    });
    rig.take(2, Action::Reboot {}, &host);
    assert_eq!(rig.course().await, [News::Asking, News::Refused { code: Refused::Declined }]);
    rig.take(3, Action::Reboot {}, &host);
    assert_eq!(steps(&rig.course().await)[0].code, "done");
}

#[tokio::test]
async fn a_queue_that_cups_does_not_name_is_nobodys() {
    let mut rig = Rig::new();
    let host = Fake::new().program("cancel", "");
    rig.take(1, Action::ClearQueue { printer: "mot-cua".to_owned().try_into().unwrap() }, &host);
    assert_eq!(steps(&rig.course().await)[0].code, "no_printer");
}
