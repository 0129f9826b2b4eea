use super::*;

fn link() -> Link {
    Link::new(Uuid::nil().into(), Uuid::nil().into(), 1)
}

fn ms(d: Duration) -> u64 {
    d.as_millis() as u64
}

#[test]
fn a_viewer_is_asked_for_a_sign_of_life_and_dropped_without_one() {
    let (link, policy) = (link(), Policy::default());
    assert_eq!(link.look_at(&policy, ms(PING_EVERY)), None);
    assert!(link.take_ping());
    assert_eq!(link.look_at(&policy, ms(PING_EVERY) + 1), None);
    assert!(!link.take_ping(), "one ping at a time");
    link.heard.store(30_000, Ordering::Relaxed);
    assert_eq!(link.look_at(&policy, 30_000 + ms(SILENCE) - 1), None);
    assert_eq!(link.look_at(&policy, 30_000 + ms(SILENCE)), Some(Cut::Limit));
}

#[test]
fn answering_pings_is_not_working() {
    let (link, policy) = (link(), Policy::default());
    let cut = (1..).map(|n| n * 10_000).find(|now| {
        link.heard.store(*now, Ordering::Relaxed);
        link.look_at(&policy, *now).is_some()
    });
    assert_eq!(cut, Some(ms(policy.idle)));
    // The session's own limit counts once it is known.
    link.idle_limit.store(60_000, Ordering::Relaxed);
    link.input.store(0, Ordering::Relaxed);
    assert_eq!(link.look_at(&policy, 59_999), None);
    assert_eq!(link.look_at(&policy, 60_000), Some(Cut::Limit));
}

#[test]
fn a_stalled_viewer_is_dropped_a_slow_one_not() {
    let (link, policy) = (link(), Policy::default());
    let look = |writing: u64, now: u64| {
        link.heard.store(now, Ordering::Relaxed);
        link.writing.store(writing, Ordering::Relaxed);
        link.look_at(&policy, now)
    };
    assert_eq!(look(1_001, 1_000 + ms(STALL) - 1), None);
    assert_eq!(look(0, 1_000 + ms(STALL)), None);
    assert_eq!(look(1_001, 1_000 + ms(STALL)), Some(Cut::Limit));
}

#[tokio::test]
async fn the_first_reason_to_cut_counts() {
    let link = link();
    link.cut(Cut::TakenOver);
    link.cut(Cut::Ended);
    assert_eq!(link.cut_off().await, Cut::TakenOver);
}
