//! Streams, credit, priorities, ends.

use std::time::Duration;

use tram_wire::tunnel::{Class, Event, FIRST_CREDIT, HEADER, Limits, OPEN_LIMIT, StreamError};

use super::{Pair, events, read};

fn opened(pair: &mut Pair, class: Class) -> u32 {
    let id = pair.agent.open(Class::Input, class, b"{}").unwrap();
    pair.settle();
    assert!(events(&mut pair.gateway).contains(&Event::Opened(id, b"{}".to_vec())));
    id
}

#[test]
fn bytes_go_both_ways_and_each_way_ends_by_itself() {
    let mut p = Pair::new();
    let id = opened(&mut p, Class::Display);
    assert_eq!(p.agent.write(id, b"keys").unwrap(), 4);
    p.agent.end(id);
    assert_eq!(p.gateway.write(id, b"pictures").unwrap(), 8);
    p.settle();
    let (mut up, mut down) = (Vec::new(), Vec::new());
    assert!(read(p.now, &mut p.gateway, id, 100, &mut up));
    assert!(!read(p.now, &mut p.agent, id, 100, &mut down), "the gateway has not ended");
    assert_eq!((&up[..], &down[..]), (&b"keys"[..], &b"pictures"[..]));
    assert_eq!(p.agent.write(id, b"more"), Err(StreamError::Gone), "ended from here");
    p.gateway.end(id);
    p.settle();
    assert!(read(p.now, &mut p.agent, id, 100, &mut down));
    p.agent.drop_stream(id, 0);
    p.gateway.drop_stream(id, 0);
    assert_eq!((p.agent.stats().streams, p.gateway.stats().streams), (0, 0));
    assert_eq!(p.agent.peek(id), Err(StreamError::Gone));
}

#[test]
fn what_nobody_reads_stops_at_the_credit() {
    let mut p = Pair::new();
    let id = opened(&mut p, Class::Display);
    let mut sent = 0;
    loop {
        let n = p.gateway.write(id, &[7; 5000]).unwrap();
        p.settle();
        sent += n;
        if n == 0 {
            break;
        }
    }
    let held_here = sent as u64 - FIRST_CREDIT;
    assert!(held_here <= 300 * 1024, "beyond the credit only a bounded rest waits: {held_here}");
    assert!(p.gateway.stats().held < 64 * 1024, "all that was sent is acknowledged");
    // Another stream does not notice.
    let other = opened(&mut p, Class::Display);
    p.gateway.write(other, b"lively").unwrap();
    p.settle();
    let mut got = Vec::new();
    read(p.now, &mut p.agent, other, 100, &mut got);
    assert_eq!(got, b"lively");
    // And reading frees it.
    let mut all = Vec::new();
    for _ in 0..100 {
        read(p.now, &mut p.agent, id, usize::MAX, &mut all);
        p.settle();
    }
    assert_eq!(all.len(), sent);
}

#[test]
fn credit_grows_with_the_line() {
    let mut p = Pair::new();
    let rtt = Duration::from_millis(100);
    let id = p.agent.open(Class::Input, Class::Display, b"").unwrap();
    // One exchange in each round trip: without growth 64 KiB would be the most of each.
    let mut each = Vec::new();
    assert!(p.agent.tick(p.now));
    p.upward(usize::MAX);
    p.now += rtt;
    for _ in 0..40 {
        loop {
            p.downward(usize::MAX);
            if p.gateway.write(id, &[1; 16384]).unwrap() == 0 {
                break;
            }
        }
        p.now += rtt / 2;
        let mut got = Vec::new();
        read(p.now, &mut p.agent, id, usize::MAX, &mut got);
        each.push(got.len());
        assert!(p.agent.tick(p.now));
        p.upward(usize::MAX);
        p.now += rtt / 2;
        assert!(p.gateway.tick(p.now));
    }
    assert!(*each.iter().max().unwrap() as u64 > FIRST_CREDIT, "{each:?}");
}

#[test]
fn input_overtakes_pictures_and_bulk_on_a_thin_line() {
    let mut p = Pair::new();
    let bulk = opened(&mut p, Class::Bulk);
    let input = opened(&mut p, Class::Input);
    while p.gateway.write(bulk, &[1; 4096]).unwrap() > 0 {}
    p.downward(100);
    p.gateway.write(input, b"key").unwrap();
    // The frame that is half out must be finished; the key is right behind it.
    p.downward(4096 + 2 * HEADER);
    let mut got = Vec::new();
    read(p.now, &mut p.agent, input, 100, &mut got);
    assert_eq!(got, b"key");
}

#[test]
fn a_stream_that_is_let_go_is_broken_off_and_its_rest_swallowed() {
    let mut p = Pair::new();
    let id = opened(&mut p, Class::Display);
    p.gateway.write(id, &[9; 9000]).unwrap();
    p.agent.drop_stream(id, 77);
    p.settle();
    assert_eq!(p.gateway.peek(id), Err(StreamError::Reset(77)));
    assert_eq!(p.gateway.write(id, b"x"), Err(StreamError::Reset(77)));
    p.gateway.drop_stream(id, 0);
    p.settle();
    assert_eq!((p.agent.stats().streams, p.gateway.stats().streams), (0, 0));
}

#[test]
fn an_orderly_end_reaches_the_other_side_even_if_nobody_waits_for_it() {
    let mut p = Pair::new();
    let id = opened(&mut p, Class::Display);
    p.agent.write(id, b"last words").unwrap();
    p.agent.end(id);
    p.agent.drop_stream(id, 5);
    p.upward(usize::MAX);
    // Its end is there before the word that nothing more is wanted.
    p.settle();
    let all: Vec<Event> = events(&mut p.gateway);
    assert!(all.contains(&Event::Readable(id)));
    assert_eq!(p.gateway.write(id, b"x"), Err(StreamError::Reset(0)));
    p.gateway.drop_stream(id, 0);
    p.settle();
    assert_eq!((p.agent.stats().streams, p.gateway.stats().streams), (0, 0));
}

#[test]
fn limits_of_openings_are_kept_on_this_side_already() {
    let mut p = Pair::with(Limits { streams: 3, ..Limits::default() });
    assert_eq!(p.gateway.open(Class::Input, Class::Display, b""), Err(StreamError::Gone), "only the agent opens");
    assert_eq!(p.agent.open(Class::Input, Class::Display, &[0; OPEN_LIMIT + 1]), Err(StreamError::TooLong));
    for _ in 0..3 {
        opened(&mut p, Class::Bulk);
    }
    assert_eq!(p.agent.open(Class::Input, Class::Display, b""), Err(StreamError::Full));
    p.agent.drop_stream(2, 0);
    p.settle();
    assert_eq!(opened(&mut p, Class::Bulk), 4, "numbers are not used again");
}

#[test]
fn messages_arrive_in_order_and_before_all_data() {
    let mut p = Pair::new();
    let id = opened(&mut p, Class::Display);
    while p.gateway.write(id, &[1; 4096]).unwrap() > 0 {}
    for n in 0..3_u8 {
        p.gateway.send_message(&[n]).unwrap();
    }
    p.downward(3 * (HEADER + 1) + HEADER);
    let got: Vec<_> = events(&mut p.agent).into_iter().filter(|e| matches!(e, Event::Message(_))).collect();
    assert_eq!(got, [Event::Message(vec![0]), Event::Message(vec![1]), Event::Message(vec![2])]);
    assert_eq!(p.gateway.send_message(&[]), Err(StreamError::TooLong));
}

#[test]
fn a_silent_line_is_lost_and_a_quiet_one_is_not() {
    let mut p = Pair::new();
    for _ in 0..100 {
        p.now += Duration::from_secs(5);
        p.settle();
    }
    assert!(p.agent.stats().round_trip.is_some());
    assert!(p.agent.tick(p.now + Duration::from_secs(14)));
    assert!(!p.agent.tick(p.now + Duration::from_secs(16)));
    p.agent.detach();
    assert!(p.agent.tick(p.now + Duration::from_secs(900)), "without a line there is nothing to lose");
    assert_eq!(p.agent.due(), None);
}
