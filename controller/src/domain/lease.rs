//! Whether a lease may open its session: the rules a gateway goes by when it can't ask the database.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tram_wire::ids::{EndpointId, InstallationId, LeaseId, SessionId};
use tram_wire::lease::{Lease, VERSION};

use super::time::Time;
use uuid::Uuid;

/// A lease is not issued for less than this.
pub const SHORTEST: Duration = Duration::from_secs(60);
/// Clocks are the database's, seen at different moments.
const LEEWAY: Duration = Duration::from_secs(60);

text_enum! {
    /// Why a lease opens nothing.
    Fault {
        /// It was changed, or is none.
        Garbled = "garbled",
        /// Signed by a key that is not, or no longer, ours.
        Key = "key",
        /// Its signature is wrong.
        Signature = "signature",
        /// Of another installation or a version made after this build.
        Foreign = "foreign",
        /// Of another endpoint, or of another certificate of this one.
        Endpoint = "endpoint",
        /// Not good yet.
        Early = "early",
        /// Over.
        Expired = "expired",
        /// It was not among the good ones when the database was last asked, or the database says no.
        Withdrawn = "withdrawn",
        /// The desktop was made anew since.
        Remade = "remade",
        /// The desktop does not run, or its host can't be reached.
        Stopped = "stopped",
        /// Somebody is connected to the session or the desktop from another place.
        Elsewhere = "elsewhere",
        /// Leases are switched off.
        Off = "off",
    }
}

/// Who shows it, to whom, and when by the database's clock.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    /// The gateway's installation.
    pub installation: InstallationId,
    /// The endpoint, as its certificate proved.
    pub endpoint: EndpointId,
    /// SHA-256 of that certificate.
    pub certificate: [u8; 32],
    /// Now.
    pub now: Time,
}

/// Whether a lease whose signature is good may be used by who shows it, now.
///
/// # Errors
/// Why not.
pub fn fits(lease: &Lease, shown: &Shown) -> Result<(), Fault> {
    if lease.version != VERSION || lease.installation != shown.installation {
        return Err(Fault::Foreign);
    }
    if lease.endpoint != shown.endpoint || lease.certificate != hex(&shown.certificate) {
        return Err(Fault::Endpoint);
    }
    if shown.now.plus(LEEWAY) < at(lease.not_before_ms) {
        return Err(Fault::Early);
    }
    if shown.now >= at(lease.expires_ms) {
        return Err(Fault::Expired);
    }
    Ok(())
}

/// What a gateway did while it could not write it down, as it keeps it until it can.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Makes sure that it is taken in once.
    pub id: Uuid,
    /// When, microseconds, by the database's clock as the gateway last saw it.
    pub at: i64,
    /// The lease that was shown.
    pub lease: LeaseId,
    /// Its session.
    pub session: SessionId,
    /// Its officer's sign-in name.
    pub username: String,
    /// The endpoint that showed it.
    pub endpoint: EndpointId,
    /// The desktop's name.
    pub desktop: String,
    /// The gateway.
    pub gateway: Uuid,
    /// Where the endpoint called from.
    pub ip: String,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// See [`Event`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// It let somebody in.
    Entered,
    /// They left, or the database came back.
    Left {
        /// When they came, microseconds.
        from: i64,
        /// Why: a close code, or `back`.
        why: String,
        /// Bytes from the viewer.
        up: i64,
        /// Bytes to it.
        down: i64,
    },
    /// It let somebody not in.
    Refused {
        /// Why.
        why: Fault,
    },
}

impl Event {
    /// The particulars for the audit.
    #[must_use]
    pub fn detail(&self) -> Value {
        let mut detail = json!({
            "lease": self.lease, "endpoint": self.endpoint, "desktop": self.desktop, "gateway": self.gateway,
        });
        match &self.what {
            What::Entered => detail["outage"] = true.into(),
            What::Left { from, why, .. } => {
                detail["from"] = json!(Time::from_micros(*from));
                detail["to"] = json!(Time::from_micros(self.at));
                detail["why"] = why.as_str().into();
            }
            What::Refused { why } => detail["reason"] = why.as_str().into(),
        }
        detail
    }
}

/// A time on the wire.
#[must_use]
pub fn at(ms: i64) -> Time {
    Time::from_micros(ms.saturating_mul(1000))
}

/// How a certificate's hash is written in a lease.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// How long a lease that is issued now is good: the configured life, but never past the session's own end. `None`
/// if that is no time worth having, or leases are off.
#[must_use]
pub fn life(configured: Duration, session_left: Duration) -> Option<Duration> {
    Some(configured.min(session_left)).filter(|life| *life >= SHORTEST)
}

/// When an endpoint asks for a fresh one: often enough that it always holds most of a life.
#[must_use]
pub fn renew_after(life: Duration) -> Duration {
    (life / 8).clamp(Duration::from_secs(60), Duration::from_secs(1800))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tram_wire::lease::Limits;
    use uuid::Uuid;

    const HOUR: i64 = 3_600_000;

    fn lease() -> Lease {
        let nil = Uuid::nil();
        Lease {
            version: VERSION,
            id: nil.into(),
            installation: nil.into(),
            user: nil.into(),
            username: "lan".into(),
            display_name: "Lan".into(),
            endpoint: nil.into(),
            certificate: hex(&[7; 32]),
            site: "00004".into(),
            session: nil.into(),
            desktop: nil.into(),
            desktop_name: "d".into(),
            generation: 1,
            host: nil.into(),
            protocols: Vec::new(),
            limits: Limits { idle_s: 60, clipboard: true, audio: true, kbit: None },
            issued_ms: HOUR,
            not_before_ms: HOUR,
            expires_ms: 2 * HOUR,
        }
    }

    fn shown(ms: i64) -> Shown {
        let nil = Uuid::nil();
        Shown { installation: nil.into(), endpoint: nil.into(), certificate: [7; 32], now: at(ms) }
    }

    #[test]
    fn it_is_good_for_its_time_its_endpoint_and_its_installation() {
        assert_eq!(fits(&lease(), &shown(HOUR)), Ok(()));
        assert_eq!(fits(&lease(), &shown(2 * HOUR - 1)), Ok(()));
        assert_eq!(fits(&lease(), &shown(2 * HOUR)), Err(Fault::Expired));
        assert_eq!(fits(&lease(), &shown(HOUR - 59_000)), Ok(()), "clocks are seen at different moments");
        assert_eq!(fits(&lease(), &shown(HOUR - 61_000)), Err(Fault::Early));
        assert_eq!(fits(&lease(), &Shown { certificate: [8; 32], ..shown(HOUR) }), Err(Fault::Endpoint));
        assert_eq!(fits(&lease(), &Shown { endpoint: Uuid::max().into(), ..shown(HOUR) }), Err(Fault::Endpoint));
        assert_eq!(fits(&lease(), &Shown { installation: Uuid::max().into(), ..shown(HOUR) }), Err(Fault::Foreign));
        assert_eq!(fits(&Lease { version: 2, ..lease() }, &shown(HOUR)), Err(Fault::Foreign));
        assert_eq!(fits(&Lease { expires_ms: i64::MAX, not_before_ms: i64::MIN, ..lease() }, &shown(HOUR)), Ok(()));
    }

    #[test]
    fn it_never_outlives_its_session_and_can_be_switched_off() {
        let hours = |n: u64| Duration::from_secs(n * 3600);
        assert_eq!(life(hours(12), hours(100)), Some(hours(12)));
        assert_eq!(life(hours(12), hours(2)), Some(hours(2)));
        assert_eq!(life(Duration::ZERO, hours(2)), None);
        assert_eq!(life(hours(12), Duration::from_secs(59)), None);
        assert_eq!(renew_after(hours(12)), Duration::from_secs(1800));
        assert_eq!(renew_after(Duration::from_secs(60)), Duration::from_secs(60));
    }
}
