//! Remote diagnosis: everything a controller can ask an endpoint to do, in this one file.
//!
//! An [`Order`] names one [`Action`] of a closed list, or a [`Bundle`] of them. There is no action that takes a
//! command, a script, a program, an option or a path: arguments are numbers within bounds, words of fixed lists
//! ([`UNITS`], [`RESTARTABLE`]), host names ([`HostName`]: letters, digits, dots, dashes and colons, beginning with a
//! letter or a digit, so that none is ever an option) and names of printers, disks and USB ports ([`Printer`], [`Disk`],
//! [`UsbPort`], which are looked up among those there are). What else arrives is no order. What needs privileges is
//! done by processes with a closed list of their own: [`crate::helper`].
//!
//! ```text
//! controller                                   agent
//!   order: signed, for this endpoint, once  →  proves it, looks into its deny file, asks the officer if need be
//!                                           ←  order_news: begun | refused, then progress, text, steps, ended
//!   order_cancel                            →  stops what runs, with its children
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::helper::{Disk, UsbPort};
pub use crate::order::*;

/// Most services an order of a bundle names.
pub const MAX_LISTED: usize = 4;
/// Longest text in one message of news.
pub const CHUNK: usize = 16 * 1024;
/// Most messages of news about one order.
pub const MAX_NEWS: u32 = 64;
/// Orders an endpoint works on at once.
pub const AT_ONCE: usize = 2;
/// How long an officer has to answer.
pub const ANSWER_S: u16 = 30;

/// Units whose state and journal can be read.
pub const UNITS: [&str; 11] = [
    "NetworkManager",
    "chrony",
    "cups",
    "pcscd",
    "systemd-networkd",
    "systemd-resolved",
    "systemd-timesyncd",
    "tram-agent",
    "tram-desk",
    "tram-screen",
    "wpa_supplicant",
];
/// Units that can be restarted.
pub const RESTARTABLE: [&str; 5] = ["NetworkManager", "cups", "pcscd", "tram-desk", "tram-screen"];

/// The closed list. A new action is a new variant, a line of [`ACTIONS`], and a file of the agent's `actions/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
#[allow(missing_docs)] // each is described by its line in `ACTIONS` and by the catalogue's texts
pub enum Action {
    Health {},
    Top { count: u16 },
    Disks {},
    Unit { unit: Unit },
    Journal { unit: Unit, lines: u16 },
    Network {},
    Ping { to: Target, count: u16 },
    Trace { to: Target, hops: u16 },
    Mtu { to: Target },
    Dns { name: HostName },
    Tcp { host: HostName, port: u16 },
    Tls { host: HostName, port: u16 },
    Http { host: HostName, port: u16 },
    Https { host: HostName, port: u16 },
    Ntp {},
    Clock {},
    Smart {},
    SmartTest { disk: Disk },
    Usb {},
    UsbCycle { usb_port: UsbPort },
    Printers {},
    Readers {},
    TestPage { printer: Printer },
    ResumeQueue { printer: Printer },
    ClearQueue { printer: Printer },
    RestartUnit { unit: Restartable },
    Bandwidth {},
    RenewDhcp {},
    FlushDns {},
    RereadProxy {},
    ResendInventory {},
    Reboot {},
    LogOut {},
    ResetViewer {},
    Capture { seconds: u16 },
}

/// What an action does to the office, and therefore what its officer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Reads. Nobody is disturbed.
    Silent,
    /// Changes something or uses the line. The officer is told.
    Active,
    /// Interrupts work. The officer is asked; who does not answer has said no.
    Disruptive,
}

/// What the officer says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consent {
    /// Nothing.
    None,
    /// Nothing, but they are told.
    Notify,
    /// They are asked.
    Ask,
}

/// Who may order it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// Support and operators.
    Support,
    /// Operators.
    Operator,
}

/// An argument: what there is to fill in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: &'static str,
    /// What fits.
    pub fits: Fits,
}

/// What an argument may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fits {
    /// A whole number.
    Number {
        /// Least.
        min: u16,
        /// Most.
        max: u16,
        /// If nothing is said.
        usual: u16,
    },
    /// One of these words.
    Word(&'static [&'static str]),
    /// `gateway`, `resolver`, `controller`, or a [`HostName`].
    Target,
    /// A [`HostName`].
    Host,
    /// A [`HostName`] and port the controller has on its list of services.
    Listed,
    /// A [`Printer`].
    Printer,
    /// A [`Disk`].
    Disk,
    /// A [`UsbPort`].
    UsbPort,
}

/// One line of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its word on the wire.
    pub name: &'static str,
    /// What it does to the office.
    pub class: Class,
    /// Seconds it may take; what then still runs is killed.
    pub deadline_s: u16,
    /// Bytes of text it may answer with.
    pub cap: usize,
    /// Who may order it.
    pub right: Right,
    /// A second person must agree before it is sent.
    pub two_persons: bool,
    /// What there is to fill in.
    pub arguments: &'static [Argument],
}

const KIB: usize = 1024;
const UNIT: Argument = Argument { name: "unit", fits: Fits::Word(&UNITS) };
const TO: Argument = Argument { name: "to", fits: Fits::Target };
const HOST: Argument = Argument { name: "host", fits: Fits::Listed };
const PORT: Argument = number("port", 1, u16::MAX, 443);
const PRINTER: Argument = Argument { name: "printer", fits: Fits::Printer };

const fn number(name: &'static str, min: u16, max: u16, usual: u16) -> Argument {
    Argument { name, fits: Fits::Number { min, max, usual } }
}

const fn line(
    name: &'static str,
    class: Class,
    deadline_s: u16,
    cap: usize,
    right: Right,
    two_persons: bool,
    arguments: &'static [Argument],
) -> Spec {
    Spec { name, class, deadline_s, cap, right, two_persons, arguments }
}

use Class::{Active, Disruptive, Silent};
use Right::{Operator, Support};

/// The catalogue: for each action its class, seconds, bytes of text, who may order it, whether two must agree, and
/// its arguments.
pub const ACTIONS: [Spec; 35] = [
    line("health", Silent, 5, 16 * KIB, Support, false, &[]),
    line("top", Silent, 5, 4 * KIB, Support, false, &[number("count", 1, 20, 10)]),
    line("disks", Silent, 10, 8 * KIB, Support, false, &[]),
    line("unit", Silent, 10, 8 * KIB, Support, false, &[UNIT]),
    line("journal", Silent, 20, 256 * KIB, Support, false, &[UNIT, number("lines", 1, 2000, 200)]),
    line("network", Silent, 5, 16 * KIB, Support, false, &[]),
    line("ping", Silent, 12, 8 * KIB, Support, false, &[TO, number("count", 1, 20, 5)]),
    line("trace", Silent, 40, 8 * KIB, Support, false, &[TO, number("hops", 1, 30, 20)]),
    line("mtu", Silent, 12, 4 * KIB, Support, false, &[TO]),
    line("dns", Silent, 10, 8 * KIB, Support, false, &[Argument { name: "name", fits: Fits::Host }]),
    line("tcp", Silent, 10, 4 * KIB, Support, false, &[HOST, PORT]),
    line("tls", Silent, 10, 8 * KIB, Support, false, &[HOST, PORT]),
    line("http", Silent, 10, 4 * KIB, Support, false, &[HOST, PORT]),
    line("https", Silent, 10, 4 * KIB, Support, false, &[HOST, PORT]),
    line("ntp", Silent, 10, 4 * KIB, Support, false, &[]),
    line("clock", Silent, 5, 4 * KIB, Support, false, &[]),
    line("smart", Silent, 30, 8 * KIB, Support, false, &[]),
    line("usb", Silent, 5, 16 * KIB, Support, false, &[]),
    line("printers", Silent, 10, 16 * KIB, Support, false, &[]),
    line("readers", Silent, 20, 8 * KIB, Support, false, &[]),
    line("test_page", Active, 15, 4 * KIB, Support, false, &[PRINTER]),
    line("resume_queue", Active, 15, 4 * KIB, Support, false, &[PRINTER]),
    line("clear_queue", Active, 15, 4 * KIB, Support, false, &[PRINTER]),
    line(
        "restart_unit",
        Active,
        30,
        4 * KIB,
        Support,
        false,
        &[Argument { name: "unit", fits: Fits::Word(&RESTARTABLE) }],
    ),
    // 8 MB and 10 s at most, and never while somebody works at a desktop of that office.
    line("bandwidth", Active, 30, 4 * KIB, Support, false, &[]),
    line("renew_dhcp", Active, 30, 4 * KIB, Support, false, &[]),
    line("flush_dns", Active, 10, 4 * KIB, Support, false, &[]),
    line("reread_proxy", Active, 10, 4 * KIB, Support, false, &[]),
    // It goes on in the disk for a minute or two; `smart` says how it ended.
    line("smart_test", Active, 20, 4 * KIB, Support, false, &[Argument { name: "disk", fits: Fits::Disk }]),
    line("usb_cycle", Active, 15, 4 * KIB, Support, false, &[Argument { name: "usb_port", fits: Fits::UsbPort }]),
    line("resend_inventory", Active, 10, 4 * KIB, Support, false, &[]),
    line("reboot", Disruptive, 15, 4 * KIB, Operator, false, &[]),
    line("log_out", Disruptive, 15, 4 * KIB, Support, false, &[]),
    // The desk throws away what its viewer keeps, and a viewer that runs begins anew; the desktop goes on.
    line("reset_viewer", Disruptive, 15, 4 * KIB, Support, false, &[]),
    // Who spoke to whom, never what they said: no more than the headers of each packet are read.
    line("capture", Disruptive, 75, 256 * KIB, Support, true, &[number("seconds", 1, 60, 20)]),
];

/// Several actions with one verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bundle {
    /// "Everything is slow": router, names, controller, services. Below 3 s on a working line.
    Line,
    /// "It does not print."
    Printer,
    /// "The computer is slow."
    Pc,
    /// "The desktop does not open."
    Session,
}

impl Bundle {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Line, Self::Printer, Self::Pc, Self::Session];

    /// Its word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Printer => "printer",
            Self::Pc => "pc",
            Self::Session => "session",
        }
    }

    /// What it runs, side by side; all of it reads and nothing else. `listed`: services of the controller's list.
    #[must_use]
    pub fn actions(self, listed: &[Listed]) -> Vec<Action> {
        let ping = |to| Action::Ping { to, count: 5 };
        let services = listed.iter().take(MAX_LISTED).map(Listed::action);
        match self {
            Self::Line => [Action::Network {}, ping(Target::Gateway), ping(Target::Resolver), ping(Target::Controller)]
                .into_iter()
                .chain(services)
                .collect(),
            Self::Printer => {
                let unit = Unit("cups".to_owned());
                vec![Action::Printers {}, Action::Unit { unit }, Action::Usb {}, Action::Disks {}]
            }
            Self::Pc => {
                vec![Action::Health {}, Action::Top { count: 5 }, Action::Disks {}, Action::Smart {}, Action::Clock {}]
            }
            Self::Session => [Action::Health {}, ping(Target::Gateway), ping(Target::Controller), Action::Clock {}]
                .into_iter()
                .chain(services)
                .collect(),
        }
    }

    /// Seconds all of it may take.
    #[must_use]
    pub fn deadline_s(self) -> u16 {
        match self {
            Self::Line => 12,
            Self::Printer | Self::Session => 20,
            Self::Pc => 30,
        }
    }
}

impl FromStr for Bundle {
    type Err = Wrong;

    fn from_str(s: &str) -> Result<Self, Wrong> {
        Self::ALL
            .into_iter()
            .find(|b| b.name() == s)
            .ok_or(Wrong { argument: "action", why: "there is no such action" })
    }
}

/// A service of the controller's list of probes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// Host.
    pub host: HostName,
    /// Port.
    pub port: u16,
    /// How it is asked.
    pub kind: ListedKind,
}

/// How a listed service is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum ListedKind {
    Tcp,
    Tls,
    Http,
    Https,
}

impl Listed {
    fn action(&self) -> Action {
        let (host, port) = (self.host.clone(), self.port);
        match self.kind {
            ListedKind::Tcp => Action::Tcp { host, port },
            ListedKind::Tls => Action::Tls { host, port },
            ListedKind::Http => Action::Http { host, port },
            ListedKind::Https => Action::Https { host, port },
        }
    }
}

/// What an order is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// One action.
    Action(Action),
    /// A bundle.
    Bundle {
        /// Which.
        bundle: Bundle,
        /// Services to ask, of the controller's list.
        listed: Vec<Listed>,
    },
}

/// Why an argument is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Which.
    pub argument: &'static str,
    /// What is wrong and what would be right.
    pub why: &'static str,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.argument, self.why)
    }
}

impl std::error::Error for Wrong {}

impl Work {
    /// The work of this name with these arguments; what is left out is as usual.
    ///
    /// # Errors
    /// The first argument that does not fit, or an unknown one.
    pub fn parse(name: &str, mut arguments: Map<String, Value>, listed: Vec<Listed>) -> Result<Self, Wrong> {
        let Some(spec) = spec(name) else {
            let bundle = name.parse()?;
            return match arguments.is_empty() {
                true => Ok(Self::Bundle { bundle, listed }),
                false => Err(Wrong { argument: "arguments", why: "a bundle takes none" }),
            };
        };
        for a in spec.arguments {
            if let Fits::Number { usual, .. } = a.fits {
                arguments.entry(a.name).or_insert(usual.into());
            }
            let found = arguments.get(a.name).ok_or(Wrong { argument: a.name, why: "say which" })?;
            a.check(found)?;
        }
        if arguments.len() > spec.arguments.len() {
            return Err(Wrong { argument: "arguments", why: "there is one that this action does not take" });
        }
        arguments.insert("do".to_owned(), name.into());
        let action = serde_json::from_value(Value::Object(arguments));
        action.map(Self::Action).map_err(|_| Wrong { argument: "arguments", why: "they do not fit this action" })
    }

    /// What is run.
    #[must_use]
    pub fn actions(&self) -> Vec<Action> {
        match self {
            Self::Action(a) => vec![a.clone()],
            Self::Bundle { bundle, listed } => bundle.actions(listed),
        }
    }

    /// Its word in the catalogue.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Action(a) => a.name(),
            Self::Bundle { bundle, .. } => bundle.name(),
        }
    }

    /// Seconds it may take from its beginning.
    #[must_use]
    pub fn deadline_s(&self) -> u16 {
        match self {
            Self::Action(a) => a.spec().deadline_s,
            Self::Bundle { bundle, .. } => bundle.deadline_s(),
        }
    }

    /// What it does to the office.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Action(a) => a.spec().class,
            Self::Bundle { .. } => Class::Silent,
        }
    }

    /// Who may order it.
    #[must_use]
    pub fn right(&self) -> Right {
        match self {
            Self::Action(a) => a.spec().right,
            Self::Bundle { .. } => Right::Support,
        }
    }

    /// A second person must agree.
    #[must_use]
    pub fn two_persons(&self) -> bool {
        matches!(self, Self::Action(a) if a.spec().two_persons)
    }

    /// Whether all its arguments fit: both ends look.
    ///
    /// # Errors
    /// The first one that does not.
    pub fn check(&self) -> Result<(), Wrong> {
        if let Self::Bundle { listed, .. } = self
            && listed.len() > MAX_LISTED
        {
            return Err(Wrong { argument: "listed", why: "too many services" });
        }
        self.actions().iter().try_for_each(Action::check)
    }
}

/// The line of the catalogue with this name.
#[must_use]
pub fn spec(name: &str) -> Option<&'static Spec> {
    ACTIONS.iter().find(|s| s.name == name)
}

impl Class {
    /// What the officer says first.
    #[must_use]
    pub fn consent(self) -> Consent {
        match self {
            Self::Silent => Consent::None,
            Self::Active => Consent::Notify,
            Self::Disruptive => Consent::Ask,
        }
    }

    /// Its word, as in the deny file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Active => "active",
            Self::Disruptive => "disruptive",
        }
    }
}

impl Action {
    /// Whether what it finds is more than how a computer is: lines of a journal, packets of an office. That goes only where
    /// nobody reads along.
    #[must_use]
    pub fn is_private(&self) -> bool {
        matches!(self, Self::Journal { .. } | Self::Capture { .. })
    }

    /// Its word in the catalogue.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Health {} => "health",
            Self::Top { .. } => "top",
            Self::Disks {} => "disks",
            Self::Unit { .. } => "unit",
            Self::Journal { .. } => "journal",
            Self::Network {} => "network",
            Self::Ping { .. } => "ping",
            Self::Trace { .. } => "trace",
            Self::Mtu { .. } => "mtu",
            Self::Dns { .. } => "dns",
            Self::Tcp { .. } => "tcp",
            Self::Tls { .. } => "tls",
            Self::Http { .. } => "http",
            Self::Https { .. } => "https",
            Self::Ntp {} => "ntp",
            Self::Clock {} => "clock",
            Self::Smart {} => "smart",
            Self::SmartTest { .. } => "smart_test",
            Self::Usb {} => "usb",
            Self::UsbCycle { .. } => "usb_cycle",
            Self::Printers {} => "printers",
            Self::Readers {} => "readers",
            Self::TestPage { .. } => "test_page",
            Self::ResumeQueue { .. } => "resume_queue",
            Self::ClearQueue { .. } => "clear_queue",
            Self::RestartUnit { .. } => "restart_unit",
            Self::Bandwidth {} => "bandwidth",
            Self::RenewDhcp {} => "renew_dhcp",
            Self::FlushDns {} => "flush_dns",
            Self::RereadProxy {} => "reread_proxy",
            Self::ResendInventory {} => "resend_inventory",
            Self::Reboot {} => "reboot",
            Self::LogOut {} => "log_out",
            Self::ResetViewer {} => "reset_viewer",
            Self::Capture { .. } => "capture",
        }
    }

    /// Its line of the catalogue.
    #[must_use]
    pub fn spec(&self) -> &'static Spec {
        // A test holds every variant to a line of its own.
        spec(self.name()).unwrap_or(&ACTIONS[0])
    }

    fn check(&self) -> Result<(), Wrong> {
        let Ok(Value::Object(given)) = serde_json::to_value(self) else {
            return Err(Wrong { argument: "arguments", why: "they can't be written" });
        };
        self.spec().arguments.iter().try_for_each(|a| given.get(a.name).map_or(Ok(()), |v| a.check(v)))
    }
}

impl Argument {
    fn check(&self, given: &Value) -> Result<(), Wrong> {
        let wrong = |why| Err(Wrong { argument: self.name, why });
        let text = given.as_str().unwrap_or_default();
        match self.fits {
            Fits::Number { min, max, .. } => match given.as_u64() {
                Some(n) if (u64::from(min)..=u64::from(max)).contains(&n) => Ok(()),
                _ => wrong("the number is outside its bounds"),
            },
            Fits::Word(words) if words.contains(&text) => Ok(()),
            Fits::Word(_) => wrong("it is not on the list"),
            Fits::Target | Fits::Host | Fits::Listed if HostName::is_one(text) => Ok(()),
            Fits::Target | Fits::Host | Fits::Listed => wrong("give a host name or an address"),
            Fits::Printer if Printer::is_one(text) => Ok(()),
            Fits::Printer => wrong("give the name of a print queue"),
            Fits::Disk if Disk::is_one(text) => Ok(()),
            Fits::Disk => wrong("give the kernel's name of a disk, such as sda"),
            Fits::UsbPort if UsbPort::is_one(text) => Ok(()),
            Fits::UsbPort => wrong("give the kernel's name of a USB port, such as 1-1.4"),
        }
    }
}

/// A type that is a text of a certain form, whoever wrote it.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $what:literal, $is:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Whether a text is one.
            #[must_use]
            pub fn is_one(text: &str) -> bool {
                let is: fn(&str) -> bool = $is;
                is(text)
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = &'static str;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                if Self::is_one(&text) { Ok(Self(text)) } else { Err($what) }
            }
        }

        impl From<$name> for String {
            fn from(t: $name) -> Self {
                t.0
            }
        }
    };
}

pub(crate) use text;

text! {
    /// A host name or an address. It begins with a letter or a digit (or, an IPv6 address, with a colon), so that no
    /// program can take it for an option.
    HostName, "not a host name", |t| {
        let first = t.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b':');
        first && t.len() <= 253 && t.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':'))
    }
}
text! {
    /// A unit of [`UNITS`].
    Unit, "not on the list", |t| UNITS.contains(&t)
}
text! {
    /// A unit of [`RESTARTABLE`].
    Restartable, "not on the list", |t| RESTARTABLE.contains(&t)
}
text! {
    /// The name of a print queue; the agent takes only those CUPS told it of.
    Printer, "not a print queue", |t| {
        let first = t.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        first && t.len() <= 127 && t.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    }
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// The office's router.
    Gateway,
    /// The first resolver.
    Resolver,
    /// The controller.
    Controller,
    /// Somebody else.
    Host(HostName),
}

impl TryFrom<String> for Target {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Ok(match text.as_str() {
            "gateway" => Self::Gateway,
            "resolver" => Self::Resolver,
            "controller" => Self::Controller,
            _ => Self::Host(text.try_into()?),
        })
    }
}

impl From<Target> for String {
    fn from(t: Target) -> Self {
        match t {
            Target::Gateway => "gateway".to_owned(),
            Target::Resolver => "resolver".to_owned(),
            Target::Controller => "controller".to_owned(),
            Target::Host(h) => h.into(),
        }
    }
}

#[cfg(test)]
#[path = "diagnosis_tests.rs"]
mod tests;
