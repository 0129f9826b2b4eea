//! What time it is, for judging certificates. The agent never sets the clock; it only doesn't believe it.
//!
//! The controller's last word counts on by the boot clock, whatever somebody does to the calendar. Without one the calendar
//! counts, but never less than what is certain: this build's date, and the last time the controller was heard.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use crate::host::{Host, System, wall_ms};
use crate::identity::write_private;

const FILE: &str = "time.json";
/// No computer that runs this build is older. Packages are built with the date of their sources.
const BUILT_MS: i64 = match option_env!("SOURCE_DATE_EPOCH") {
    Some(text) => seconds(text.as_bytes()) * 1000,
    None => 1_795_000_000_000,
};
/// How much later a word must be than the one on disk to be written.
const WRITE_EVERY_MS: i64 = 3_600_000;

const fn seconds(text: &[u8]) -> i64 {
    let (mut n, mut i) = (0_i64, 0);
    while i < text.len() && text[i].is_ascii_digit() {
        n = n * 10 + (text[i] - b'0') as i64;
        i += 1;
    }
    n
}

/// A word of the controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Word {
    /// Its time.
    server_ms: i64,
    /// During which boot of this computer it was heard.
    boot: String,
    /// And when, by that boot's clock.
    boot_ms: u64,
}

/// What is known of the time.
#[derive(Debug, Default)]
struct Known {
    word: Option<Word>,
    /// Where words are kept, and the newest there.
    kept: Option<(PathBuf, i64)>,
}

fn known() -> &'static Mutex<Known> {
    static KNOWN: OnceLock<Mutex<Known>> = OnceLock::new();
    KNOWN.get_or_init(Mutex::default)
}

fn boot() -> (String, u64) {
    let host = System::new();
    (host.read("/proc/sys/kernel/random/boot_id").unwrap_or_default(), host.boot_ms())
}

/// Takes up what an earlier process on this computer heard.
pub fn recall(state: &Path) {
    let word: Option<Word> = std::fs::read(state.join(FILE)).ok().and_then(|b| serde_json::from_slice(&b).ok());
    let mut known = known().lock().unwrap_or_else(PoisonError::into_inner);
    known.kept = Some((state.to_owned(), word.as_ref().map_or(0, |w| w.server_ms)));
    known.word = word.or(known.word.take());
}

/// The controller said what time it is, over a connection that proved it.
pub fn learn(server_ms: i64) {
    let (boot, boot_ms) = boot();
    let mut known = known().lock().unwrap_or_else(PoisonError::into_inner);
    let word = Word { server_ms, boot, boot_ms };
    if let Some((state, newest)) = &mut known.kept
        && (server_ms - *newest).abs() >= WRITE_EVERY_MS
        && serde_json::to_vec(&word).is_ok_and(|b| write_private(state, FILE, &b).is_ok())
    {
        *newest = server_ms;
    }
    known.word = Some(word);
}

/// The time to judge certificates by. `floor_ms` is certain for another reason, such as a certificate we were given.
#[must_use]
pub fn now_ms(floor_ms: i64) -> i64 {
    let known = known().lock().unwrap_or_else(PoisonError::into_inner);
    judge(known.word.as_ref(), &boot(), wall_ms(), floor_ms)
}

fn judge(word: Option<&Word>, (boot, boot_ms): &(String, u64), wall_ms: i64, floor_ms: i64) -> i64 {
    match word {
        Some(w) if !boot.is_empty() && w.boot == *boot && *boot_ms >= w.boot_ms => {
            w.server_ms.saturating_add(i64::try_from(boot_ms - w.boot_ms).unwrap_or(i64::MAX))
        }
        w => wall_ms.max(floor_ms).max(BUILT_MS).max(w.map_or(0, |w| w.server_ms)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARD: i64 = 1_800_000_000_000;

    #[test]
    fn the_controllers_word_counts_on_by_the_boot_clock_whatever_the_calendar_says() {
        let word = Word { server_ms: HEARD, boot: "b1".into(), boot_ms: 5_000 };
        let now = ("b1".to_owned(), 65_000);
        for wall in [0, HEARD - 3_600_000, HEARD + 3_600_000, HEARD * 2] {
            assert_eq!(judge(Some(&word), &now, wall, 0), HEARD + 60_000);
        }
    }

    #[test]
    fn without_a_word_of_this_boot_time_does_not_go_below_what_is_certain() {
        let word = Word { server_ms: HEARD, boot: "b0".into(), boot_ms: 5_000 };
        let now = ("b1".to_owned(), 65_000);
        assert_eq!(judge(Some(&word), &now, 0, 0), HEARD, "1970");
        assert_eq!(judge(Some(&word), &now, HEARD + 9, 0), HEARD + 9);
        assert_eq!(judge(None, &now, 0, 0), BUILT_MS);
        assert_eq!(judge(None, &now, 0, BUILT_MS + 7), BUILT_MS + 7);
        // No boot id can be read: nothing can be counted on.
        assert_eq!(judge(Some(&Word { boot: String::new(), ..word }), &(String::new(), 70_000), 0, 0), HEARD);
    }

    #[test]
    fn a_date_of_sources_is_read() {
        assert_eq!(seconds(b"1795000000"), 1_795_000_000);
        assert_eq!(seconds(b""), 0);
    }
}
