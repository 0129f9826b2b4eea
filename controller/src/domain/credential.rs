//! Rules about sign-in names, passwords, lock-out and how long a sign-in lasts.

use std::time::Duration;

use unicode_normalization::UnicodeNormalization;

/// Wrong passwords in a row that lock an account.
pub const LOCK_AFTER: i64 = 5;
/// How long it stays locked.
pub const LOCK_FOR: Duration = Duration::from_secs(15 * 60);
/// Wrong passwords older than this no longer count.
pub const FORGET_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Failed sign-ins from one address within [`BRAKE_WINDOW`] after which it must wait. A whole district may
/// sit behind one address, so this is well above what honest typing errors add up to.
pub const BRAKE_AFTER: i64 = 50;
/// See [`BRAKE_AFTER`].
pub const BRAKE_WINDOW: Duration = Duration::from_secs(15 * 60);
/// Longest time signed in, used or not.
pub const SESSION_MAX: Duration = Duration::from_secs(8 * 3600);
/// Longest time signed in without a request.
pub const SESSION_IDLE: Duration = Duration::from_secs(30 * 60);
/// The time of last use is written down at most this often: a request must not cost a write.
pub const SESSION_TOUCH: Duration = Duration::from_secs(60);

/// Fewest characters of a password.
pub const PASSWORD_MIN: usize = 12;
/// Most bytes of a password: hashing megabytes for a stranger is not our job.
pub const PASSWORD_MAX: usize = 256;
/// Fewest different characters of a password.
const PASSWORD_VARIETY: usize = 5;

text_enum! {
    /// The language somebody reads.
    Language {
        /// Vietnamese.
        Vi = "vi",
        /// English.
        En = "en",
    }
}

/// The one form of a sign-in name: lower case, no blanks around.
#[must_use]
pub fn username(typed: &str) -> String {
    typed.trim().to_lowercase()
}

/// Checks a sign-in name: 3 to 40 of `a-z 0-9 . _ -`, beginning with a letter.
///
/// # Errors
/// A sentence for the person who typed it.
pub fn check_username(name: &str) -> Result<(), String> {
    let allowed = |c| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-');
    if !(3..=40).contains(&name.chars().count()) {
        return Err("a sign-in name has 3 to 40 characters".into());
    }
    if let Some(bad) = name.chars().find(|c| !allowed(*c)) {
        return Err(format!(
            "the sign-in name has the character `{}`; a-z, 0-9, dot, hyphen and underscore are allowed",
            bad.escape_default()
        ));
    }
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err("a sign-in name begins with a letter".into());
    }
    Ok(())
}

/// The one Unicode form of a password: input methods differ in how they compose Vietnamese letters, and
/// the same keys must sign in from every computer.
#[must_use]
pub fn password(typed: &str) -> String {
    typed.nfc().collect()
}

/// Checks a new password.
///
/// # Errors
/// A sentence for the person who chose it.
pub fn check_password(password: &str, username: &str) -> Result<(), String> {
    let length = password.chars().count();
    if length < PASSWORD_MIN {
        return Err(format!("the password has {length} characters; at least {PASSWORD_MIN} are needed"));
    }
    if password.len() > PASSWORD_MAX {
        return Err(format!("the password is longer than {PASSWORD_MAX} bytes"));
    }
    if password.chars().any(char::is_control) {
        return Err("the password has control characters, which can't be typed everywhere".into());
    }
    let folded = password.to_lowercase();
    if !username.is_empty() && folded.replace(username, "").chars().count() < PASSWORD_MIN / 2 {
        return Err("the password is little more than the sign-in name".into());
    }
    let mut different: Vec<char> = folded.chars().collect();
    different.sort_unstable();
    different.dedup();
    if different.len() < PASSWORD_VARIETY {
        return Err("the password repeats too few different characters".into());
    }
    let letters: String = folded.chars().filter(|c| c.is_alphanumeric()).collect();
    if COMMON.iter().any(|c| letters.starts_with(c) && letters.len() < c.len() + 4) || is_run(&letters) {
        return Err("the password is one of the first that are guessed; choose several unrelated words".into());
    }
    Ok(())
}

/// Long passwords of the usual leak lists, Vietnamese ones among them. With up to three characters behind.
const COMMON: &[&str] = &[
    "123456789abc",
    "1q2w3e4r5t6y",
    "1qaz2wsx3edc",
    "abc123456789",
    "adminadmin",
    "administrator",
    "anhyeuem",
    "changemenow",
    "correcthorsebattery",
    "hanoivietnam",
    "iloveyou1234",
    "letmeinletmein",
    "matkhau123",
    "matkhaumatkhau",
    "password123",
    "passwordpassword",
    "q1w2e3r4t5y6",
    "qazwsxedcrfv",
    "qwerty123456",
    "qwertyuiop",
    "thangloihanoi",
    "vietnam123",
    "vietnamvietnam",
    "welcome123",
    "xinchaovietnam",
];

/// Whether all neighbours are one apart, as in `123456789012` or `abcdefghijkl`.
fn is_run(text: &str) -> bool {
    let codes: Vec<u32> = text.chars().map(u32::from).collect();
    let steps = |step: fn(u32, u32) -> bool| codes.windows(2).filter(|w| step(w[0], w[1])).count();
    let most = codes.len().saturating_sub(3);
    codes.len() > 3 && (steps(|a, b| a + 1 == b) >= most || steps(|a, b| a == b + 1) >= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for good in ["ngoc.lan", "op1", "a_b-c"] {
            check_username(good).unwrap();
        }
        for bad in ["", "ab", "1ab", "Lan", "lan anh", "đức", "a\0bc", "../etc", &"x".repeat(41)] {
            check_username(bad).unwrap_err();
        }
        assert_eq!(username("  Ngoc.LAN "), "ngoc.lan");
    }

    #[test]
    fn weak_passwords_are_refused_and_phrases_pass() {
        for good in ["tàu điện leng keng", "k7-Vm2q_Zr9-xw", "ngoclan đi chợ Đồng Xuân"] {
            check_password(good, "ngoclan").unwrap();
        }
        for bad in [
            "short",
            "elevenchars",
            "aaaaaaaaaaaa",
            "abababababab",
            "123456789012",
            "abcdefghijklm",
            "210987654321",
            "Password123!",
            "MatKhau123456",
            "qwertyuiop12",
            "ngoclan12345",
            "NgoclanNgoclan",
            "line\nbreak pass",
            &"x7Kq".repeat(65),
        ] {
            check_password(bad, "ngoclan").unwrap_err();
        }
    }

    #[test]
    fn composed_and_decomposed_passwords_are_the_same() {
        assert_eq!(password("mật khẩu"), password(&"mật khẩu".nfd().collect::<String>()));
    }
}
