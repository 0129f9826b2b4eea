//! The catalogue is closed, and holds what it promises.

use serde_json::json;

use super::*;

fn work(name: &str, arguments: Value) -> Result<Work, Wrong> {
    let Value::Object(arguments) = arguments else { panic!() };
    Work::parse(name, arguments, Vec::new())
}

/// Arguments that fit.
fn fitting(spec: &Spec) -> Value {
    let fit = |a: &Argument| match a.fits {
        Fits::Number { max, .. } => json!(max),
        Fits::Word(words) => json!(words[0]),
        Fits::Target => json!("gateway"),
        Fits::Host | Fits::Listed => json!("vdi.hanoi.gov.vn"),
        Fits::Printer => json!("mot-cua_1"),
        Fits::Disk => json!("nvme0n1"),
        Fits::UsbPort => json!("1-1.4"),
    };
    spec.arguments.iter().map(|a| (a.name.to_owned(), fit(a))).collect::<Map<_, _>>().into()
}

#[test]
fn every_line_is_an_action_and_every_action_has_its_line() {
    for s in &ACTIONS {
        let w = work(s.name, fitting(s)).unwrap();
        let [a] = &w.actions()[..] else { panic!() };
        assert_eq!((a.name(), a.spec()), (s.name, s));
        assert_eq!(w.check(), Ok(()));
        let text = serde_json::to_string(&w).unwrap();
        assert_eq!(serde_json::from_str::<Work>(&text).unwrap(), w, "{text}");
        assert!(s.deadline_s <= 75 && s.cap <= 256 * 1024, "{}", s.name);
        assert!(s.class == Class::Disruptive || !s.two_persons);
        // What would not fit into the messages it may send can't be promised.
        assert!(s.cap / CHUNK + 8 < MAX_NEWS as usize);
    }
    let names: std::collections::BTreeSet<_> = ACTIONS.iter().map(|s| s.name).collect();
    assert_eq!(names.len(), ACTIONS.len());
    assert!(Bundle::ALL.iter().all(|b| !names.contains(b.name())));
}

#[test]
fn bundles_only_read() {
    let listed = vec![Listed { host: "a.b".to_owned().try_into().unwrap(), port: 443, kind: ListedKind::Https }; 4];
    for b in Bundle::ALL {
        let all = b.actions(&listed);
        assert!(all.iter().all(|a| a.spec().class == Class::Silent) && (4..=8).contains(&all.len()));
        let w = Work::Bundle { bundle: b, listed: listed.clone() };
        assert_eq!(w.check(), Ok(()));
        assert!(w.deadline_s() <= 30 && !w.two_persons());
    }
    let many = Work::Bundle { bundle: Bundle::Line, listed: [&listed[..], &listed].concat() };
    assert!(many.check().is_err());
}

#[test]
fn nothing_else_is_an_order() {
    for bad in [
        json!({"do": "shell", "command": "id"}),
        json!({"do": "top", "count": 5, "path": "/etc/shadow"}),
        json!({"do": "disks", "path": "/"}),
        json!({"do": "unit", "unit": "sshd"}),
        json!({"do": "unit", "unit": "cups.service; reboot"}),
        json!({"do": "journal", "unit": "../../x", "lines": 5}),
        json!({"do": "restart_unit", "unit": "tram-agent"}),
        json!({"do": "ping", "to": "-f", "count": 5}),
        json!({"do": "ping", "to": "$(id)", "count": 5}),
        json!({"do": "ping", "to": "a b", "count": 5}),
        json!({"do": "dns", "name": "--help"}),
        json!({"do": "dns", "name": ""}),
        json!({"do": "test_page", "printer": "-oraw"}),
        json!({"do": "test_page", "printer": "../x"}),
        json!({"do": "ping", "to": "gateway", "count": -1}),
        json!({"do": "smart_test", "disk": "../sda"}),
        json!({"do": "usb_cycle", "usb_port": "usb1"}),
        json!({"do": "ping", "to": ["gateway"], "count": 1}),
    ] {
        assert!(serde_json::from_value::<Action>(bad.clone()).is_err(), "{bad}");
    }
    assert!(!HostName::is_one(&"a".repeat(254)) && HostName::is_one("::1") && HostName::is_one("10.0.0.1"));
}

#[test]
fn arguments_outside_their_bounds_are_named_at_both_ends() {
    for (name, arguments, wrong) in [
        ("ping", json!({"to": "gateway", "count": 21}), "count"),
        ("ping", json!({"to": "gateway", "count": 0}), "count"),
        ("ping", json!({"count": 5}), "to"),
        ("journal", json!({"unit": "cups", "lines": 2001}), "lines"),
        ("capture", json!({"seconds": 61}), "seconds"),
        ("top", json!({"count": 5, "shell": "sh"}), "arguments"),
        ("line", json!({"to": "x"}), "arguments"),
        ("shell", json!({}), "action"),
        ("tcp", json!({"host": "a.b", "port": 0}), "port"),
    ] {
        assert_eq!(work(name, arguments).unwrap_err().argument, wrong, "{name}");
    }
    assert_eq!(
        work("ping", json!({"to": "gateway"})),
        Ok(Work::Action(Action::Ping { to: Target::Gateway, count: 5 }))
    );
    // Well-formed, and signed, and still too much.
    let much: Work = serde_json::from_value(json!({"action": {"do": "ping", "to": "x.y", "count": 500}})).unwrap();
    assert_eq!(much.check().unwrap_err().argument, "count");
}

#[test]
fn news_from_the_future_is_skipped_and_codes_are_what_travels() {
    assert_eq!(serde_json::from_value::<News>(json!({"is": "hologram", "x": 1})).unwrap(), News::Other);
    assert_eq!(serde_json::from_value::<Refused>(json!("moon")).unwrap(), Refused::Other);
    for r in [Refused::NobodyThere, Refused::Replayed, Refused::Endpoint, Refused::Key] {
        assert_eq!(serde_json::to_value(r).unwrap(), r.code());
    }
}
