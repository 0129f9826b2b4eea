//! Whom the officer calls: asked of the controller, and kept for the day it can't be asked.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::control::Control;
use super::page::Shown;
use crate::identity::Identity;

/// In the folder of the identity.
const FILE: &str = "support-phone";
/// A telephone number is no longer.
const MOST: usize = 40;
const AGAIN: Duration = Duration::from_secs(600);
const AFTER_A_FAULT: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(20);

/// The number of last time; empty if there is none.
pub(super) fn kept(state: &Path) -> String {
    clean(&fs::read_to_string(state.join(FILE)).unwrap_or_default())
}

/// One line that people can dial.
fn clean(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(MOST).collect()
}

/// Keeps the number up to date.
pub(super) async fn follow(state: &Path, view: &watch::Sender<Shown>) {
    loop {
        let Some(phone) = ask(state).await else {
            sleep(AFTER_A_FAULT).await;
            continue;
        };
        let news = view.send_if_modified(|(version, shown)| {
            let news = shown.phone != phone;
            if news {
                (*version, shown.phone) = (*version + 1, phone.clone());
            }
            news
        });
        if news {
            // Not kept is asked again at the next start.
            let _ = fs::write(state.join(FILE), &phone);
        }
        sleep(AGAIN).await;
    }
}

async fn ask(state: &Path) -> Option<String> {
    let control = Control::new(&Identity::load(state).ok()?).ok()?;
    let answer = timeout(PATIENCE, control.support()).await.ok()?.ok()?;
    Some(clean(&answer.phone))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_one_line() {
        assert_eq!(clean(" 024 3825 3536\n"), "024 3825 3536");
        assert_eq!(clean(&"1".repeat(500)).len(), MOST);
        assert_eq!(clean("a\u{1b}[31mb"), "a[31mb");
    }
}
