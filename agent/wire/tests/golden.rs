//! One sample a message, as released. A sample of a released version never changes: if this test
//! fails, the code broke agents in the field; mend the code. New optional fields are new samples.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tram_wire::call::{self, Call};
use tram_wire::check::{CheckState, Finding};
use tram_wire::desk;
use tram_wire::diagnosis::{
    Action, Bundle, Listed, ListedKind, News, Order, OrderCancel, OrderKey, OrderNews, Outcome, Refused, SignedOrder,
    Step, Work,
};
use tram_wire::enrol::{EnrolRequest, EnrolResponse, Issued, NewIdentity, Renew};
use tram_wire::heartbeat::*;
use tram_wire::hello::{Hello, HelloAck, KeyPlace};
use tram_wire::instance::{Instance, Marks};
use tram_wire::lease::{Lease, Limits, Signed};
use tram_wire::plan::{Live, Plan, Service};
use tram_wire::report::*;
use tram_wire::session::Protocol;
use tram_wire::version::Versions;
use tram_wire::{AgentMessage, ControllerMessage, Incoming, Refusal};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn sample(name: &str) -> String {
    let path = folder().join(format!("{name}.json"));
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The sample reads as `value`, and `value` writes as the sample: nothing lost, nothing added.
fn holds<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(name: &str, value: &T) {
    let text = sample(name);
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), value, "{name} reads differently");
    let file: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_value(value).unwrap(), file, "{name} writes differently");
}

fn agent(name: &str, value: AgentMessage) {
    let text = sample(name);
    let file: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&value.encode().unwrap()).unwrap(), file, "{name} writes differently");
    assert_eq!(AgentMessage::decode(text.as_bytes()).unwrap(), Incoming::Message(value), "{name} reads differently");
}

fn controller(name: &str, value: ControllerMessage) {
    let text = sample(name);
    let file: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&value.encode().unwrap()).unwrap(), file, "{name} writes differently");
    assert_eq!(
        ControllerMessage::decode(text.as_bytes()).unwrap(),
        Incoming::Message(value),
        "{name} reads differently"
    );
}

fn hello() -> Hello {
    Hello {
        versions: Versions { min: 1, max: 1 },
        agent_version: "0.1.0".into(),
        at_ms: 1_795_000_000_000,
        hostname: "mot-cua-03".into(),
        os: "Debian GNU/Linux 12".into(),
        kernel: "6.1.0-40-amd64".into(),
        arch: "x86_64".into(),
        boot_id: "7d0f3f0e-94f6-4f5e-8f1e-0d6b1a3a5a11".into(),
        connects: 12,
        instance: None,
        key: None,
    }
}

fn issued() -> Issued {
    Issued {
        certificate_pem: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".into(),
        ca_pem: "-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----\n".into(),
        issued_ms: 1_795_000_000_000,
        not_after_ms: 1_797_592_000_000,
    }
}

fn vitals() -> Vitals {
    Vitals {
        cpu_percent: 12.5,
        memory_total_mib: 7850,
        memory_used_mib: 2210,
        load1: 0.25,
        uptime_s: 86_400,
        temperatures: vec![Temperature {
            sensor: "coretemp Package id 0".into(),
            celsius: 51.0,
            critical: Some(100.0),
        }],
        volumes: vec![Volume { mount: "/".into(), total_mib: 117_000, free_mib: 80_500, read_only: false }],
    }
}

fn network() -> Network {
    Network {
        interfaces: vec![Interface {
            name: "enp1s0".into(),
            mac: Some("52:54:00:12:34:56".into()),
            addresses: vec!["192.168.1.23/24".into()],
            up: true,
            speed_mbit: Some(1000),
            duplex: Some("full".into()),
            carrier_changes: 3,
            errors: 0,
        }],
        gateway: Some("192.168.1.1".into()),
        gateway_rtt_ms: Some(0.5),
        resolver: Some("192.168.1.1".into()),
        dns_ms: Some(4.25),
        controller_rtt_ms: Some(18.5),
        skew_ms: Some(-250),
    }
}

fn findings() -> Vec<Finding> {
    vec![
        Finding { check: "memory".into(), state: CheckState::Ok, code: "memory_ok".into(), params: Default::default() },
        Finding {
            check: "disk_space".into(),
            state: CheckState::Warn,
            code: "disk_low".into(),
            params: [("mount".to_owned(), "/".to_owned()), ("free_percent".to_owned(), "8".to_owned())].into(),
        },
    ]
}

#[test]
fn agent_messages() {
    agent("hello", AgentMessage::Hello(hello()));
    agent("beat", AgentMessage::Beat(Beat { seq: 7, at_ms: 1_795_000_030_000, rtt_us: Some(18_500) }));
    agent("beat_first", AgentMessage::Beat(Beat { seq: 1, at_ms: 1_795_000_000_000, rtt_us: None }));
    agent(
        "snapshot",
        AgentMessage::Snapshot(Box::new(Snapshot {
            at_ms: 1_795_000_000_500,
            hardware: Hardware {
                vendor: Some("Dell Inc.".into()),
                model: Some("OptiPlex 3080".into()),
                serial: Some("8XK2PQ3".into()),
                firmware: Some("2.18.0".into()),
                cpu_model: Some("Intel(R) Core(TM) i3-10100T CPU @ 3.00GHz".into()),
                cpus: 8,
                memory_mib: 7850,
                disks: vec![Disk {
                    name: "nvme0n1".into(),
                    model: Some("KBG40ZNS128G".into()),
                    size_mib: 122_104,
                    rotational: false,
                }],
            },
            vitals: vitals(),
            network: network(),
            findings: findings(),
        })),
    );
    agent(
        "change",
        AgentMessage::Change(Box::new(Change {
            at_ms: 1_795_000_060_000,
            vitals: Some(vitals()),
            network: None,
            findings: None,
        })),
    );
    agent("renew", AgentMessage::Renew(Renew { csr_pem: "-----BEGIN CERTIFICATE REQUEST-----\n".into() }));
    agent("goodbye", AgentMessage::Goodbye(Goodbye { reason: GoodbyeReason::Shutdown }));
}

#[test]
fn controller_messages() {
    controller(
        "hello_ack",
        ControllerMessage::HelloAck(HelloAck {
            version: 1,
            server_ms: 1_795_000_000_250,
            beat_s: 30,
            snapshot_s: 900,
            reconnect_window_s: 120,
            order_keys: Vec::new(),
            quarantined: false,
        }),
    );
    controller("beat_ack", ControllerMessage::BeatAck(BeatAck { seq: 7, server_ms: 1_795_000_030_250 }));
    controller("renewed", ControllerMessage::Renewed(issued()));
    controller("refused", ControllerMessage::Refused(Refusal::Busy { retry_after_s: 45 }));
}

#[test]
fn a_computer_proves_which_one_it_is_and_hears_of_copies() {
    let marks =
        Marks { board: Some("8XK2PQ3".into()), disks: vec!["S3Z5NB0K".into()], macs: vec!["00:1b:21:aa:bb:cc".into()] };
    let instance = Instance { nonce: "0f1e2d3c4b5a6978".into(), copy: None, marks };
    agent("hello_key", AgentMessage::Hello(Hello { key: Some(KeyPlace::Tpm), ..hello() }));
    agent("hello_instance", AgentMessage::Hello(Hello { instance: Some(instance), ..hello() }));
    let copy = Instance { nonce: "0f1e".into(), copy: Some("a1b2".into()), marks: Marks::default() };
    agent("hello_copy", AgentMessage::Hello(Hello { instance: Some(copy), ..hello() }));
    controller(
        "hello_ack_quarantined",
        ControllerMessage::HelloAck(HelloAck {
            version: 1,
            server_ms: 1_795_000_000_250,
            beat_s: 30,
            snapshot_s: 900,
            reconnect_window_s: 120,
            order_keys: Vec::new(),
            quarantined: true,
        }),
    );
    controller("new_identity", ControllerMessage::NewIdentity(NewIdentity {}));
    let endpoint_id = "01992f3c-7a10-7c3e-8a41-5f0c7d1e2b3a".parse().unwrap();
    controller(
        "reborn",
        ControllerMessage::Reborn(EnrolResponse { endpoint_id, issued: issued(), order_keys: Vec::new() }),
    );
    controller("refused_clone", ControllerMessage::Refused(Refusal::Clone));
}

fn report(batch: u64, at_ms: i64, records: Vec<Record>) -> Report {
    let boot = "7d0f3f0e-94f6-4f5e-8f1e-0d6b1a3a5a11".to_owned();
    // The samples were made half a second or less before they were sent.
    Report {
        batch,
        boot,
        mono_ms: Some(u64::try_from(at_ms - 1_795_000_000_000).unwrap() + 86_400_000),
        at_ms,
        records,
        rides: false,
    }
}

fn texts(pairs: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn token_item(facts: &[(&str, &str)]) -> Item {
    Item { id: "1-4".into(), kind: "token".into(), name: Some("BIT4ID tokenME".into()), facts: texts(facts) }
}

#[test]
fn a_keyframe_is_complete() {
    let printer = Item {
        id: "mot-cua".into(),
        kind: "printer".into(),
        name: Some("Canon LBP2900".into()),
        facts: texts(&[("state", "stopped"), ("reasons", "media-empty")]),
    };
    let check = |check: &str, state, code: &str, params: &[(&str, &str)], for_ms| CheckResult {
        check: check.into(),
        state,
        code: code.into(),
        params: texts(params),
        for_ms,
    };
    let record = Record {
        seq: 86_399_000,
        mono_ms: 86_400_250,
        at_ms: 1_795_000_000_250,
        key: true,
        gauges: [("cpu", 12.5), ("mem_used", 28.0), ("psi_io", 0.25), ("disk:/", 31.0)]
            .map(|(k, v)| (k.to_owned(), Some(v)))
            .into(),
        hardware: Some(Hardware {
            vendor: Some("Dell Inc.".into()),
            model: Some("OptiPlex 3080".into()),
            serial: Some("8XK2PQ3".into()),
            cpus: 8,
            memory_mib: 7850,
            ..Hardware::default()
        }),
        inventory: [
            ("printers".to_owned(), vec![printer]),
            ("tokens".to_owned(), vec![token_item(&[("vendor_product", "25dd:3111")])]),
        ]
        .into(),
        checks: vec![
            check("memory", CheckState::Ok, "memory_ok", &[("free_percent", "72")], 3_600_000),
            check("printer", CheckState::Crit, "printer_paper", &[("printer", "mot-cua")], 120_000),
        ],
        ..Record::default()
    };
    agent("report_keyframe", AgentMessage::Report(Box::new(report(1, 1_795_000_000_500, vec![record]))));
}

#[test]
fn a_delta_says_what_changed() {
    let pulled = Record {
        seq: 86_399_001,
        mono_ms: 86_430_000,
        at_ms: 1_795_000_030_000,
        events: vec![Event { what: Happened::Detached, section: "tokens".into(), item: token_item(&[]) }],
        ..Record::default()
    };
    let portal = Probe {
        name: "cong-dich-vu-cong".into(),
        kind: "https".into(),
        state: CheckState::Crit,
        failed: Some(Phase::Tls),
        error: Some("timeout".into()),
        resolve_us: Some(1200),
        connect_us: Some(18_500),
        ..Probe::default()
    };
    let gateway = Probe {
        name: "gateway".into(),
        kind: "icmp".into(),
        state: CheckState::Ok,
        trips: Some(Trips { sent: 20, lost: 1, p50_us: 450, p95_us: 1900, jitter_us: 120 }),
        ..Probe::default()
    };
    let busy = Record {
        seq: 86_399_002,
        mono_ms: 86_460_250,
        at_ms: 1_795_000_060_250,
        gauges: [("cpu".to_owned(), Some(55.0)), ("temp:coretemp".to_owned(), None)].into(),
        probes: vec![portal, gateway],
        notes: vec![Note {
            code: "collector_off".into(),
            params: texts(&[("collector", "smart"), ("seconds", "3600")]),
        }],
        ..Record::default()
    };
    agent("report_delta", AgentMessage::Report(Box::new(report(2, 1_795_000_060_500, vec![pulled, busy]))));
}

#[test]
fn a_backlog_of_an_earlier_boot_says_what_is_missing() {
    let gap = Gap {
        class: "delta".into(),
        from_seq: 7,
        to_seq: 39,
        from_ms: 1_794_890_000_000,
        to_ms: 1_794_899_000_000,
        count: 33,
    };
    let record = Record { seq: 40, mono_ms: 5000, at_ms: 1_794_900_000_000, gap: Some(gap), ..Record::default() };
    let boot = "11111111-94f6-4f5e-8f1e-0d6b1a3a5a11".to_owned();
    let late = Report { batch: 3, boot, mono_ms: None, at_ms: 1_795_000_061_000, records: vec![record], rides: false };
    agent("report_backlog", AgentMessage::Report(Box::new(late)));
}

#[test]
fn what_a_report_is_answered_with() {
    controller("report_ack", ControllerMessage::ReportAck(ReportAck { batch: 3 }));
    let portal = Service {
        name: "cong-dich-vu-cong".into(),
        kind: "https".into(),
        host: "dichvucong.hanoi.gov.vn".into(),
        port: 443,
        path: Some("/".into()),
        expect: Some("200".into()),
        every_s: 300,
        budget_ms: 5000,
        ..Service::default()
    };
    let name = Service {
        name: "ten-may-chu".into(),
        kind: "dns".into(),
        host: "vdi.hanoi.gov.vn".into(),
        expect: Some("10.10.0.5,10.10.0.6".into()),
        every_s: 60,
        budget_ms: 2000,
        ..Service::default()
    };
    let plan = Plan { prober: true, services: vec![portal, name], ..Plan::default() };
    controller("plan", ControllerMessage::Plan(Box::new(plan)));
    let quiet = Plan { delta_s: 300, keyframe_s: 3600, metered: true, ..Plan::default() };
    controller("plan_quiet", ControllerMessage::Plan(Box::new(quiet)));
    let binary = Plan { binary: true, ..Plan::default() };
    controller("plan_binary", ControllerMessage::Plan(Box::new(binary)));
    let dictionary = Plan { binary: true, dictionary: 1, ..Plan::default() };
    controller("plan_dictionary", ControllerMessage::Plan(Box::new(dictionary)));
    let rare = Plan { beat_s: 300, delta_s: 300, keyframe_s: 3600, metered: true, ..Plan::default() };
    controller("plan_metered", ControllerMessage::Plan(Box::new(rare)));
    controller("live", ControllerMessage::Live(Live { for_s: 300 }));
}

#[test]
fn what_a_newer_agent_reports_is_read_as_far_as_it_goes() {
    let text = r#"{"kind":"report","batch":1,"boot":"b","at_ms":1,"lane":"fast","records":[
        {"seq":1,"aura":{"colour":"red"},"events":[{"what":"teleported","item":{"id":"x"}}],
         "probes":[{"name":"p","failed":"quic","state":"great"}],"checks":[{"check":"c","state":"meh"}]},
        {"hologram":[1,2]}]}"#;
    let Incoming::Message(AgentMessage::Report(r)) = AgentMessage::decode(text.as_bytes()).unwrap() else { panic!() };
    assert_eq!(r.records.len(), 2);
    assert_eq!(r.records[0].events[0].what, Happened::Other);
    assert_eq!(
        (r.records[0].probes[0].failed, r.records[0].probes[0].state),
        (Some(Phase::Other), CheckState::Unknown)
    );
    assert_eq!(r.records[0].checks[0].state, CheckState::Unknown);
    assert_eq!(r.records[1], Record::default());
}

#[test]
fn enrolment() {
    holds(
        "enrol_request",
        &EnrolRequest {
            token: "tram1-AAAAA-BBBBB-CCCCC-DDDDD-EEEEE-FFFFF-GGGGG-HHHHH".into(),
            csr_pem: "-----BEGIN CERTIFICATE REQUEST-----\n".into(),
            hello: hello(),
            hardware: None,
        },
    );
    holds(
        "enrol_request_hardware",
        &EnrolRequest {
            token: "tram1-AAAAA-BBBBB-CCCCC-DDDDD-EEEEE-FFFFF-GGGGG-HHHHH".into(),
            csr_pem: "-----BEGIN CERTIFICATE REQUEST-----\n".into(),
            hello: hello(),
            hardware: Some(Hardware {
                vendor: Some("Dell Inc.".into()),
                model: Some("OptiPlex 3080".into()),
                serial: Some("8XK2PQ3".into()),
                cpus: 4,
                memory_mib: 8192,
                ..Hardware::default()
            }),
        },
    );
    holds(
        "enrol_response",
        &EnrolResponse {
            endpoint_id: "01992f3c-7a10-7c3e-8a41-5f0c7d1e2b3a".parse().unwrap(),
            issued: issued(),
            order_keys: Vec::new(),
        },
    );
}

#[test]
fn refusals() {
    holds(
        "refusals",
        &vec![
            Refusal::Unknown,
            Refusal::Revoked,
            Refusal::Expired,
            Refusal::Clock { server_ms: 1_795_000_000_000 },
            Refusal::Version { min: 1, max: 1 },
            Refusal::Busy { retry_after_s: 45 },
            Refusal::Superseded,
            Refusal::Token,
            Refusal::Malformed { detail: "bad beat message".into() },
        ],
    );
    holds(
        "refusals_approval",
        &vec![
            Refusal::Pending { digits: "048213".into(), until_ms: 1_795_000_000_000, ask_again_s: 3 },
            Refusal::NotApproved { reason: "not one of ours".into() },
            Refusal::Unanswered,
        ],
    );
}

fn lease() -> Lease {
    let id = "01992f3c-7a10-7c3e-8a41-5f0c7d1e2b3a";
    Lease {
        version: 1,
        id: id.parse().unwrap(),
        installation: id.parse().unwrap(),
        user: id.parse().unwrap(),
        username: "lan.nt".into(),
        display_name: "Nguyễn Thị Lan".into(),
        endpoint: id.parse().unwrap(),
        certificate: "0f".repeat(32),
        site: "00004".into(),
        session: id.parse().unwrap(),
        desktop: id.parse().unwrap(),
        desktop_name: "truc-bach-07".into(),
        generation: 3,
        host: id.parse().unwrap(),
        protocols: vec![Protocol::Vnc, Protocol::Spice],
        limits: Limits { idle_s: 1800, clipboard: true, audio: false, kbit: Some(4000) },
        issued_ms: 1_795_000_000_000,
        not_before_ms: 1_795_000_000_000,
        expires_ms: 1_795_043_200_000,
    }
}

#[test]
fn a_desk() {
    let session = desk::Session {
        id: "01992f3c-7a10-7c3e-8a41-5f0c7d1e2b3a".parse().unwrap(),
        state: "ready".into(),
        desktop: "truc-bach-07".into(),
        step: None,
        end_reason: None,
    };
    let step = desk::Step { code: "booting".into(), estimate_s: Some(40), progress: Some(0.5), position: Some(3) };
    let waiting = desk::Session { state: "starting".into(), step: Some(step), ..session.clone() };
    let ended = desk::Session { state: "ended".into(), end_reason: Some("staff".into()), ..session.clone() };
    let secret = |prefix: &str| format!("{prefix}{}", "A".repeat(43));
    holds("desk_sign_in", &desk::SignIn { username: "lan.nt".into(), password: "mật khẩu".into() });
    let who =
        desk::SignedIn { token: secret("tds1_"), display_name: "Nguyễn Thị Lan".into(), language: "vi".into() };
    holds("desk_signed_in", &who);
    holds("desk_connect", &desk::Connect { take_over: true });
    holds("desk_connected_waiting", &desk::Connected { session: waiting, ticket: None, gateways: Vec::new() });
    let ticket = Some(desk::Ticket { ticket: secret("vdt1_"), expires_s: 30 });
    let gateways = vec!["https://gw1.tram.example:9444".to_owned(), "https://gw2.tram.example:9444".to_owned()];
    let connected = desk::Connected { session: session.clone(), ticket: ticket.clone(), gateways: gateways.clone() };
    holds("desk_connected_gateways", &connected);
    holds("desk_connected", &desk::Connected { session, ticket, gateways: Vec::new() });
    holds("desk_current_gateways", &desk::Current { session: Some(ended.clone()), gateways });
    holds("desk_current", &desk::Current { session: Some(ended), gateways: Vec::new() });
    holds("desk_current_none", &desk::Current { session: None, gateways: Vec::new() });
    let lease = lease();
    holds("lease", &lease);
    let signed = Signed {
        key: "5b1d5b0c7f3a9e21".into(),
        lease: serde_json::to_string(&lease).unwrap(),
        signature: "ab".repeat(64),
    };
    assert_eq!(signed.unproved().unwrap(), lease);
    holds("desk_leased", &desk::Leased { lease: Some(signed), renew_s: 1800 });
    holds("desk_leased_none", &desk::Leased { lease: None, renew_s: 3600 });
    holds("desk_support", &desk::Support { phone: "024 3825 3536".into() });
    holds("desk_sign_out", &desk::SignOut { end_session: true });
    let problem = |code: &str, detail: &str| desk::Problem {
        code: code.into(),
        detail: detail.into(),
        remaining: None,
        retry_after_s: None,
    };
    let wrong = problem("A-101", "the sign-in name or the password is wrong");
    holds("desk_problem", &desk::Problem { remaining: Some(4), ..wrong });
    let locked = problem("A-102", "the account is locked for a while");
    holds("desk_problem_later", &desk::Problem { retry_after_s: Some(900), ..locked });
}

#[test]
fn a_call_for_support() {
    let endpoint = "01992f3a-5c1e-7a4b-8d21-6f0c9b7e4a13".parse().unwrap();
    let finding = Finding {
        check: "gateway".into(),
        state: CheckState::Crit,
        code: "gateway_silent".into(),
        params: [("address".to_owned(), "192.168.1.1".to_owned())].into(),
    };
    let snapshot = call::Snapshot {
        verdict: CheckState::Crit,
        findings: vec![finding],
        cause: "router".into(),
        phase: "lost".into(),
        shown: vec!["K-102".into()],
        agent_version: "0.1.0".into(),
    };
    let made = Call {
        id: "01992f3a-6000-7000-8000-000000000001".parse().unwrap(),
        number: 3,
        code: call::code(endpoint, 3),
        at_ms: 1_795_600_000_000,
        session: Some("01992f3a-7000-7000-8000-000000000002".parse().unwrap()),
        snapshot: Some(snapshot),
    };
    holds("desk_call", &made);
    holds("desk_call_again", &Call { session: None, snapshot: None, ..made });
    holds("desk_call_kept", &call::Kept { state: "taken".into(), by: Some("Nguyễn Văn Minh".into()), next: 4 });
    holds("desk_call_open", &call::Kept { state: "open".into(), by: None, next: 4 });
}

#[test]
fn every_kind_has_a_sample_and_every_sample_a_kind() {
    let mut kinds = BTreeSet::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let value: Value = serde_json::from_str(&fs::read_to_string(entry.unwrap().path()).unwrap()).unwrap();
        if let Some(kind) = value.get("kind").and_then(Value::as_str) {
            kinds.insert(kind.to_owned());
        }
    }
    let known: BTreeSet<String> =
        AgentMessage::KINDS.iter().chain(ControllerMessage::KINDS).map(|k| (*k).to_owned()).collect();
    assert_eq!(kinds, known);
}

#[test]
fn a_snapshot_stays_far_below_the_limit() {
    assert!(sample("snapshot").len() < 8 * 1024);
}

#[test]
fn orders() {
    let id = "01992f3c-7a10-7c3e-8a41-5f0c7d1e2b3a";
    let action = Work::Action(Action::Capture { seconds: 20 });
    let order = |agreed: Option<&str>, work| Order {
        version: 1,
        id: id.parse().unwrap(),
        installation: id.parse().unwrap(),
        endpoint: id.parse().unwrap(),
        by: "Trần Thị Hoa".into(),
        agreed: agreed.map(str::to_owned),
        why: "mở cổng chậm".into(),
        work,
        issued_ms: 1_795_000_000_000,
        expires_ms: 1_795_000_030_000,
    };
    holds("order_text", &order(Some("an"), action));
    let host = "dichvucong.hanoi.gov.vn".to_owned().try_into().unwrap();
    let listed = vec![Listed { host, port: 443, kind: ListedKind::Https }];
    holds("order_text_bundle", &order(None, Work::Bundle { bundle: Bundle::Line, listed }));
    let key = "0011223344556677".to_owned();
    let signed =
        SignedOrder { id: id.parse().unwrap(), key: key.clone(), order: "{}".into(), signature: "00ff".into() };
    controller("order", ControllerMessage::Order(Box::new(signed)));
    controller("order_cancel", ControllerMessage::OrderCancel(OrderCancel { order: id.parse().unwrap() }));
    controller(
        "hello_ack_keys",
        ControllerMessage::HelloAck(HelloAck {
            version: 1,
            server_ms: 1_795_000_000_250,
            beat_s: 30,
            snapshot_s: 900,
            reconnect_window_s: 120,
            quarantined: false,
            order_keys: vec![OrderKey { id: key, public: "00ff".into() }],
        }),
    );
    let news = |n, news| AgentMessage::OrderNews(OrderNews { order: id.parse().unwrap(), n, news });
    let step = Step {
        step: 1,
        action: "ping".into(),
        state: CheckState::Warn,
        code: "lossy".into(),
        facts: [("lost".to_owned(), "2".to_owned())].into(),
        took_ms: 1200,
        cut: false,
    };
    agent("order_news", news(3, News::Step(step)));
    agent("order_news_begun", news(0, News::Begun));
    agent("order_news_asking", news(0, News::Asking));
    agent("order_news_refused", news(0, News::Refused { code: Refused::NobodyThere }));
    agent("order_news_progress", news(1, News::Progress { step: 0, text: "1 0.5 ms".into() }));
    agent("order_news_text", news(2, News::Text { step: 0, text: "0.51 ms\n".into() }));
    agent("order_news_ended", news(4, News::Ended { outcome: Outcome::TimedOut }));
}
