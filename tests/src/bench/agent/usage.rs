//! What a program uses, with everything it started.

use std::collections::HashMap;

use anyhow::{Context, Result};
use nix::time::ClockId;
use nix::unistd::{Pid, SysconfVar, sysconf};

/// A program with its children, at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Proportional set size, MiB.
    pub pss: f64,
    /// Resident set, MiB; what two of its processes share is in it twice.
    pub rss: f64,
    /// Processor seconds so far.
    pub cpu: f64,
    /// Threads.
    pub threads: usize,
    /// Bytes of pages it had written to disk.
    pub written: f64,
}

impl Usage {
    /// Of these programs together.
    ///
    /// # Errors
    /// If one of them has ended.
    pub fn of(roots: &[u32]) -> Result<Self> {
        let mut sum = Self::default();
        for root in roots {
            // Whoever was asked for must be there; a child may end at any time.
            sum.add(*root).with_context(|| format!("process {root} has ended"))?;
            for child in below(*root)? {
                let _ = sum.add(child);
            }
        }
        Ok(sum)
    }

    fn add(&mut self, pid: u32) -> Result<()> {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let io = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
        let stat = stat(pid)?;
        let cpu = cpu(pid)? + (number(&stat, 13)? + number(&stat, 14)?) / ticks()?;
        self.pss += named(&rollup, "Pss:")? / 1024.0;
        self.rss += named(&rollup, "Rss:")? / 1024.0;
        self.cpu += cpu;
        self.threads += number(&stat, 17)? as usize;
        self.written += named(&io, "write_bytes:")?;
        Ok(())
    }
}

/// Processor seconds that a process used so far, by the scheduler's own nanoseconds. Clock ticks are too coarse for
/// something that uses a few milliseconds a minute, and what its threads that have ended used counts, too: the agent's
/// collectors look in threads of their own.
///
/// # Errors
/// If it has ended.
pub fn cpu(pid: u32) -> Result<f64> {
    let used = ClockId::pid_cpu_clock_id(Pid::from_raw(pid.cast_signed()))?.now()?;
    Ok(used.tv_sec() as f64 + used.tv_nsec() as f64 / 1e9)
}

/// Threads of these programs and all they started.
///
/// # Errors
/// If `/proc` can't be read.
pub fn threads(roots: &[u32]) -> Result<usize> {
    let mut n = 0;
    for root in roots {
        for pid in below(*root)?.into_iter().chain([*root]) {
            n += std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        }
    }
    Ok(n)
}

/// All that it started, and they.
fn below(root: u32) -> Result<Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        if let Ok(parent) = stat(pid).and_then(|s| number(&s, 1)) {
            children.entry(parent as u32).or_default().push(pid);
        }
    }
    let (mut found, mut at) = (vec![root], 0);
    while let Some(pid) = found.get(at) {
        found.extend(children.remove(pid).unwrap_or_default());
        at += 1;
    }
    found.remove(0);
    Ok(found)
}

/// The fields of `stat` behind the name: the state is the first of them.
fn stat(pid: u32) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // A name may have spaces and brackets in it.
    let (_, rest) = text.rsplit_once(')').context("stat")?;
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

fn number(fields: &[String], at: usize) -> Result<f64> {
    Ok(fields.get(at).context("stat is short")?.parse()?)
}

fn named(text: &str, name: &str) -> Result<f64> {
    let line = text.lines().find(|l| l.starts_with(name)).with_context(|| format!("no {name}"))?;
    Ok(line.split_whitespace().nth(1).context("no number")?.parse()?)
}

fn ticks() -> Result<f64> {
    Ok(sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")? as f64)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_a_child_uses_counts_also_after_its_end() {
        let me = std::process::id();
        let before = Usage::of(&[me]).unwrap().cpu;
        let work = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        assert!(Command::new("sh").args(["-c", work]).status().unwrap().success());
        assert!(Usage::of(&[me]).unwrap().cpu > before);
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        assert!(below(me).unwrap().contains(&child.id()));
        assert!(Usage::of(&[child.id()]).unwrap().pss > 0.0);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(Usage::of(&[child.id()]).is_err());
    }
}
