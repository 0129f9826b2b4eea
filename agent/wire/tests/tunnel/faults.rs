//! What the other end may not do, each with its own answer; and that nothing is lost by it.

use std::collections::VecDeque;
use std::time::Duration;

use tram_wire::tunnel::{Class, FIRST_CREDIT, Fault, Header, Kind, Limits, MOST_CREDIT, Mux, Role};

use super::{Pair, feed};

const NOW: Duration = Duration::from_secs(1);

fn frame(kind: Kind, class: u8, stream: u32, number: u64, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    [&Header { kind, class, length, stream, number }.encode()[..], payload].concat()
}

/// A gateway that got these frames, with the first stream open already.
fn gateway(frames: &[Vec<u8>]) -> (Mux, Result<(), Fault>) {
    let mut mux = Mux::new(Role::Gateway, Limits { streams: 4, ..Limits::default() });
    mux.attach(NOW, 0).unwrap();
    feed(NOW, &mut mux, &frame(Kind::Open, 0x13, 1, 1, b"{}")).unwrap();
    let answer = feed(NOW, &mut mux, &frames.concat());
    (mux, answer)
}

fn data(stream: u32, number: u64, n: usize) -> Vec<u8> {
    frame(Kind::Data, 0, stream, number, &vec![0; n])
}

fn credit(stream: u32, number: u64, more: u32) -> Vec<u8> {
    frame(Kind::Credit, 0, stream, number, &more.to_be_bytes())
}

#[test]
fn every_breach_has_its_own_name() {
    let reset = |number| frame(Kind::Reset, 0, 1, number, &[0, 1]);
    for (what, frames, fault) in [
        ("an unknown stream", vec![data(2, 2, 1)], Fault::UnknownStream),
        ("stream 0", vec![data(0, 2, 1)], Fault::UnknownStream),
        ("the end of an unknown stream", vec![frame(Kind::End, 0, 9, 2, b"")], Fault::UnknownStream),
        ("credit for an unknown stream", vec![credit(7, 2, 1)], Fault::UnknownStream),
        ("a reset of an unknown stream", vec![frame(Kind::Reset, 0, 7, 2, &[0, 0])], Fault::UnknownStream),
        ("data after the end", vec![frame(Kind::End, 0, 1, 2, b""), data(1, 3, 1)], Fault::ClosedStream),
        ("data after a reset", vec![reset(2), data(1, 3, 1)], Fault::ClosedStream),
        ("a second end", vec![frame(Kind::End, 0, 1, 2, b""), frame(Kind::End, 0, 1, 3, b"")], Fault::ClosedStream),
        ("an old number opened again", vec![frame(Kind::Open, 0x13, 1, 2, b"")], Fault::ClosedStream),
        ("too high a stream", vec![frame(Kind::Open, 0x13, 3, 2, b"")], Fault::StreamTooHigh),
        ("the highest stream", vec![frame(Kind::Open, 0x13, u32::MAX, 2, b"")], Fault::StreamTooHigh),
        ("a class that is none", vec![frame(Kind::Open, 0x15, 2, 2, b"")], Fault::Class),
        ("another", vec![frame(Kind::Open, 0xf0, 2, 2, b"")], Fault::Class),
        (
            "too many streams",
            (2..=5).map(|n| frame(Kind::Open, 0x13, n, n.into(), b"")).collect(),
            Fault::TooManyStreams,
        ),
        ("credit of nothing", vec![credit(1, 2, 0)], Fault::CreditOverflow),
        ("credit without end", vec![credit(1, 2, u32::MAX)], Fault::CreditOverflow),
        (
            "credit that adds up",
            vec![credit(1, 2, (MOST_CREDIT - FIRST_CREDIT) as u32), credit(1, 3, 1)],
            Fault::CreditOverflow,
        ),
        ("number 0", vec![data(1, 0, 1)], Fault::ZeroNumber),
        ("a number left out", vec![data(1, 3, 1)], Fault::Gap),
        ("a number twice", vec![data(1, 2, 1), data(1, 2, 1)], Fault::Gap),
        ("the last number of all", vec![data(1, u64::MAX, 1)], Fault::Gap),
        ("an ack of what was never sent", vec![frame(Kind::Ack, 0, 0, 1, b"")], Fault::Ack),
        ("a hello in the middle", vec![frame(Kind::Hello, 0, 0, 0, b"{}")], Fault::Kind),
        ("an empty piece of data", vec![data(1, 2, 0)], Fault::Length),
    ] {
        assert_eq!(gateway(&frames).1, Err(fault), "{what}");
    }
}

#[test]
fn data_beyond_the_credit_is_refused_at_the_byte() {
    let full: Vec<Vec<u8>> = (0..16).map(|n| data(1, 2 + n, 4096)).collect();
    assert_eq!(gateway(&full).1, Ok(()), "exactly the credit");
    let over = [full, vec![data(1, 18, 1)]].concat();
    assert_eq!(gateway(&over).1, Err(Fault::BeyondCredit));
}

#[test]
fn a_breach_changes_nothing_of_what_arrived_before() {
    let (mut mux, answer) = gateway(&[data(1, 2, 10), data(1, 3, 20), data(1, 9, 1)]);
    assert_eq!(answer, Err(Fault::Gap));
    mux.detach();
    assert_eq!(mux.received(), 3);
    // The honest end comes back from there.
    mux.attach(NOW, 0).unwrap();
    feed(NOW, &mut mux, &data(1, 4, 5)).unwrap();
    assert_eq!(mux.received(), 4);
}

#[test]
fn a_gateway_opens_nothing_at_an_agent() {
    let mut mux = Mux::new(Role::Agent, Limits::default());
    mux.attach(NOW, 0).unwrap();
    assert_eq!(feed(NOW, &mut mux, &frame(Kind::Open, 0x13, 1, 1, b"")), Err(Fault::Direction));
}

#[test]
fn unread_messages_have_an_end() {
    let mut mux = Mux::new(Role::Gateway, Limits::default());
    mux.attach(NOW, 0).unwrap();
    let flood: Vec<Vec<u8>> = (1..=65).map(|n| frame(Kind::Message, 0, 0, n, b"{}")).collect();
    assert_eq!(feed(NOW, &mut mux, &flood.concat()), Err(Fault::MessageFlood));
}

#[test]
fn who_acknowledges_nothing_can_not_make_the_other_side_hold_more_and_more() {
    let mut mux = Mux::new(Role::Gateway, Limits { replay: 4096, most_replay: 8192, ..Limits::default() });
    mux.attach(NOW, 0).unwrap();
    let mut fault = None;
    for n in 0..10_000_u32 {
        let number = u64::from(n) * 2 + 1;
        // Every stream that is opened and broken off wants an answer.
        let frames = [frame(Kind::Open, 0x13, n + 1, number, b""), frame(Kind::Reset, 0, n + 1, number + 1, &[0, 0])];
        if let Err(f) = feed(NOW, &mut mux, &frames.concat()) {
            fault = Some(f);
            break;
        }
        mux.drop_stream(n + 1, 0);
        mux.batch(&mut VecDeque::new());
        while mux.event().is_some() {}
    }
    assert_eq!(fault, Some(Fault::Unacknowledged));
    assert!(mux.stats().held < 64 * 1024);
}

#[test]
fn credit_and_resets_that_cross_an_end_are_honest() {
    let mut p = Pair::new();
    let id = p.agent.open(Class::Input, Class::Display, b"").unwrap();
    p.settle();
    for mux in [&mut p.agent, &mut p.gateway] {
        mux.end(id);
        mux.drop_stream(id, 0);
    }
    p.settle();
    assert_eq!(p.gateway.stats().streams, 0);
    let next = p.gateway.received() + 1;
    feed(p.now, &mut p.gateway, &credit(id, next, 5)).unwrap();
    feed(p.now, &mut p.gateway, &frame(Kind::Reset, 0, id, next + 1, &[0, 0])).unwrap();
}

#[test]
fn a_resumption_beyond_the_window_frees_nothing() {
    let mut p = Pair::new();
    let id = p.agent.open(Class::Input, Class::Display, b"").unwrap();
    p.settle();
    p.gateway.write(id, &[1; 10_000]).unwrap();
    p.gateway.batch(&mut VecDeque::new());
    let held = p.gateway.stats().held;
    assert!(held > 4000);
    for (what, their_last) in [("never sent", 50), ("the last of all", u64::MAX)] {
        assert_eq!(p.gateway.reaches(their_last), Err(Fault::Window), "{what}");
        assert_eq!(p.gateway.attach(p.now, their_last), Err(Fault::Window), "{what}");
        assert_eq!(p.gateway.stats().held, held, "{what}");
    }
    // What was chosen for the line above never reached it.
    p.attach();
    p.settle();
    p.now += Duration::from_secs(1);
    p.settle();
    let known = p.agent.received();
    assert!(known > 0);
    assert_eq!(p.gateway.reaches(known - 1), Err(Fault::Window), "acknowledged and gone");
    assert_eq!(p.gateway.reaches(known), Ok(()));
}
