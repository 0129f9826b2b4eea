//! What a ticket is bound to and what it may open.

use std::fmt;
use std::str::FromStr;

use tram_wire::ids::EndpointId;

text_enum! {
    /// A display protocol.
    Protocol {
        /// RFB.
        Vnc = "vnc",
        /// SPICE.
        Spice = "spice",
    }
}

/// A set of display protocols; kept as their words with commas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protocols {
    /// RFB is among them.
    pub vnc: bool,
    /// SPICE is among them.
    pub spice: bool,
}

impl Protocols {
    /// Whether it is among them.
    #[must_use]
    pub fn has(self, p: Protocol) -> bool {
        match p {
            Protocol::Vnc => self.vnc,
            Protocol::Spice => self.spice,
        }
    }

    /// Those in the set, in order.
    pub fn iter(self) -> impl Iterator<Item = Protocol> {
        Protocol::ALL.iter().copied().filter(move |p| self.has(*p))
    }
}

impl FromIterator<Protocol> for Protocols {
    fn from_iter<I: IntoIterator<Item = Protocol>>(iter: I) -> Self {
        iter.into_iter().fold(Self::default(), |set, p| match p {
            Protocol::Vnc => Self { vnc: true, ..set },
            Protocol::Spice => Self { spice: true, ..set },
        })
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.iter().map(Protocol::as_str).collect();
        f.write_str(&words.join(","))
    }
}

impl FromStr for Protocols {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        s.split(',').filter(|w| !w.is_empty()).map(Protocol::from_str).collect()
    }
}

impl TryFrom<String> for Protocols {
    type Error = String;

    fn try_from(s: String) -> Result<Self, String> {
        s.parse()
    }
}

/// Who may redeem a ticket; also what a viewer proved when it presents one. Both must be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// The browser with this sign-in: hash of its cookie.
    Browser([u8; 32]),
    /// An endpoint, proved by its device certificate on the agents' listener.
    Endpoint {
        /// Which one.
        id: EndpointId,
        /// SHA-256 of the certificate it showed.
        certificate: [u8; 32],
    },
}

text_enum! {
    /// The kind of place a session is used at.
    Place {
        /// A browser.
        Browser = "browser",
        /// An office endpoint with our agent.
        Endpoint = "endpoint",
    }
}

impl Binding {
    /// Its kind.
    #[must_use]
    pub fn place(&self) -> Place {
        match self {
            Self::Browser(_) => Place::Browser,
            Self::Endpoint { .. } => Place::Endpoint,
        }
    }

    /// The hash that must match.
    #[must_use]
    pub fn hash(&self) -> &[u8; 32] {
        match self {
            Self::Browser(hash) => hash,
            Self::Endpoint { certificate, .. } => certificate,
        }
    }

    /// The endpoint, if it is one.
    #[must_use]
    pub fn endpoint(&self) -> Option<EndpointId> {
        match self {
            Self::Browser(_) => None,
            Self::Endpoint { id, .. } => Some(*id),
        }
    }

    /// What a ticket for this place opens: browsers speak RFB, an endpoint has viewers for both.
    #[must_use]
    pub fn protocols(&self) -> Protocols {
        Protocols { vnc: true, spice: self.place() == Place::Endpoint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_protocols_is_read_as_it_was_written() {
        for text in ["", "vnc", "spice", "vnc,spice"] {
            assert_eq!(text.parse::<Protocols>().unwrap().to_string(), text);
        }
        assert!("vnc,telnet".parse::<Protocols>().is_err());
        assert!(!"vnc".parse::<Protocols>().unwrap().has(Protocol::Spice));
    }
}
