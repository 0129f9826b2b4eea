//! Who asks for what, and what is not done for whom.

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::host::fake::Fake;
use crate::host::{System, peer};

struct Rig {
    rules: Rules,
    dir: TempDir,
}

impl Rig {
    fn new(room: Room) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rules = Rules {
            room,
            uid: peer::own_uid().unwrap(),
            unit: None,
            deny: dir.path().join("deny"),
            root: dir.path().to_owned(),
        };
        Self { rules, dir }
    }

    /// What is answered to these bytes, and what the journal hears.
    fn ask<H: Host>(&self, bytes: &[u8], host: &H) -> (Option<(Answer, String)>, Vec<String>) {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(bytes).unwrap();
        // Nothing more comes: it need not be waited for.
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        let mut log = Vec::new();
        serve(theirs, host, &self.rules, &mut |l| log.push(l.to_owned())).unwrap();
        let mut answer = Vec::new();
        // Who is told no before everything was read is cut off after the answer.
        let _ = ours.read_to_end(&mut answer);
        (Answer::read(&answer), log)
    }

    fn refused<H: Host>(&self, bytes: &[u8], host: &H) -> Option<Why> {
        match self.ask(bytes, host).0 {
            Some((Answer::Refused { why }, said)) if said.is_empty() => Some(why),
            other => panic!("{other:?}"),
        }
    }

    fn file(&self, path: &str, text: &str) {
        let at = self.dir.path().join(path);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::fs::write(at, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(path)).unwrap()
    }
}

fn line(value: &serde_json::Value) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}

#[test]
fn a_service_of_the_list_is_restarted_and_the_journal_hears_of_it() {
    let rig = Rig::new(Room::Helper);
    let host = Fake::new().program("systemctl restart --no-ask-password -- cups", "fine");
    let (answer, log) = rig.ask(&line(&json!({"ask": "restart_unit", "unit": "cups"})), &host);
    assert_eq!(answer, Some((Answer::Ran { code: 0 }, "fine".to_owned())));
    assert!(log[0].contains("restart_unit") && log[0].contains("cups"), "{log:?}");
    assert_eq!(log[1], "restart_unit: ended with 0");
    let (answer, _) = rig.ask(&line(&json!({"ask": "reboot"})), &host);
    assert_eq!(answer, Some((Answer::Absent, String::new())));
}

#[test]
fn rubbish_is_answered_and_done_by_nobody() {
    let rig = Rig::new(Room::Helper);
    let host = Fake::new().program("", "everything runs");
    for bad in [
        &b"\n"[..],
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"{\"ask\":\"shell\",\"command\":\"id\"}\n",
        b"{\"ask\":\"restart_unit\",\"unit\":\"sshd\"}\n",
        b"{\"ask\":\"reboot\"}{\"ask\":\"reboot\"}\n",
        &[0xff; 4096],
        &b"[".repeat(400),
    ] {
        assert_eq!(rig.refused(bad, &host), Some(Why::Malformed));
    }
    // Without an end of line it is none.
    assert_eq!(rig.refused(b"{\"ask\":\"reboot\"}", &host), Some(Why::Malformed));
}

#[test]
fn each_room_has_its_own_requests() {
    let host = Fake::new().program("", "");
    for (room, ask) in [
        (Room::Helper, json!({"ask": "smart_read", "disk": "sda"})),
        (Room::Helper, json!({"ask": "capture", "seconds": 1})),
        (Room::Disks, json!({"ask": "reboot"})),
        (Room::Capture, json!({"ask": "restart_unit", "unit": "cups"})),
    ] {
        assert_eq!(Rig::new(room).refused(&line(&ask), &host), Some(Why::Room), "{ask}");
    }
}

#[test]
fn nobody_but_the_agent_is_served() {
    let host = Fake::new().program("", "");
    let ask = line(&json!({"ask": "reboot"}));
    let mut rig = Rig::new(Room::Helper);
    rig.rules.uid += 1;
    assert_eq!(rig.refused(&ask, &host), Some(Why::Peer));
    // The right user, in another unit: the kiosk's browser.
    let mut rig = Rig::new(Room::Helper);
    rig.rules.unit = Some("tram-agent.service".to_owned());
    assert_eq!(rig.refused(&ask, &host), Some(Why::Peer));
}

#[test]
fn what_the_computer_forbids_is_not_done_for_the_agent_either() {
    let rig = Rig::new(Room::Helper);
    let host = Fake::new().program("", "");
    let ask = line(&json!({"ask": "restart_unit", "unit": "cups"}));
    for (words, denied) in
        [("reboot", false), ("restart_unit", true), ("active", true), ("all", true), ("restart_unitt", true)]
    {
        rig.file("deny", words);
        assert_eq!(
            matches!(rig.ask(&ask, &host).0, Some((Answer::Refused { why: Why::Denied }, _))),
            denied,
            "{words}"
        );
    }
}

#[test]
fn only_disks_there_are_and_they_are_never_stacked_ones() {
    let rig = Rig::new(Room::Disks);
    let host =
        Fake::new().file("/sys/block/sda/size", "1").file("/sys/block/loop0/size", "1").program("smartctl", "{}");
    let ask = |disk: &str| line(&json!({"ask": "smart_test", "disk": disk}));
    assert_eq!(rig.ask(&ask("sda"), &host).0, Some((Answer::Ran { code: 0 }, "{}".to_owned())));
    assert_eq!(rig.refused(&ask("sdb"), &host), Some(Why::NotThat));
    assert_eq!(rig.refused(&ask("loop0"), &host), Some(Why::NotThat));
}

#[test]
fn a_port_is_switched_off_and_on_again_unless_something_hangs_on_it() {
    let rig = Rig::new(Room::Helper);
    let host = Fake::new();
    let plug = |port: &str, class: &str, leaf: &str| {
        let at = format!("sys/bus/usb/devices/{port}");
        rig.file(&format!("{at}/authorized"), "0");
        rig.file(&format!("{at}/{port}:1.0/bInterfaceClass"), class);
        if !leaf.is_empty() {
            rig.file(&format!("{at}/{port}:1.0/{leaf}"), "8:16\n");
        }
    };
    plug("1-1", "0b", "");
    plug("1-2", "09", "");
    plug("1-3", "02", "net/enx0/address");
    plug("1-4", "08", "host0/block/sdb/dev");
    let ask = |port: &str| line(&json!({"ask": "usb_cycle", "port": port}));
    assert_eq!(rig.ask(&ask("1-1"), &host).0, Some((Answer::Ran { code: 0 }, String::new())));
    assert_eq!(rig.read("sys/bus/usb/devices/1-1/authorized"), "1");
    for port in ["1-2", "1-3", "1-9"] {
        assert_eq!(rig.refused(&ask(port), &host), Some(Why::NotThat), "{port}");
    }
    // A stick: as long as nothing is mounted from it.
    std::fs::create_dir_all(rig.dir.path().join("sys/class/block")).unwrap();
    let at = rig.dir.path().join("sys/bus/usb/devices/1-4/1-4:1.0/host0/block/sdb");
    symlink(at, rig.dir.path().join("sys/class/block/sdb")).unwrap();
    rig.file("proc/self/mountinfo", "29 1 8:16 / / rw,relatime shared:1 - ext4 /dev/sdb rw\n");
    assert_eq!(rig.refused(&ask("1-4"), &host), Some(Why::NotThat));
    assert_eq!(rig.read("sys/bus/usb/devices/1-4/authorized"), "0", "untouched");
    rig.file("proc/self/mountinfo", "29 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n");
    assert_eq!(rig.ask(&ask("1-4"), &host).0, Some((Answer::Ran { code: 0 }, String::new())));
}

#[test]
fn who_goes_away_is_seen_to_be_gone_and_who_only_says_no_more_is_not() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    assert!(!gone(&theirs));
    ours.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(!gone(&theirs));
    drop(ours);
    assert!(gone(&theirs));
}

#[test]
fn the_agent_asks_by_the_socket_and_stops_waiting_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let listener = std::os::unix::net::UnixListener::bind(dir.path().join(Room::Helper.socket())).unwrap();
    let host = System::new().helped_by(dir.path());
    let mut rig = Rig::new(Room::Helper);
    rig.file("deny", "reboot");
    let serving = thread::spawn(move || {
        let (line, _) = listener.accept().unwrap();
        serve(line, &Fake::new(), &rig.rules, &mut |_| {}).unwrap();
        rig.rules.uid = 0;
        // Somebody who never answers.
        let kept = listener.accept().unwrap();
        (kept, rig)
    });
    let long = Duration::from_secs(600);
    let said = host.helped(&Request::Reboot {}, long, &|| false).unwrap();
    assert_eq!(Answer::read(&said), Some((Answer::Refused { why: Why::Denied }, String::new())));
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    let waiting = thread::spawn(move || host.helped(&Request::Reboot {}, long, &|| told.load(Ordering::Relaxed)));
    let _kept = serving.join().unwrap();
    stop.store(true, Ordering::Relaxed);
    assert_eq!(waiting.join().unwrap(), Some(Vec::new()));
    // Nobody is there.
    let elsewhere = System::new().helped_by(&dir.path().join("nowhere"));
    assert_eq!(elsewhere.helped(&Request::Reboot {}, long, &|| false), None);
}
