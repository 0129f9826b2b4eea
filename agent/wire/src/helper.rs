//! What the agent can have done by processes that may do more than itself: everything, in this one file.
//!
//! The agent has no privileges. What needs some is asked of three processes that systemd starts for one request each
//! ([`Room`]) and that end with its answer. A [`Request`] is one of a closed list: like the catalogue it comes from
//! ([`crate::diagnosis`]), it takes no command, no program, no option and no path, only words of fixed lists, numbers
//! within bounds and names of a fixed form.
//!
//! ```text
//! agent (no privileges)                  helper (one process a request)
//!   connects to the room's socket     →    who is it? the agent's user, in the agent's unit
//!   one line: a request               →    known? this room's? not in the deny file?
//!                                     ←    one line: what became of it; then what was said
//!   closes: not wanted any more       →    what runs is killed
//! ```

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::diagnosis::{Printer, Restartable, Spec, Unit, spec, text};

/// Where the sockets are.
pub const FOLDER: &str = "/run/tram-agent";
/// Longest request, its end of line included.
pub const MOST: usize = 512;
/// How long a request may take to arrive.
pub const ARRIVES: Duration = Duration::from_secs(2);

/// A process of its own, with what its requests need and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Room {
    /// Asks the system's services, as root without capabilities: no network, no devices.
    Helper,
    /// Asks disks how they are: root with the two capabilities that `smartctl` needs, no network.
    Disks,
    /// Sees packets of the computer's network: a user of its own with `CAP_NET_RAW`, and nothing to send them with.
    Capture,
}

/// The closed list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
#[allow(missing_docs)] // fields are what they are called
pub enum Request {
    /// `systemctl restart`.
    RestartUnit { unit: Restartable },
    /// `shutdown -r +1`.
    Reboot {},
    /// `loginctl terminate-session`, for the sessions at this computer's own screen.
    LogOut {},
    /// `journalctl`.
    Journal { unit: Unit, lines: Lines },
    /// `networkctl`'s renewal, or `nmcli device reapply`.
    RenewDhcp { interface: Interface },
    /// `cupsenable` and `cupsaccept`.
    ResumeQueue { printer: Printer },
    /// `cancel -a`.
    ClearQueue { printer: Printer },
    /// The kernel's `authorized` of one USB device: off, and on again.
    UsbCycle { port: UsbPort },
    /// `smartctl`, reading.
    SmartRead { disk: Disk },
    /// `smartctl -t short`.
    SmartTest { disk: Disk },
    /// `tcpdump`, 96 bytes a packet, none of them printed.
    Capture { seconds: Seconds },
}

impl Room {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Helper, Self::Disks, Self::Capture];

    /// Its word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Helper => "helper",
            Self::Disks => "disks",
            Self::Capture => "capture",
        }
    }

    /// Its socket, in [`FOLDER`].
    #[must_use]
    pub fn socket(self) -> &'static str {
        match self {
            Self::Helper => "helper.sock",
            Self::Disks => "disks.sock",
            Self::Capture => "capture.sock",
        }
    }
}

impl FromStr for Room {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|r| r.name() == s).ok_or("it is helper, disks or capture")
    }
}

impl Request {
    /// Where it is asked.
    #[must_use]
    pub fn room(&self) -> Room {
        match self {
            Self::SmartRead { .. } | Self::SmartTest { .. } => Room::Disks,
            Self::Capture { .. } => Room::Capture,
            _ => Room::Helper,
        }
    }

    /// The action of the catalogue that it serves: what the deny file names.
    #[must_use]
    pub fn action(&self) -> &'static str {
        match self {
            Self::RestartUnit { .. } => "restart_unit",
            Self::Reboot {} => "reboot",
            Self::LogOut {} => "log_out",
            Self::Journal { .. } => "journal",
            Self::RenewDhcp { .. } => "renew_dhcp",
            Self::ResumeQueue { .. } => "resume_queue",
            Self::ClearQueue { .. } => "clear_queue",
            Self::UsbCycle { .. } => "usb_cycle",
            Self::SmartRead { .. } => "smart",
            Self::SmartTest { .. } => "smart_test",
            Self::Capture { .. } => "capture",
        }
    }

    /// Its line of the catalogue.
    #[must_use]
    pub fn spec(&self) -> Option<&'static Spec> {
        spec(self.action())
    }

    /// As it is sent.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }

    /// Reads a line.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        if line.len() > MOST { None } else { serde_json::from_slice(line).ok() }
    }
}

/// What became of a request: the first line of the answer. What was said comes after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Answer {
    /// A program ended.
    Ran {
        /// Its exit code; -1: a signal ended it.
        code: i32,
    },
    /// A program is not there.
    Absent,
    /// What ran was killed.
    TimedOut,
    /// Nothing was done.
    Refused {
        /// Why.
        why: Why,
    },
}

/// Why nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It is not the agent who asks.
    Peer,
    /// It is no request, is too long, or did not arrive in time.
    Malformed,
    /// It is a request for another room.
    Room,
    /// The deny file forbids it.
    Denied,
    /// There is no such thing here, or it is one that must not be touched.
    NotThat,
}

impl Why {
    /// Its word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Malformed => "malformed",
            Self::Room => "room",
            Self::Denied => "denied",
            Self::NotThat => "not_that",
        }
    }
}

impl Answer {
    /// The whole answer, with what was said.
    #[must_use]
    pub fn write(&self, said: &str) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes.extend_from_slice(said.as_bytes());
        bytes
    }

    /// Reads a whole answer; `None`: that is none.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<(Self, String)> {
        let end = bytes.iter().position(|b| *b == b'\n')?;
        let (head, said) = bytes.split_at(end);
        Some((serde_json::from_slice(head).ok()?, String::from_utf8_lossy(said.get(1..)?).into_owned()))
    }
}

/// A number within bounds, whoever wrote it.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $most:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = "u16", into = "u16")]
        pub struct $name(u16);

        impl $name {
            /// The number.
            #[must_use]
            pub fn get(self) -> u16 {
                self.0
            }
        }

        impl TryFrom<u16> for $name {
            type Error = &'static str;
            fn try_from(n: u16) -> Result<Self, Self::Error> {
                if (1..=$most).contains(&n) { Ok(Self(n)) } else { Err("outside its bounds") }
            }
        }

        impl From<$name> for u16 {
            fn from(n: $name) -> Self {
                n.0
            }
        }
    };
}

number! {
    /// Lines of a journal.
    Lines, 2000
}
number! {
    /// How long packets are looked at.
    Seconds, 60
}

text! {
    /// A disk as the kernel calls it: `sda`, `nvme0n1`.
    Disk, "not a disk's name", |t| {
        let first = t.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        first && t.len() <= 32 && t.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    }
}
text! {
    /// A USB port as the kernel calls it: `1-1.4`. Controllers (`usb1`) and interfaces (`1-1:1.0`) are none.
    UsbPort, "not a USB port", |t| {
        let number = |n: &str| (1..=3).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit());
        t.len() <= 32 && t.split_once('-').is_some_and(|(bus, way)| number(bus) && way.split('.').all(number))
    }
}
text! {
    /// A network interface.
    Interface, "not an interface", |t| {
        let first = t.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        first && t.len() <= 15 && t.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// One of each kind.
    fn all() -> Vec<serde_json::Value> {
        vec![
            json!({"ask": "restart_unit", "unit": "cups"}),
            json!({"ask": "reboot"}),
            json!({"ask": "log_out"}),
            json!({"ask": "journal", "unit": "cups", "lines": 2000}),
            json!({"ask": "renew_dhcp", "interface": "enp0s31f6"}),
            json!({"ask": "resume_queue", "printer": "mot-cua_1"}),
            json!({"ask": "clear_queue", "printer": "mot-cua_1"}),
            json!({"ask": "usb_cycle", "port": "1-1.4"}),
            json!({"ask": "smart_read", "disk": "nvme0n1"}),
            json!({"ask": "smart_test", "disk": "sda"}),
            json!({"ask": "capture", "seconds": 60}),
        ]
    }

    #[test]
    fn every_request_serves_an_action_of_the_catalogue() {
        for value in all() {
            let r = Request::parse(value.to_string().as_bytes()).unwrap_or_else(|| panic!("{value}"));
            assert!(r.spec().is_some(), "{value}");
            let line = r.line();
            assert!(line.len() < MOST && line.ends_with(b"\n"));
            assert_eq!(Request::parse(&line), Some(r));
        }
    }

    #[test]
    fn nothing_else_is_a_request() {
        let long = format!("{{\"ask\":\"reboot\"{}}}", " ".repeat(MOST));
        for bad in [
            json!({"ask": "shell", "command": "id"}),
            json!({"ask": "reboot", "now": true}),
            json!({"ask": "restart_unit", "unit": "sshd"}),
            json!({"ask": "restart_unit", "unit": "tram-agent"}),
            json!({"ask": "restart_unit", "unit": "cups", "program": "sh"}),
            json!({"ask": "journal", "unit": "cups", "lines": 2001}),
            json!({"ask": "journal", "unit": "cups", "lines": 0}),
            json!({"ask": "journal", "unit": "../x", "lines": 1}),
            json!({"ask": "renew_dhcp", "interface": "--help"}),
            json!({"ask": "renew_dhcp", "interface": "a/../b"}),
            json!({"ask": "clear_queue", "printer": "-a"}),
            json!({"ask": "usb_cycle", "port": "usb1"}),
            json!({"ask": "usb_cycle", "port": "1-1:1.0"}),
            json!({"ask": "usb_cycle", "port": "1-1/../../x"}),
            json!({"ask": "usb_cycle", "port": "1-"}),
            json!({"ask": "smart_read", "disk": "../sda"}),
            json!({"ask": "smart_read", "disk": "sda -t long"}),
            json!({"ask": "smart_test", "disk": "-t"}),
            json!({"ask": "capture", "seconds": 61}),
            json!({"ask": "capture", "seconds": -1}),
            json!([{"ask": "reboot"}]),
            json!("reboot"),
        ] {
            assert_eq!(Request::parse(bad.to_string().as_bytes()), None, "{bad}");
        }
        for bad in [&b""[..], b"\n", b"GET / HTTP/1.1", &[0xff; 64], long.as_bytes(), &b"[".repeat(MOST)] {
            assert_eq!(Request::parse(bad), None);
        }
    }

    #[test]
    fn an_answer_comes_back_with_what_was_said() {
        let ran = Answer::Ran { code: 3 };
        assert_eq!(Answer::read(&ran.write("hai\ndòng\n")), Some((ran, "hai\ndòng\n".to_owned())));
        let no = Answer::Refused { why: Why::Peer };
        assert_eq!(Answer::read(&no.write("")), Some((no, String::new())));
        assert_eq!(Answer::read(b"{\"is\":\"ran\",\"code\":0}"), None, "cut before its end");
        assert_eq!(Answer::read(b"hello\nworld"), None);
        for why in [Why::Peer, Why::Malformed, Why::Room, Why::Denied, Why::NotThat] {
            assert_eq!(serde_json::to_value(why).unwrap(), why.name());
        }
    }
}
