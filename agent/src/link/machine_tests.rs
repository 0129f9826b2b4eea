use tram_wire::heartbeat::BeatAck;

use super::*;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ack(reconnect_window_s: u32) -> ControllerMessage {
    ControllerMessage::HelloAck(HelloAck {
        version: 1,
        server_ms: 1_000,
        beat_s: 30,
        snapshot_s: 900,
        reconnect_window_s,
        order_keys: Vec::new(),
        quarantined: false,
    })
}

fn beat_ack(seq: u64, server_ms: i64) -> ControllerMessage {
    ControllerMessage::BeatAck(BeatAck { seq, server_ms })
}

/// A machine whose link came up at `now`.
fn up(now: Duration, seed: u64) -> Machine {
    let mut m = Machine::new(Duration::ZERO, seed);
    assert_eq!(m.due(now), Some(Due::Open));
    m.opened(now);
    assert_eq!(m.due(now), Some(Due::Hello));
    assert_eq!(m.heard(now, 1_000, ack(120)), Heard::Welcome);
    m
}

fn all_due(m: &mut Machine, now: Duration) -> Vec<Due> {
    std::iter::from_fn(|| m.due(now)).collect()
}

#[test]
fn an_hour_of_a_healthy_link() {
    let mut m = up(s(10), 1);
    let (mut beats, mut snapshots, mut changes) = (0, 0, 0);
    let mut now = s(10);
    let mut steps = 0;
    while now < s(10 + 3600) {
        steps += 1;
        for d in all_due(&mut m, now) {
            match d {
                Due::Beat { seq, .. } => {
                    beats += 1;
                    assert_eq!(m.heard(now + Duration::from_millis(20), 1_000, beat_ack(seq, 1_000)), Heard::Answered);
                }
                Due::Snapshot => snapshots += 1,
                Due::Change => changes += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(m.wake() > now, "would spin");
        now = m.wake();
    }
    assert_eq!((beats, snapshots), (120, 4));
    assert!((55..=60).contains(&changes), "{changes}");
    assert!(steps < 250, "woke {steps} times in an hour");
    assert_eq!(m.rtt(), Some(Duration::from_millis(20)));
}

#[test]
fn a_connect_is_followed_by_a_beat_and_a_snapshot() {
    let mut m = up(s(10), 1);
    assert_eq!(all_due(&mut m, s(10)), [Due::Beat { seq: 1, rtt_us: None }, Due::Snapshot]);
}

#[test]
fn a_silent_controller_is_dropped_before_it_calls_us_silent() {
    let mut m = up(s(10), 1);
    let mut now = s(10);
    loop {
        if let Some(Due::Drop(_)) = all_due(&mut m, now).last() {
            break;
        }
        now = m.wake();
    }
    assert!(now > s(10 + 60) && now <= s(10 + 80), "{now:?}");
    assert!(!m.is_up());
}

#[test]
fn stale_and_doubled_answers_measure_nothing() {
    let mut m = up(s(10), 1);
    all_due(&mut m, s(10));
    all_due(&mut m, s(40));
    assert_eq!(m.heard(s(41), 1_000, beat_ack(1, 1_000)), Heard::Stale);
    assert_eq!(m.rtt(), None);
    assert_eq!(m.heard(s(41), 1_000, beat_ack(2, 1_000)), Heard::Answered);
    assert_eq!(m.heard(s(55), 1_000, beat_ack(2, 1_000)), Heard::Stale);
    assert_eq!(m.rtt(), Some(s(1)));
    // Out of place altogether.
    assert_eq!(m.heard(s(55), 1_000, ack(1)), Heard::Stale);
}

#[test]
fn skew_takes_half_the_round_trip_off() {
    let mut m = up(s(10), 1);
    all_due(&mut m, s(10));
    // An hour ahead; the answer was 200 ms on its way in all.
    m.heard(s(10) + Duration::from_millis(200), 3_600_100, beat_ack(1, 0));
    assert_eq!(m.skew_ms(), Some(3_600_000));
}

#[test]
fn backoff_grows_stays_below_the_cap_and_never_spins() {
    let mut m = Machine::new(Duration::ZERO, 7);
    let mut now = Duration::ZERO;
    let mut waits = Vec::new();
    for _ in 0..40 {
        now = m.wake().max(now);
        assert_eq!(m.due(now), Some(Due::Open));
        m.lost(now);
        waits.push(m.wake() - now);
    }
    assert!(waits.iter().all(|w| *w >= Duration::from_millis(200) && *w <= BACKOFF_CAP + s(1)), "{waits:?}");
    assert!(waits[..3].iter().all(|w| *w <= s(5)), "{waits:?}");
    let late: Duration = waits[20..].iter().sum();
    assert!(late > s(20 * 60), "no growth: {late:?}");
}

#[test]
fn many_endpoints_come_back_spread_over_the_window() {
    let mut returns: Vec<Duration> = (0..1000)
        .map(|seed| {
            let mut m = up(s(10), seed);
            m.lost(s(100));
            m.wake() - s(100)
        })
        .collect();
    returns.sort();
    assert!(returns[999] <= s(120));
    // Fullest of 12 slots of 10 s: an even spread has 83 in each.
    let fullest = (0..12).map(|i| returns.iter().filter(|r| r.as_secs() / 10 == i).count()).max().unwrap();
    assert!(fullest < 130, "{fullest} of 1000 within 10 s");
}

#[test]
fn each_refusal_waits_as_it_should() {
    for (refusal, from, to) in [
        (Refusal::Busy { retry_after_s: 40 }, 40, 80),
        (Refusal::Revoked, 900, 1800),
        (Refusal::Unknown, 900, 1800),
        (Refusal::Superseded, 60, 120),
        (Refusal::Busy { retry_after_s: u32::MAX }, 3600, 7200),
    ] {
        let mut m = up(s(10), 3);
        assert_eq!(m.heard(s(20), 0, ControllerMessage::Refused(refusal.clone())), Heard::Refused(refusal.clone()));
        assert!(!m.is_up());
        let wait = m.wake() - s(20);
        assert!(wait >= s(from) && wait <= s(to), "{refusal:?}: {wait:?}");
        // The socket closing afterwards must not shorten the wait.
        m.lost(s(21));
        assert_eq!(m.wake() - s(20), wait);
    }
}

#[test]
fn deadlines_end_a_stuck_open_and_a_stuck_greeting() {
    let mut m = Machine::new(Duration::ZERO, 1);
    assert_eq!(m.due(s(5)), Some(Due::Open));
    assert_eq!(m.due(s(6)), None);
    assert_eq!(m.due(s(25)), Some(Due::Drop("no connection in time")));
    let t = m.wake();
    assert_eq!(m.due(t), Some(Due::Open));
    m.opened(t);
    assert_eq!(m.due(t), Some(Due::Hello));
    assert_eq!(m.due(t + s(15)), Some(Due::Drop("no answer to hello in time")));
}

#[test]
fn a_suspended_laptop_beats_once_not_a_hundred_times() {
    let mut m = up(s(10), 1);
    all_due(&mut m, s(10));
    m.heard(s(10), 0, beat_ack(1, 0));
    // Slept 65 s (below the silence limit of 70).
    let due = all_due(&mut m, s(75));
    assert_eq!(due.iter().filter(|d| matches!(d, Due::Beat { .. })).count(), 1, "{due:?}");
}

#[test]
fn renewal_is_asked_on_an_open_link_and_again_if_unanswered() {
    let mut m = up(s(10), 1);
    m.renew_at(s(20));
    all_due(&mut m, s(10));
    assert_eq!(m.wake(), s(20));
    assert_eq!(all_due(&mut m, s(20)), [Due::Renew]);
    assert!(m.wake() > s(20));
    let issued = Issued { certificate_pem: String::new(), ca_pem: String::new(), issued_ms: 0, not_after_ms: 1 };
    assert_eq!(m.heard(s(21), 0, ControllerMessage::Renewed(issued.clone())), Heard::Renewed(issued));
}

#[test]
fn a_mad_controller_can_not_make_us_spin() {
    let mut m = Machine::new(Duration::ZERO, 1);
    m.due(s(5));
    m.opened(s(5));
    m.due(s(5));
    let mad = HelloAck {
        version: 1,
        server_ms: i64::MIN,
        beat_s: 0,
        snapshot_s: 0,
        reconnect_window_s: 0,
        order_keys: Vec::new(),
        quarantined: false,
    };
    m.heard(s(5), i64::MAX, ControllerMessage::HelloAck(mad));
    all_due(&mut m, s(5));
    assert!(m.wake() >= s(6));
}
