//! Gateways: who lives, and which one a connection is sent to.

use std::time::Duration;

use uuid::Uuid;

/// How often a gateway says that it lives.
pub const BEAT: Duration = Duration::from_secs(5);
/// One that has said nothing for this long, by the database's clock, has lost its connections.
pub const SILENCE: Duration = Duration::from_secs(15);
/// One that is gone is shown for this long.
pub const KEPT: Duration = Duration::from_secs(86_400);
/// Loads that differ by less count as equal: what is on its way is not counted yet.
const COARSE: i64 = 8;

text_enum! {
    /// Where a gateway is.
    GatewayState {
        /// It carries, and takes new connections.
        Live = "live",
        /// It lives and takes nothing new; what it carried was sent elsewhere.
        Draining = "draining",
        /// Nothing was heard of it: its process, its machine or its way to the database is gone.
        Silent = "silent",
        /// It was stopped.
        Stopped = "stopped",
    }
}

/// The state that follows from what a gateway said last.
#[must_use]
pub fn state(silent: Duration, draining: bool, stopped: bool) -> GatewayState {
    match (stopped, silent > SILENCE, draining) {
        (true, _, _) => GatewayState::Stopped,
        (_, true, _) => GatewayState::Silent,
        (_, _, true) => GatewayState::Draining,
        _ => GatewayState::Live,
    }
}

/// A gateway a connection could be sent to.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Which.
    pub id: Uuid,
    /// Where it is.
    pub state: GatewayState,
    /// It ends with a controller.
    pub embedded: bool,
    /// It reaches the host of the desktop.
    pub reaches: bool,
    /// Connections it carries.
    pub load: i64,
}

/// Those a session may be sent to, as positions in `all`, the best first. `left` is the gateway the session is
/// still counted at: who asks anew has lost it. Gateways of their own go before those that end with a controller,
/// then the less loaded; among equals each session has its own order, so that a storm spreads.
#[must_use]
pub fn rank(all: &[Candidate], session: Uuid, left: Option<Uuid>) -> Vec<usize> {
    let mut good: Vec<usize> =
        (0..all.len()).filter(|i| all[*i].state == GatewayState::Live && all[*i].reaches).collect();
    good.sort_by_key(|i| {
        let c = &all[*i];
        (left == Some(c.id), c.embedded, c.load / COARSE, mixed(session, c.id))
    });
    good
}

/// A number that differs by session and gateway.
fn mixed(a: Uuid, b: Uuid) -> u64 {
    let (a, b) = (a.as_u64_pair().1, b.as_u64_pair().1);
    (a ^ b.rotate_left(23)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(n: u128) -> Candidate {
        Candidate { id: Uuid::from_u128(n), state: GatewayState::Live, embedded: false, reaches: true, load: 0 }
    }

    #[test]
    fn a_gateway_is_dead_after_fifteen_seconds_and_stopped_at_once() {
        let s = Duration::from_secs;
        assert_eq!(state(s(15), false, false), GatewayState::Live);
        assert_eq!(state(s(15), true, false), GatewayState::Draining);
        assert_eq!(state(s(16), true, false), GatewayState::Silent);
        assert_eq!(state(s(0), true, true), GatewayState::Stopped);
    }

    #[test]
    fn the_least_loaded_gateway_of_its_own_comes_first() {
        let all = [
            Candidate { embedded: true, ..one(1) },
            Candidate { load: 80, ..one(2) },
            Candidate { load: 17, ..one(3) },
            Candidate { state: GatewayState::Draining, ..one(4) },
            Candidate { state: GatewayState::Silent, ..one(5) },
            Candidate { reaches: false, ..one(6) },
        ];
        assert_eq!(rank(&all, Uuid::from_u128(9), None), [2, 1, 0]);
        // Whoever asks again while counted at one has lost that one; it is still better than none.
        assert_eq!(rank(&all, Uuid::from_u128(9), Some(all[2].id)), [1, 0, 2]);
        assert!(rank(&all[3..], Uuid::nil(), None).is_empty());
    }

    #[test]
    fn equals_share_a_storm() {
        let all: Vec<Candidate> = (1..=4).map(|n| one(n << 40)).collect();
        let mut firsts = [0; 4];
        for n in 0..4000_u128 {
            firsts[rank(&all, Uuid::from_u128(n * 7_919_331), None)[0]] += 1;
        }
        assert!(firsts.iter().all(|n| (600..1500).contains(n)), "{firsts:?}");
    }
}
