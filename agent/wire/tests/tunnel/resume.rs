//! The line is cut anywhere, again and again; every byte arrives once and in order.

use std::collections::BTreeMap;
use std::time::Duration;

use tram_wire::tunnel::{Class, Event, Mux};

use super::{Dice, Pair, events, read};

/// What byte `n` of a stream is, by who sent it.
fn byte(stream: u32, up: bool, n: usize) -> u8 {
    (n as u32).wrapping_mul(2_654_435_761).wrapping_add(stream * 97 + u32::from(up)).to_le_bytes()[2]
}

/// One direction of one stream.
#[derive(Default)]
struct Way {
    total: usize,
    sent: usize,
    got: usize,
    ended: bool,
}

impl Way {
    fn send(&mut self, dice: &mut Dice, mux: &mut Mux, id: u32, up: bool) {
        let n = (self.total - self.sent).min(1 + dice.roll(9000) as usize);
        let piece: Vec<u8> = (self.sent..self.sent + n).map(|i| byte(id, up, i)).collect();
        self.sent += mux.write(id, &piece).unwrap_or(0);
        if self.sent == self.total {
            mux.end(id);
        }
    }

    fn receive(&mut self, dice: &mut Dice, now: Duration, mux: &mut Mux, id: u32, up: bool) {
        let mut got = Vec::new();
        self.ended |= read(now, mux, id, 1 + dice.roll(20_000) as usize, &mut got);
        for b in got {
            assert_eq!(b, byte(id, up, self.got), "stream {id}, byte {}", self.got);
            self.got += 1;
        }
    }
}

/// One whole life of a tunnel with `cuts` cuts. The seed makes it repeatable.
fn life(seed: u64, cuts: u32) {
    let mut dice = Dice(seed);
    let mut p = Pair::new();
    let mut ways: BTreeMap<u32, [Way; 2]> = BTreeMap::new();
    for _ in 0..5 {
        let ours = Class::ALL[dice.roll(5) as usize];
        let theirs = Class::ALL[dice.roll(5) as usize];
        let id = p.agent.open(ours, theirs, b"who").unwrap();
        let way = |d: &mut Dice| Way { total: d.roll(400_000) as usize, ..Way::default() };
        ways.insert(id, [way(&mut dice), way(&mut dice)]);
    }
    let (mut known, mut messages, mut said, mut cut) = (0, Vec::new(), 0_u32, 0);
    for round in 0_u32.. {
        assert!(round < 200_000, "it goes on for ever: seed {seed}");
        p.now += Duration::from_micros(dice.roll(3000));
        assert!(p.agent.tick(p.now) && p.gateway.tick(p.now));
        if said < 200 && dice.roll(4) == 0 && p.gateway.send_message(&said.to_be_bytes()).is_ok() {
            said += 1;
        }
        for e in events(&mut p.gateway) {
            known += u32::from(matches!(e, Event::Opened(..)));
        }
        for e in events(&mut p.agent) {
            if let Event::Message(m) = e {
                messages.push(m);
            }
        }
        for (id, [up, down]) in &mut ways {
            up.send(&mut dice, &mut p.agent, *id, true);
            down.receive(&mut dice, p.now, &mut p.agent, *id, false);
            if *id <= known {
                down.send(&mut dice, &mut p.gateway, *id, false);
                up.receive(&mut dice, p.now, &mut p.gateway, *id, true);
            }
        }
        let most = dice.roll(30_000) as usize;
        p.upward(most);
        let most = dice.roll(30_000) as usize;
        p.downward(most);
        if cut < cuts && dice.roll(3) == 0 {
            // What is on the line is gone, half frames and whole ones.
            if dice.roll(2) == 0 {
                p.agent.detach();
                p.gateway.detach();
                p.now += Duration::from_secs(dice.roll(100));
            }
            p.attach();
            cut += 1;
        }
        if ways.values().flatten().all(|w| w.ended) && messages.len() == 200 {
            break;
        }
    }
    for (id, way) in ways.iter().flat_map(|(id, ways)| ways.iter().map(move |w| (id, w))) {
        assert_eq!((way.sent, way.got), (way.total, way.total), "stream {id}, seed {seed}");
    }
    let order: Vec<u32> = messages.iter().map(|m| u32::from_be_bytes(m[..].try_into().unwrap())).collect();
    assert_eq!(order, (0..200).collect::<Vec<_>>(), "seed {seed}");
    for id in ways.keys() {
        p.agent.drop_stream(*id, 0);
        p.gateway.drop_stream(*id, 0);
    }
    p.settle();
    // A last acknowledgement may still be due.
    p.now += Duration::from_secs(1);
    p.settle();
    assert_eq!((p.agent.stats().streams, p.agent.stats().held), (0, 0), "seed {seed}");
    assert_eq!((p.gateway.stats().streams, p.gateway.stats().held), (0, 0), "seed {seed}");
}

#[test]
fn no_byte_is_lost_or_doubled_by_cuts_anywhere() {
    for seed in 1..=24 {
        life(seed * 7919, 60);
    }
}

#[test]
fn nor_without_cuts() {
    life(4242, 0);
}

#[test]
fn a_cut_at_every_single_byte_of_a_short_talk() {
    // The whole talk is some 250 bytes each way: every place is tried.
    for at in 0..260 {
        let mut p = Pair::new();
        let id = p.agent.open(Class::Input, Class::Display, b"{\"protocol\":\"vnc\"}").unwrap();
        p.agent.write(id, b"hello from the agent").unwrap();
        p.agent.end(id);
        p.upward(at);
        let opened = events(&mut p.gateway).iter().any(|e| matches!(e, Event::Opened(..)));
        if opened {
            p.gateway.write(id, b"hello from the gateway").unwrap();
            p.downward(at / 2);
        }
        p.agent.detach();
        p.attach();
        p.settle();
        if !opened {
            p.gateway.write(id, b"hello from the gateway").unwrap();
        }
        p.gateway.end(id);
        p.settle();
        let (mut up, mut down) = (Vec::new(), Vec::new());
        assert!(read(p.now, &mut p.gateway, id, 1000, &mut up), "cut at {at}");
        assert!(read(p.now, &mut p.agent, id, 1000, &mut down), "cut at {at}");
        assert_eq!((&up[..], &down[..]), (&b"hello from the agent"[..], &b"hello from the gateway"[..]), "cut at {at}");
    }
}
