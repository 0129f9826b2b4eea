//! Disks, and how long they will last: SMART by `smartctl`, which asks no sleeping disk.

use std::time::Duration;

use serde_json::Value;
use tram_wire::helper::{Answer, Request};
use tram_wire::report::Item;

use super::{Fill, hardware, item};
use crate::host::{Host, Ran};

/// A dying disk may take its time; a dead one never answers.
const DEADLINE: Duration = Duration::from_secs(8);
/// The process that may ask is started for each question, which takes seconds while a slow computer starts itself.
const HELPED: Duration = Duration::from_secs(25);

/// What is asked of a disk; nothing wakes it up.
pub(crate) const READ: [&str; 10] = ["-j", "-n", "standby", "-H", "-A", "-i", "-c", "-l", "selftest", "--"];

/// By the process that may; `None` where there is none, or it may not.
fn helped(host: &impl Host, request: &Request) -> Option<Ran> {
    let (answer, out) = Answer::read(&host.helped(request, HELPED, &|| false)?)?;
    match answer {
        Answer::Ran { code } => Some(Ran::Done { code, out }),
        Answer::Absent => Some(Ran::Absent),
        Answer::TimedOut => Some(Ran::TimedOut),
        Answer::Refused { .. } => None,
    }
}

/// Looks at every disk.
#[must_use]
pub fn collect(host: &impl Host) -> Vec<Item> {
    hardware::disks(host)
        .into_iter()
        .map(|d| {
            let read = |leaf: &str| host.read(&format!("/sys/block/{}/device/{leaf}", d.name));
            let disk = item("disk", &d.name)
                .named(d.model)
                .fact("size_gib", Some((d.size_mib / 1024).to_string()))
                .fact("type", Some(if d.rotational { "hdd" } else { "ssd" }.to_owned()));
            let at = format!("/dev/{}", d.name);
            let asked = d.name.clone().try_into().ok().map(|disk| Request::SmartRead { disk });
            let ran = asked
                .and_then(|r| helped(host, &r))
                .unwrap_or_else(|| host.run("smartctl", &[&READ[..], &[&at]].concat(), DEADLINE));
            match ran {
                Ran::Absent => disk.fact("serial", read("serial")).fact("smart", Some("not_installed".to_owned())),
                Ran::TimedOut => disk.fact("serial", read("serial")).fact("smart", Some("no_answer".to_owned())),
                Ran::Done { code, out } => smart(disk, code, &out).or_fact("serial", || read("serial")),
            }
        })
        .collect()
}

/// What smartctl says. Its exit code is a set of bits: 1 a wrong command line, 2 the device did not open (or sleeps).
fn smart(disk: Item, code: i32, out: &str) -> Item {
    let Ok(v) = serde_json::from_str::<Value>(out) else {
        return disk.fact("smart", Some("unreadable".to_owned()));
    };
    let text = |path: &str| {
        v.pointer(path).filter(|x| !x.is_null()).map(|x| x.as_str().map_or_else(|| x.to_string(), str::to_owned))
    };
    let attribute = |id: u64| {
        let table = v.pointer("/ata_smart_attributes/table")?.as_array()?;
        let row = table.iter().find(|r| r["id"].as_u64() == Some(id))?;
        row.pointer("/raw/value").map(ToString::to_string)
    };
    let passed = v.pointer("/smart_status/passed").and_then(Value::as_bool);
    let health = match passed {
        Some(true) => "passed",
        Some(false) => "failing",
        None if code & 2 != 0 && out.contains("STANDBY") => "asleep",
        None if code & 2 != 0 => "not_allowed",
        None => "unsupported",
    };
    let percent_left = |id| {
        let table = v.pointer("/ata_smart_attributes/table")?.as_array()?;
        let row = table.iter().find(|r| r["id"].as_u64() == Some(id))?;
        row["value"].as_u64().map(|left| 100_u64.saturating_sub(left).to_string())
    };
    disk.fact("smart", Some(health.to_owned()))
        .fact("serial", text("/serial_number"))
        .fact("firmware", text("/firmware_version"))
        .fact("hours", text("/power_on_time/hours"))
        .fact("celsius", text("/temperature/current"))
        .fact(
            "wear_percent",
            text("/nvme_smart_health_information_log/percentage_used")
                .or_else(|| percent_left(231))
                .or_else(|| percent_left(177)),
        )
        .fact("spare_percent", text("/nvme_smart_health_information_log/available_spare"))
        .fact("media_errors", text("/nvme_smart_health_information_log/media_errors"))
        .fact("reallocated", attribute(5))
        .fact("pending", attribute(197))
        .fact("self_test", self_test(&v))
}

/// How the last test of its own goes or went: by ATA's status byte, or NVMe's log.
fn self_test(v: &Value) -> Option<String> {
    if let Some(status) = v.pointer("/ata_smart_data/self_test/status") {
        return Some(match (status["value"].as_u64()? >> 4, status["remaining_percent"].as_u64()) {
            (15, left) => format!("running, {} % left", left.unwrap_or(100)),
            (0, _) => "passed".to_owned(),
            (1..=2, _) => "stopped".to_owned(),
            _ => "failed".to_owned(),
        });
    }
    let log = v.get("nvme_self_test_log")?;
    if log.pointer("/current_self_test_operation/value").and_then(Value::as_u64).is_some_and(|n| n > 0) {
        let done = log.get("current_self_test_completion_percent").and_then(Value::as_u64).unwrap_or(0);
        return Some(format!("running, {} % left", 100_u64.saturating_sub(done)));
    }
    Some(match log.pointer("/table/0/self_test_result/value")?.as_u64()? {
        0 => "passed".to_owned(),
        1..=4 | 8 | 9 => "stopped".to_owned(),
        _ => "failed".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    fn host() -> Fake {
        Fake::new().file("/sys/block/sda/size", "250069680").file("/sys/block/sda/device/model", "Samsung SSD 860")
    }

    fn facts(host: &Fake) -> Item {
        collect(host).remove(0)
    }

    #[test]
    fn wear_spare_and_moved_sectors_are_read() {
        let nvme = r#"{"serial_number":"S1","smart_status":{"passed":true},"power_on_time":{"hours":9000},
            "temperature":{"current":41},"nvme_smart_health_information_log":{"percentage_used":93,"available_spare":8}}"#;
        let i = facts(&host().program("smartctl -j -n standby", nvme));
        let get = |n: &str| i.facts.get(n).map(String::as_str);
        assert_eq!((get("smart"), get("serial"), get("wear_percent")), (Some("passed"), Some("S1"), Some("93")));
        assert_eq!((get("spare_percent"), get("hours"), get("celsius")), (Some("8"), Some("9000"), Some("41")));
        let ata = r#"{"smart_status":{"passed":false},"ata_smart_attributes":{"table":[
            {"id":5,"value":80,"raw":{"value":128}},{"id":177,"value":71,"raw":{"value":9}},{"id":197,"raw":{"value":3}}]}}"#;
        let i = facts(&host().program("smartctl", ata));
        let get = |n: &str| i.facts.get(n).map(String::as_str);
        assert_eq!(
            (get("smart"), get("reallocated"), get("pending"), get("wear_percent")),
            (Some("failing"), Some("128"), Some("3"), Some("29"))
        );
    }

    #[test]
    fn who_may_is_asked_and_the_last_test_is_told() {
        let disk = || "sda".to_owned().try_into().unwrap();
        let mut h = host().program("smartctl", "");
        let said = |status: &str| {
            format!(r#"{{"smart_status":{{"passed":true}},"ata_smart_data":{{"self_test":{{"status":{status}}}}}}}"#)
        };
        for (status, told) in [
            (r#"{"value":0,"passed":true}"#, "passed"),
            (r#"{"value":249,"remaining_percent":90}"#, "running, 90 % left"),
            (r#"{"value":113}"#, "failed"),
            (r#"{"value":25}"#, "stopped"),
        ] {
            h.helpers = Some(vec![(Request::SmartRead { disk: disk() }, Answer::Ran { code: 0 }, said(status))]);
            let i = facts(&h);
            assert_eq!((i.facts["smart"].as_str(), i.facts["self_test"].as_str()), ("passed", told));
        }
        let nvme = r#"{"nvme_self_test_log":{"current_self_test_operation":{"value":0},"table":[{"self_test_result":{"value":0}}]}}"#;
        h.helpers = Some(vec![(Request::SmartRead { disk: disk() }, Answer::Ran { code: 4 }, nvme.to_owned())]);
        assert_eq!(facts(&h).facts["self_test"], "passed");
        // One that does not answer hinders nothing.
        h.helpers = Some(Vec::new());
        assert_eq!(facts(&h).facts["smart"], "unreadable");
    }

    #[test]
    fn a_smartctl_that_is_absent_hangs_or_raves_says_so_and_stops_nothing() {
        assert_eq!(facts(&host()).facts["smart"], "not_installed");
        let mut hung = host();
        hung.programs.push(("smartctl".into(), Err(())));
        assert_eq!(facts(&hung).facts["smart"], "no_answer");
        assert_eq!(facts(&host().program("smartctl", "\u{0}{{{")).facts["smart"], "unreadable");
        let deep = format!("{{\"smart_status\":{}", "[".repeat(100_000));
        assert_eq!(facts(&host().program("smartctl", &deep)).facts["smart"], "unreadable");
        assert_eq!(facts(&host().program("smartctl", "{}")).facts["smart"], "unsupported");
    }
}
