//! Takes out of a journal what could name a citizen or open a door.

/// Words whose value is nobody's business.
const SECRETS: [&str; 8] = ["password", "passwd", "pwd", "pin", "token", "secret", "authorization", "cookie"];
/// So many digits in a row are a citizen's number, a telephone or an account.
const DIGITS: usize = 9;
const MASK: &str = "***";

/// Line by line.
pub(super) fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let mut hide = false;
        for (i, word) in line.split(' ').enumerate() {
            if i > 0 {
                out.push(' ');
            }
            if hide && !word.is_empty() {
                out.push_str(MASK);
                hide = false;
                continue;
            }
            hide = one(word, &mut out);
        }
        out.push('\n');
    }
    out
}

/// One word; whether the next one is a secret too.
fn one(word: &str, out: &mut String) -> bool {
    let lower = word.to_lowercase();
    if let Some(at) = lower.find(['=', ':']).filter(|at| SECRETS.iter().any(|s| lower[..*at].ends_with(s))) {
        let (name, value) = word.split_at(word.floor_char_boundary(at + 1));
        out.push_str(name);
        if !value.is_empty() {
            out.push_str(MASK);
        }
        return value.is_empty();
    }
    if word.contains('@') && word.contains('.') {
        out.push_str(MASK);
    } else if let Some((before, after)) = word.split_once("/home/") {
        let rest = after.find('/').map_or("", |at| &after[at..]);
        out.extend([before, "/home/", MASK, rest]);
    } else {
        digits(word, out);
    }
    lower == "bearer" || lower == "basic"
}

fn digits(word: &str, out: &mut String) {
    let mut rest = word;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, after) = rest.split_at(at);
        let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        out.push_str(before);
        out.push_str(if end >= DIGITS { MASK } else { &after[..end] });
        rest = &after[end..];
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_names_and_secrets_are_gone_and_the_rest_stays() {
        for (said, told) in [
            ("cups: job 17 of 001204012345 done", "cups: job 17 of *** done"),
            ("login password=hoa-sen ok", "login password=*** ok"),
            ("PIN: 1234 wrong", "PIN: *** wrong"),
            ("Authorization: Bearer", "Authorization: ***"),
            ("sent to lan@hanoi.gov.vn at 08:12", "sent to *** at 08:12"),
            ("opened /home/lan/giay.pdf", "opened /home/***/giay.pdf"),
            (
                "2026-11-25T08:12:33+0700 kernel: eth0 up 1000 Mbps",
                "2026-11-25T08:12:33+0700 kernel: eth0 up 1000 Mbps",
            ),
            ("mật khẩu ếếế=", "mật khẩu ếếế="),
        ] {
            assert_eq!(redact(said).trim_end(), told);
        }
    }
}
