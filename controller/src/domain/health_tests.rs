use super::*;

fn at(s: i64) -> Time {
    Time::from_micros(s * 1_000_000)
}

fn report(mono_ms: Option<u64>, at_ms: i64) -> Report {
    Report { batch: 1, boot: "b".into(), mono_ms, at_ms, records: Vec::new(), rides: false }
}

fn check(name: &str, state: CheckState, for_ms: u64) -> CheckResult {
    CheckResult { check: name.into(), state, code: format!("{name}_x"), for_ms, ..CheckResult::default() }
}

#[test]
fn the_age_on_the_boot_clock_counts_and_the_calendar_does_not() {
    // A calendar in 1970, one in 2099: the record is ten seconds old.
    for wall in [0, 4_070_908_800_000, i64::MIN, i64::MAX] {
        let record = Record { mono_ms: 50_000, at_ms: wall, ..Record::default() };
        assert_eq!(dated(&report(Some(60_000), 0), &record, at(1000)), at(990), "{wall}");
    }
}

#[test]
fn of_an_earlier_boot_the_calendar_is_all_there_is() {
    let record = Record { mono_ms: 50_000, at_ms: 7_000_000, ..Record::default() };
    assert_eq!(dated(&report(None, 7_030_000), &record, at(1000)), at(970));
    // From the future, or from 1970: never after the arrival, never before anything is kept.
    assert_eq!(dated(&report(None, 0), &record, at(1000)), at(1000));
    let ancient = dated(&report(None, i64::MAX), &Record { at_ms: i64::MIN, ..Record::default() }, at(1_795_000_000));
    assert_eq!(at(1_795_000_000).since(ancient), KEEP_TRANSITIONS);
    // A record from after its own report: the boot clock lies, so the calendar speaks.
    let odd = Record { mono_ms: 90_000, at_ms: 5_000, ..Record::default() };
    assert_eq!(dated(&report(Some(60_000), 6_000), &odd, at(1000)), at(999));
}

#[test]
fn a_hundred_thousand_series_are_cut_and_counted() {
    let gauges = (0..100_000).map(|i| (format!("g{i:06}"), Some(1.0))).collect();
    let mut r = report(Some(1), 1);
    r.records.push(Record { gauges, ..Record::default() });
    assert_eq!(bound(&mut r), 100_000 - limits::GAUGES);
    let mut latest = Latest::default();
    latest.apply("b", &r.records[0], at(1));
    // Other names in the next record do not add up either.
    let more = Record { gauges: [("z".to_owned(), Some(1.0))].into(), ..Record::default() };
    latest.apply("b", &more, at(2));
    assert_eq!(latest.gauges.len(), limits::GAUGES);
}

#[test]
fn names_with_control_characters_and_long_texts_do_not_pass() {
    let item = Item {
        id: "x\u{0}y".into(),
        name: Some("ế".repeat(9000)),
        facts: [("a\nb".to_owned(), "1".to_owned()), ("ok".to_owned(), "v\u{7}".to_owned())].into(),
        ..Item::default()
    };
    let mut r = report(None, 1);
    r.records.push(Record { inventory: [("usb".to_owned(), vec![item])].into(), ..Record::default() });
    r.records[0].gauges = [("n".to_owned(), Some(f32::NAN)), ("i".to_owned(), Some(f32::INFINITY))].into();
    assert_eq!(bound(&mut r), 3);
    let item = &r.records[0].inventory["usb"][0];
    assert_eq!((item.id.as_str(), item.facts.len(), item.facts["ok"].as_str()), ("xy", 1, "v"));
    assert_eq!(item.name.as_ref().unwrap().chars().count(), limits::TEXT);
}

#[test]
fn a_delta_moves_and_a_keyframe_replaces() {
    let mut l = Latest::default();
    let key = |names: &[&str]| Record {
        key: true,
        gauges: names.iter().map(|n| ((*n).to_owned(), Some(1.0))).collect(),
        ..Record::default()
    };
    l.apply("b", &key(&["cpu", "temp"]), at(1));
    let delta =
        Record { gauges: [("cpu".to_owned(), Some(9.0)), ("temp".to_owned(), None)].into(), ..Record::default() };
    l.apply("b", &delta, at(2));
    assert_eq!(l.gauges, [("cpu".to_owned(), 9.0)].into());
    l.apply("b", &key(&["mem"]), at(3));
    assert_eq!(l.gauges.keys().collect::<Vec<_>>(), ["mem"]);
}

#[test]
fn since_when_a_check_says_so_outlives_a_restart_of_the_agent() {
    use CheckState::*;
    let mut l = Latest::default();
    let record = |c| Record { checks: vec![c], ..Record::default() };
    let first = l.apply("b", &record(check("printer", Crit, 60_000)), at(100));
    assert_eq!((first[0].from, first[0].at), (None, at(40)));
    // The agent began anew and counts from zero: nothing changed, so nothing is news.
    assert!(l.apply("b", &record(check("printer", Crit, 0)), at(200)).is_empty());
    assert_eq!(l.checks[0].since, at(40));
    let back = l.apply("b", &record(check("printer", Ok, 0)), at(300));
    assert_eq!((back[0].from, back[0].at, l.checks[0].since), (Some(Crit), at(300), at(300)));
}

#[test]
fn a_check_that_is_gone_from_a_keyframe_is_gone() {
    let mut l = Latest::default();
    let key = |names: &[&str]| Record {
        key: true,
        checks: names.iter().map(|n| check(n, CheckState::Ok, 0)).collect(),
        ..Record::default()
    };
    l.apply("b", &key(&["ups", "memory"]), at(1));
    l.apply("b", &key(&["memory"]), at(2));
    assert_eq!(l.checks.iter().map(|k| k.check.as_str()).collect::<Vec<_>>(), ["memory"]);
}

#[test]
fn the_backlog_does_not_overwrite_the_present() {
    let mut l = Latest::default();
    l.apply("b2", &Record { seq: 900, ..Record::default() }, at(1000));
    let of = |boot: &str, mono_ms| Report { boot: boot.into(), ..report(mono_ms, 0) };
    let now = of("b2", Some(1));
    assert!(!l.is_news(&now, 900, at(1000)) && !l.is_news(&now, 899, at(1001)));
    assert!(l.is_news(&now, 901, at(999)), "of one boot the number counts");
    assert!(!l.is_news(&of("b1", Some(1)), 5_000, at(400)) && l.is_news(&of("b3", Some(1)), 1, at(1000)));
    assert!(
        !l.is_news(&of("b1", None), 5_000, at(2000)),
        "a calendar was set: an earlier boot is the past all the same"
    );
    let old = Record { checks: vec![check("disk", CheckState::Warn, 5)], ..Record::default() };
    assert_eq!(late(&old, at(400))[0].at, at(400));
    assert!(late(&Record { key: true, ..old }, at(400)).is_empty());
}

#[test]
fn a_prober_stays_as_long_as_it_is_heard() {
    assert_eq!(elect(Some(7), &[3, 7, 9]), Some(7));
    assert_eq!(elect(Some(7), &[9, 3]), Some(3));
    assert_eq!(elect(None, &[9]), Some(9));
    assert_eq!(elect(Some(7), &[]), None);
}
