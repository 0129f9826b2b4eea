//! What the updater remembers: one small file, replaced by one rename, written before anything is done.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tram_agent::identity::write_private;
use tram_wire::update::{Manifest, Progress, Stage};

use crate::watch::Trial;

const FILE: &str = "state.json";
/// So many rollbacks, and a program is never tried again here.
pub const STRIKES: u8 = 3;
/// Whatever is remembered or forgotten of a program: it is never switched to more often.
pub const STEPS: u8 = 8;
/// Programs remembered.
const REMEMBERED: usize = 32;

/// A release that runs, or ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its name.
    pub version: String,
    /// Its counter.
    pub counter: u64,
    /// Its program.
    pub sha256: String,
}

impl From<&Manifest> for Release {
    fn from(m: &Manifest) -> Self {
        Self { version: m.version.clone(), counter: m.counter, sha256: m.sha256.clone() }
    }
}

/// How a program fared here. By its bytes: the same under another name is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// It.
    pub sha256: String,
    /// The newest counter it had.
    pub counter: u64,
    /// How often it was taken back.
    pub strikes: u8,
    /// How often it was switched to. Counted before the switch.
    pub steps: u8,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The largest counter that ever ran for good.
    pub counter: u64,
    /// What runs for good; absent: the package's own.
    pub committed: Option<Release>,
    /// What is being tried.
    pub trial: Option<Trial>,
    /// How programs fared.
    pub past: Vec<Past>,
    /// What is told to the controller.
    pub last: Option<Progress>,
    /// The latest time that was certain, Unix milliseconds.
    pub time_ms: i64,
    /// What is kept for the office.
    pub keeps: Option<Release>,
}

/// Why a program is not tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum No {
    /// It was taken back too often.
    Banned,
    /// It was switched to too often.
    Loop,
}

impl State {
    /// Reads it; a damaged file is put aside and counts as none. The counter then begins anew: what an endpoint runs
    /// is still only what was signed and has not expired.
    ///
    /// # Errors
    /// If the file is there and can't be read.
    pub fn load(folder: &Path) -> io::Result<Self> {
        let path = folder.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(state) => Ok(state),
                Err(_) => {
                    std::fs::rename(&path, folder.join("state.json.damaged"))?;
                    Ok(Self::default())
                }
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(e),
        }
    }

    /// Writes it.
    ///
    /// # Errors
    /// If it can't be.
    pub fn save(&self, folder: &Path) -> io::Result<()> {
        write_private(folder, FILE, &serde_json::to_vec_pretty(self)?)
    }

    /// How a program fared.
    #[must_use]
    pub fn past(&self, sha256: &str) -> (u8, u8) {
        self.past.iter().find(|p| p.sha256 == sha256).map_or((0, 0), |p| (p.strikes, p.steps))
    }

    fn past_mut(&mut self, sha256: &str, counter: u64) -> &mut Past {
        let at = match self.past.iter().position(|p| p.sha256 == sha256) {
            Some(at) => at,
            None => {
                if self.past.len() >= REMEMBERED
                    && let Some(oldest) = (0..self.past.len()).min_by_key(|i| self.past[*i].counter)
                {
                    self.past.remove(oldest);
                }
                self.past.push(Past { sha256: sha256.to_owned(), counter, strikes: 0, steps: 0 });
                self.past.len() - 1
            }
        };
        let past = &mut self.past[at];
        past.counter = past.counter.max(counter);
        past
    }

    /// Whether a program may be tried.
    ///
    /// # Errors
    /// [`No`].
    pub fn may_try(&self, sha256: &str) -> Result<(), No> {
        match self.past(sha256) {
            (strikes, _) if strikes >= STRIKES => Err(No::Banned),
            (_, steps) if steps >= STEPS => Err(No::Loop),
            _ => Ok(()),
        }
    }

    /// A try begins. To be saved before the switch.
    pub fn begin(&mut self, trial: Trial) {
        let past = self.past_mut(&trial.release.sha256, trial.release.counter);
        past.steps = past.steps.saturating_add(1);
        let strikes = past.strikes;
        self.tell(trial.release.counter, Stage::Trial, "", String::new());
        if let Some(last) = &mut self.last {
            last.strikes = strikes;
        }
        self.trial = Some(trial);
    }

    /// What was tried runs for good. To be saved before what it replaces is removed.
    pub fn commit(&mut self) {
        let Some(trial) = self.trial.take() else { return };
        self.counter = self.counter.max(trial.release.counter);
        let past = self.past_mut(&trial.release.sha256, trial.release.counter);
        (past.strikes, past.steps) = (0, 0);
        self.tell(trial.release.counter, Stage::Committed, "", String::new());
        self.committed = Some(trial.release);
    }

    /// What was tried is taken back. To be saved before the switch.
    pub fn take_back(&mut self, code: &str, detail: String) {
        let Some(trial) = self.trial.take() else { return };
        let past = self.past_mut(&trial.release.sha256, trial.release.counter);
        past.strikes = past.strikes.saturating_add(1);
        let strikes = past.strikes;
        let stage = if strikes >= STRIKES { Stage::Banned } else { Stage::RolledBack };
        self.tell(trial.release.counter, stage, code, detail);
        if let Some(last) = &mut self.last {
            last.strikes = strikes;
        }
    }

    /// Notes what the controller is told; whether that is news. What is known of the same release stays.
    pub fn tell(&mut self, counter: u64, stage: Stage, code: &str, detail: String) -> bool {
        let old = self.last.take();
        let same = old.as_ref().filter(|p| p.counter == counter);
        let (strikes, bytes, from_peer) = same.map_or((0, 0, 0), |p| (p.strikes, p.bytes, p.from_peer));
        let new = Progress { counter, stage, code: code.to_owned(), detail, strikes, bytes, from_peer };
        let news = old.as_ref() != Some(&new);
        self.last = Some(new);
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(sha256: &str, counter: u64) -> Trial {
        let release = Release { version: "2.0".into(), counter, sha256: sha256.into() };
        Trial { release, ..Trial::default() }
    }

    #[test]
    fn three_strikes_ban_a_program_whatever_it_is_called() {
        let mut s = State::default();
        for n in 1..=3_u8 {
            assert_eq!(s.may_try("a"), Ok(()));
            s.begin(trial("a", u64::from(n)));
            s.take_back("crashed", String::new());
            assert_eq!(s.past("a"), (n, n));
        }
        assert_eq!(s.may_try("a"), Err(No::Banned));
        assert_eq!(s.last.as_ref().map(|p| (p.stage, p.strikes, p.code.as_str())), Some((Stage::Banned, 3, "crashed")));
        assert_eq!(s.may_try("b"), Ok(()));
        assert_eq!((s.counter, &s.committed), (0, &None), "what failed moves no counter");
    }

    #[test]
    fn a_loop_ends_even_if_nothing_is_ever_taken_for_a_failure() {
        let mut s = State::default();
        let mut n = 0;
        while s.may_try("a").is_ok() {
            s.begin(trial("a", 1));
            // As if the power were cut each time: neither committed nor taken back.
            s.trial = None;
            n += 1;
            assert!(n < 100);
        }
        assert_eq!((n, s.may_try("a")), (STEPS, Err(No::Loop)));
    }

    #[test]
    fn what_ran_well_has_a_clean_sheet() {
        let mut s = State::default();
        s.begin(trial("a", 4));
        s.take_back("crashed", String::new());
        s.begin(trial("a", 4));
        s.commit();
        assert_eq!((s.past("a"), s.counter), ((0, 0), 4));
        assert_eq!(s.last.as_ref().map(|p| p.stage), Some(Stage::Committed));
    }

    #[test]
    fn it_is_kept_and_a_damaged_one_stops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut s = State::load(dir.path()).unwrap();
        s.begin(trial("a", 4));
        s.save(dir.path()).unwrap();
        assert_eq!(State::load(dir.path()).unwrap(), s);
        std::fs::write(dir.path().join(FILE), &std::fs::read(dir.path().join(FILE)).unwrap()[..40]).unwrap();
        assert_eq!(State::load(dir.path()).unwrap(), State::default());
        assert!(dir.path().join("state.json.damaged").exists());
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut s = State::default();
        for n in 0..100 {
            s.begin(trial(&format!("{n}"), n));
            s.take_back("crashed", String::new());
        }
        assert_eq!((s.past.len(), s.past("99"), s.past("0")), (REMEMBERED, (1, 1), (0, 0)));
    }
}
