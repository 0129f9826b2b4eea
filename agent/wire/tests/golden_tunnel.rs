//! One sample of each message and frame of the tunnel, as released; they never change.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use tram_wire::Incoming;
use tram_wire::assist::{Assist, AssistAnswer, AssistStop, Marks, Question, Stage};
use tram_wire::lease::Signed;
use tram_wire::session::{
    Again, ByLease, Denial, Ended, Hello, Leave, Open, Opened, Protocol, Quality, Refused, Resume, Resumed,
    StreamHeader, ToAgent, ToGateway, Warn, Welcome,
};
use tram_wire::tunnel::{HEADER, Header, Kind};
use tram_wire::version::Versions;

const SECRET: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const VERSIONS: Versions = Versions { min: 1, max: 1 };

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tunnel-v1")
}

fn sample(name: &str) -> String {
    let path = folder().join(format!("{name}.json"));
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn to_gateway(value: ToGateway) {
    let text = sample(value.kind());
    assert_eq!(json(&value.encode().unwrap()), json(&text), "{} writes differently", value.kind());
    assert_eq!(ToGateway::decode(text.as_bytes()).unwrap(), Incoming::Message(value));
}

fn to_agent(value: ToAgent) {
    let text = sample(value.kind());
    assert_eq!(json(&value.encode().unwrap()), json(&text), "{} writes differently", value.kind());
    assert_eq!(ToAgent::decode(text.as_bytes()).unwrap(), Incoming::Message(value));
}

fn session() -> tram_wire::ids::SessionId {
    "01992f3c-7a10-7c3e-8a41-5f0c7d1e2b3a".parse().unwrap()
}

#[test]
fn messages_read_and_write_as_released() {
    to_gateway(ToGateway::Hello(Hello { versions: VERSIONS }));
    to_gateway(ToGateway::Resume(Resume { versions: VERSIONS, session: session(), secret: SECRET.into(), last: 1742 }));
    to_gateway(ToGateway::Open(Open { ticket: format!("vdt1_{}", "A".repeat(43)) }));
    to_gateway(ToGateway::Again(Again { session: session(), token: format!("vda1_{}", "A".repeat(43)) }));
    let lease = Signed { key: "5b1d5b0c7f3a9e21".into(), lease: "{}".into(), signature: "ab".repeat(64) };
    to_gateway(ToGateway::Lease(ByLease { lease }));
    to_gateway(ToGateway::Leave(Leave {}));
    to_agent(ToAgent::Welcome(Welcome { version: 1 }));
    to_agent(ToAgent::Resumed(Resumed { version: 1, secret: SECRET.into(), last: 96 }));
    to_agent(ToAgent::Opened(Opened {
        session: session(),
        secret: SECRET.into(),
        again: format!("vda1_{}", "A".repeat(43)),
        protocols: vec![Protocol::Vnc, Protocol::Spice],
        grace_s: 300,
    }));
    to_agent(ToAgent::Refused(Refused { reason: Denial::UnknownSession }));
    to_agent(ToAgent::Warn(Warn { code: "idle".into(), in_s: 120 }));
    to_agent(ToAgent::Ended(Ended { code: 4000 }));
    to_agent(ToAgent::Quality(Quality { rtt_ms: 84, down_kbit: 3700 }));
    let assist = "01992f3c-7a10-7c3e-8a41-5f0c7d1e2b3b".parse().unwrap();
    to_gateway(ToGateway::Marks(Marks { shown: true }));
    to_gateway(ToGateway::AssistAnswer(AssistAnswer { assist, question: Question::Watch, allow: true }));
    to_gateway(ToGateway::AssistStop(AssistStop { assist }));
    to_agent(ToAgent::Assist(Assist {
        assist,
        stage: Stage::Asked,
        who: "Trần Thị Hoa".into(),
        why: "Máy in không in được".into(),
        left_s: 30,
    }));
    let header = StreamHeader { session: session(), protocol: Protocol::Vnc };
    assert_eq!(serde_json::to_value(&header).unwrap(), json(&sample("stream_header")));
    assert_eq!(serde_json::from_str::<StreamHeader>(&sample("stream_header")).unwrap(), header);
}

#[test]
fn every_kind_has_a_sample_and_every_sample_a_kind() {
    let names = fs::read_dir(folder()).unwrap().map(|e| e.unwrap().path().file_stem().unwrap().to_owned());
    let samples: BTreeSet<String> = names.map(|n| n.into_string().unwrap()).filter(|n| n != "stream_header").collect();
    let kinds = ToGateway::KINDS.iter().chain(ToAgent::KINDS).map(|k| (*k).to_owned());
    assert_eq!(samples, kinds.collect());
}

#[test]
fn frames_are_laid_out_as_released() {
    let kinds = [
        (Kind::Open, 1),
        (Kind::Data, 2),
        (Kind::End, 3),
        (Kind::Reset, 4),
        (Kind::Credit, 5),
        (Kind::Message, 6),
        (Kind::Ack, 16),
        (Kind::Ping, 17),
        (Kind::Pong, 18),
        (Kind::Hello, 32),
    ];
    for (kind, byte) in kinds {
        let length = match kind {
            Kind::Reset | Kind::Hello => 2,
            Kind::Credit => 4,
            Kind::Data | Kind::Message => 258,
            _ => 0,
        };
        let header = Header { kind, class: 0x13, length, stream: 0x0102_0304, number: 0x05 };
        let [high, low] = length.to_be_bytes();
        let bytes: [u8; HEADER] = [byte, 0x13, high, low, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 5];
        assert_eq!(header.encode(), bytes);
        assert_eq!(Header::decode(&bytes), Ok(header));
    }
}
