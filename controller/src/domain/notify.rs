//! Whom to tell of an incident, by which way, when, and in which words.

use super::incident::hours::Hours;
use super::incident::{Cause, Severity};
use super::text;
use super::time::Time;

text_enum! {
    /// A way to somebody.
    Channel {
        /// A mail address.
        Email = "email",
        /// A mobile number.
        Sms = "sms",
        /// A program, by its https address.
        Webhook = "webhook",
    }
}

text_enum! {
    /// What is told of an incident.
    Occasion {
        /// It is there.
        Opened = "opened",
        /// Another cause is known.
        Cause = "cause",
        /// It is over.
        Over = "over",
        /// Its party did not answer in time.
        Late = "late",
        /// An officer called support.
        Call = "call",
        /// Nothing happened: somebody tries the way.
        Test = "test",
    }
}

text_enum! {
    /// When somebody wants to be told.
    When {
        /// At any time.
        Always = "always",
        /// In office hours; what comes besides waits for them.
        Office = "office",
        /// Out of office hours: whoever is on call.
        OnCall = "on_call",
    }
}

/// Longest text of one SMS in the alphabet every phone has.
pub const SMS_MOST: usize = 160;
/// How long a message that does not get through is tried.
pub const TRY_FOR: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// Who wants to be told of what.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The least that is told.
    pub severity: Severity,
    /// Only these causes; empty: all.
    pub causes: Vec<Cause>,
    /// Only incidents that touch one of these sites; `None`: all.
    pub sites: Option<Vec<String>>,
    /// When.
    pub when: When,
    /// The end of one is told, too.
    pub ends: bool,
}

/// What a rule makes of an occasion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Not told.
    No,
    /// Told now.
    Now,
    /// Told when office hours begin, if it still is so.
    Wait,
}

/// Facts of an incident that rules ask for.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// How bad.
    pub severity: Severity,
    /// Why.
    pub cause: Cause,
    /// Sites it touches.
    pub sites: &'a [String],
}

impl Rule {
    /// Whether and when this occasion is told.
    #[must_use]
    pub fn decide(&self, occasion: Occasion, facts: &Facts<'_>, hours: &Hours, now: Time) -> Decision {
        let ours = facts.severity >= self.severity
            && (self.causes.is_empty() || self.causes.contains(&facts.cause))
            && self.sites.as_ref().is_none_or(|own| facts.sites.iter().any(|s| own.contains(s)));
        if !ours || occasion == Occasion::Over && !self.ends {
            return Decision::No;
        }
        match (self.when, hours.open(now)) {
            (When::Always, _) | (When::Office, true) | (When::OnCall, false) => Decision::Now,
            (When::Office, false) => Decision::Wait,
            (When::OnCall, true) => Decision::No,
        }
    }
}

/// How long until the next try, and `None` when it is time to give up.
#[must_use]
pub fn next_try(attempts: i64, first: Time, now: Time) -> Option<Time> {
    let wait = std::time::Duration::from_secs(15_u64.saturating_mul(1 << attempts.clamp(0, 8)).min(1800));
    let next = now.plus(wait);
    (next.since(first) <= TRY_FOR).then_some(next)
}

/// What is wrong with where a message should go, if anything.
#[must_use]
pub fn target_fault(channel: Channel, target: &str) -> Option<&'static str> {
    let plain = target.len() <= 200 && !target.chars().any(|c| c.is_control() || c.is_whitespace());
    let good = match channel {
        Channel::Email => {
            let parts = target.split_once('@');
            plain && parts.is_some_and(|(who, at)| !who.is_empty() && at.contains('.') && !at.contains('@'))
        }
        Channel::Sms => {
            let digits = target.strip_prefix('+').unwrap_or(target);
            (8..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
        }
        Channel::Webhook => {
            plain && target.strip_prefix("https://").is_some_and(|rest| !rest.is_empty() && !rest.contains('@'))
        }
    };
    let why = match channel {
        Channel::Email => "give a mail address such as truc@tram.example",
        Channel::Sms => "give a number of 8 to 15 digits such as +84912345678",
        Channel::Webhook => "give an address that begins with https:// and names no user",
    };
    (!good).then_some(why)
}

/// A message, short for a phone and whole for a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// A line.
    pub subject: String,
    /// All of it.
    pub text: String,
    /// Without marks, for one SMS.
    pub sms: String,
}

/// Puts an occasion in Vietnamese words. `place` is what the incident is about, `link` where to read on.
#[must_use]
pub fn words(occasion: Occasion, cause: Cause, place: &str, since: &str, link: &str) -> Message {
    let what = match occasion {
        Occasion::Opened => "Sự cố",
        Occasion::Cause => "Nhận định lại",
        Occasion::Over => "Đã hết sự cố",
        Occasion::Late => "Quá hạn trả lời",
        Occasion::Call => "Cán bộ gọi hỗ trợ",
        Occasion::Test => "Thử thông báo",
    };
    let why = cause_words(cause);
    let subject = match occasion {
        Occasion::Test => format!("Tram: {what}"),
        Occasion::Call => format!("Tram: {what} - {place}"),
        _ => format!("Tram: {what}: {why} - {place}"),
    };
    let text = match occasion {
        Occasion::Test => format!("{what}. Nếu đọc được tin này thì đường thông báo đã thông.\n\n{link}\n"),
        Occasion::Call => format!("{what}\nNơi: {place}\nLúc: {since}\n\nChi tiết: {link}\n"),
        _ => format!("{what}\nNguyên nhân: {why}\nNơi: {place}\nTừ: {since}\n\nChi tiết: {link}\n"),
    };
    let sms: String = plain(&subject).chars().take(SMS_MOST).collect();
    Message { subject, text, sms }
}

/// Without Vietnamese marks and what else the alphabet of an SMS has not.
fn plain(s: &str) -> String {
    text::unmarked(s).chars().map(|c| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' }).collect()
}

fn cause_words(cause: Cause) -> &'static str {
    match cause {
        Cause::DataCentre => "trung tâm dữ liệu hoặc hệ thống điều khiển",
        Cause::Carrier => "mạng của nhà cung cấp đường truyền",
        Cause::SitePower => "mất điện tại đơn vị",
        Cause::SiteLine => "mất đường truyền của đơn vị",
        Cause::LineDegraded => "đường truyền kém",
        Cause::Lan => "dây mạng hoặc Wi-Fi của một máy",
        Cause::SwitchedOff => "máy đã tắt",
        Cause::EndpointPower => "máy mất điện",
        Cause::Crashed => "máy hoặc trình giám sát bị treo",
        Cause::Service => "dịch vụ hỏng",
        Cause::SiteService => "đơn vị không tới được dịch vụ",
        Cause::Desktop => "máy trạm ảo hoặc máy chủ ảo hóa",
        Cause::Peripheral => "thiết bị ngoại vi",
        Cause::Computer => "bản thân máy tính",
        Cause::Flapping => "chập chờn",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(text: &str) -> Time {
        Time::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    #[test]
    fn a_rule_tells_what_it_is_for_when_it_is_for() {
        let rule =
            |when| Rule { severity: Severity::Crit, causes: vec![Cause::SiteLine], sites: None, when, ends: false };
        let sites = vec!["00004".to_owned()];
        let facts = Facts { severity: Severity::Crit, cause: Cause::SiteLine, sites: &sites };
        let (day, night) = (at("2026-11-25T03:00:00Z"), at("2026-11-25T15:00:00Z"));
        let ask = |r: &Rule, o, f: &Facts<'_>, t| r.decide(o, f, &Hours::default(), t);
        for (when, by_day, by_night) in [
            (When::Always, Decision::Now, Decision::Now),
            (When::Office, Decision::Now, Decision::Wait),
            (When::OnCall, Decision::No, Decision::Now),
        ] {
            assert_eq!(ask(&rule(when), Occasion::Opened, &facts, day), by_day, "{when}");
            assert_eq!(ask(&rule(when), Occasion::Opened, &facts, night), by_night, "{when}");
        }
        let always = rule(When::Always);
        assert_eq!(ask(&always, Occasion::Over, &facts, day), Decision::No, "ends are not wanted");
        assert_eq!(
            ask(&always, Occasion::Opened, &Facts { severity: Severity::Warn, ..facts.clone() }, day),
            Decision::No
        );
        assert_eq!(ask(&always, Occasion::Opened, &Facts { cause: Cause::Lan, ..facts.clone() }, day), Decision::No);
        let elsewhere = Rule { sites: Some(vec!["00006".into()]), ..always };
        assert_eq!(ask(&elsewhere, Occasion::Opened, &facts, day), Decision::No);
    }

    #[test]
    fn it_is_tried_for_a_day_and_not_longer() {
        let first = at("2026-11-25T03:00:00Z");
        let (mut now, mut tries) = (first, 0);
        while let Some(next) = next_try(tries, first, now) {
            assert!(next > now);
            (now, tries) = (next, tries + 1);
        }
        assert!((50..70).contains(&tries), "{tries}");
        assert!(now.since(first) > Duration::from_secs(23 * 3600));
    }

    #[test]
    fn where_it_goes_is_checked() {
        use Channel::{Email, Sms, Webhook};
        for (channel, good) in
            [(Email, "truc@tram.example"), (Sms, "+84912345678"), (Webhook, "https://noc.example/hook?x=1")]
        {
            assert_eq!(target_fault(channel, good), None);
        }
        for (channel, bad) in [
            (Email, "truc"),
            (Email, "a@b"),
            (Email, "a b@c.d"),
            (Email, "a@b.c\r\nBcc: x@y.z"),
            (Email, "a@b@c.d"),
            (Sms, "0912"),
            (Sms, "+8491234567a"),
            (Sms, "12345678901234567"),
            (Webhook, "http://noc.example"),
            (Webhook, "https://user:pw@noc.example"),
            (Webhook, "https://"),
        ] {
            assert!(target_fault(channel, bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn an_sms_fits_and_has_no_marks() {
        let m = words(Occasion::Opened, Cause::SiteLine, &"Xã Cổ Loa, Huyện Đông Anh ".repeat(9), "08:12", "https://x");
        assert!(m.sms.starts_with("Tram: Su co: mat duong truyen cua don vi - Xa Co Loa, Huyen Dong Anh"), "{}", m.sms);
        assert_eq!(m.sms.len(), SMS_MOST);
        assert!(m.text.contains("Nguyên nhân: mất đường truyền của đơn vị"));
    }
}
