//! Records that wait for the line, on disk: bounded, checked one by one, and never a reason to stop.
//!
//! While the line is up nothing is written: what is sent waits in memory for its acknowledgement. When the line is
//! cut, everything unacknowledged goes to segments of 256 KiB, each record with its own checksum. Of a segment that
//! was cut off or has flipped bits every record that is whole is still read; what is between is counted and told.
//!
//! Over its limit the queue forgets the oldest of what matters least: deltas, then keyframes, then probes, and what
//! changed (checks, events) last. What is forgotten leaves a tombstone, so that nobody takes silence for health.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tram_wire::report::{Gap, Record};

/// The whole queue on disk.
pub const LIMIT: u64 = 16 * 1024 * 1024;
const SEGMENT: u64 = 256 * 1024;
/// Records kept in memory when the disk takes none.
const MEMORY: usize = 512;
const MAGIC: [u8; 4] = *b"TrQ1";
/// Magic, class, length, checksum.
const HEAD: usize = 13;
/// A record is well below a frame.
const LONGEST: usize = 64 * 1024;

/// What a record is worth when room runs out; the last one goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Checks that changed, peripherals, notes, tombstones.
    Event = 0,
    /// Probes.
    Probe = 1,
    /// Everything at one moment.
    Keyframe = 2,
    /// Gauges that moved.
    Delta = 3,
}

impl Class {
    /// Of a record.
    #[must_use]
    pub fn of(r: &Record) -> Self {
        if r.gap.is_some() || !r.events.is_empty() || !r.notes.is_empty() || (!r.checks.is_empty() && !r.key) {
            Self::Event
        } else if r.key {
            Self::Keyframe
        } else if !r.probes.is_empty() {
            Self::Probe
        } else {
            Self::Delta
        }
    }

    fn from(byte: u8) -> Option<Self> {
        [Self::Event, Self::Probe, Self::Keyframe, Self::Delta].get(usize::from(byte)).copied()
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Probe => "probe",
            Self::Keyframe => "keyframe",
            Self::Delta => "delta",
        }
    }
}

/// A record and the boot it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Boot id.
    pub boot: String,
    /// The record.
    pub record: Record,
}

/// The queue.
#[derive(Debug)]
pub struct Queue {
    folder: PathBuf,
    /// Numbers of the segments on disk, oldest first, with their sizes.
    segments: VecDeque<(u64, u64)>,
    limit: u64,
    /// What the disk did not take.
    memory: VecDeque<Stored>,
    /// How many records memory had to forget.
    forgotten: u32,
    /// Bytes that made no sense, since the last [`Queue::damage`].
    damaged: u64,
}

impl Queue {
    /// Opens the queue below `state`. One that can't be used is moved aside, and a new one begins.
    #[must_use]
    pub fn open(state: &Path, limit: u64) -> Self {
        let folder = state.join("queue");
        if fs::metadata(&folder).is_ok_and(|m| !m.is_dir()) {
            let _ = fs::rename(&folder, state.join("queue.damaged"));
        }
        let mut segments: Vec<(u64, u64)> = fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| {
                let n = e.file_name().to_str()?.strip_suffix(".seg")?.parse().ok()?;
                Some((n, e.metadata().ok()?.len()))
            })
            .collect();
        segments.sort_unstable();
        Self { folder, segments: segments.into(), limit, memory: VecDeque::new(), forgotten: 0, damaged: 0 }
    }

    /// Nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.memory.is_empty()
    }

    /// Bytes on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|(_, size)| size).sum()
    }

    /// Bytes that made no sense since the last call.
    pub fn damage(&mut self) -> u64 {
        std::mem::take(&mut self.damaged)
    }

    /// Keeps records. What the disk does not take stays in memory, the newest of it.
    pub fn keep(&mut self, records: Vec<Stored>) {
        let all: Vec<Stored> = self.memory.drain(..).chain(records).collect();
        if let Err(e) = self.append(&all) {
            let over = all.len().saturating_sub(MEMORY);
            self.forgotten = self.forgotten.saturating_add(u32::try_from(over).unwrap_or(u32::MAX));
            self.memory = all.into_iter().skip(over).collect();
            if over == 0 {
                eprintln!("tram-agent: records can't be kept on disk, so they stay in memory: {e}");
            }
        }
        self.shrink();
    }

    fn append(&mut self, records: &[Stored]) -> io::Result<()> {
        let mut bytes = Vec::new();
        records.iter().for_each(|r| encode(r, &mut bytes));
        if bytes.is_empty() {
            return Ok(());
        }
        fs::create_dir_all(&self.folder)?;
        let number = match self.segments.back() {
            Some((n, size)) if *size < SEGMENT => *n,
            last => last.map_or(1, |(n, _)| n + 1),
        };
        let path = self.path(number);
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        let before = file.metadata()?.len();
        if let Err(e) = file.write_all(&bytes).and_then(|()| file.sync_data()) {
            // Half a record would be skipped when it is read; without it nothing needs to be.
            let _ = file.set_len(before);
            return Err(e);
        }
        let size = before + bytes.len() as u64;
        match self.segments.back_mut() {
            Some((n, s)) if *n == number => *s = size,
            _ => self.segments.push_back((number, size)),
        }
        Ok(())
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:08}.seg"))
    }

    /// The oldest segment's records, and its number to give to [`Queue::done`]; what only memory has comes last
    /// under the number 0.
    pub fn oldest(&mut self) -> Option<(u64, Vec<Stored>)> {
        while let Some((number, _)) = self.segments.front().copied() {
            let (records, damaged) = read(&self.path(number));
            if damaged > 0 {
                self.damaged += damaged;
            }
            if !records.is_empty() {
                return Some((number, records));
            }
            self.done(number);
        }
        (!self.memory.is_empty()).then(|| (0, self.memory.iter().cloned().collect()))
    }

    /// Forgets a segment: it was acknowledged.
    pub fn done(&mut self, number: u64) {
        if number == 0 {
            self.memory.clear();
            return;
        }
        let _ = fs::remove_file(self.path(number));
        self.segments.retain(|(n, _)| *n != number);
    }

    /// Comes back below the limit, oldest and least first.
    fn shrink(&mut self) {
        for class in [Class::Delta, Class::Keyframe, Class::Probe] {
            // Down to nine tenths at once: every rewrite costs the disk.
            for at in 0..self.segments.len() {
                if self.bytes() <= self.limit || (class != Class::Delta && self.bytes() <= self.limit / 10 * 9) {
                    return;
                }
                self.without(at, class);
            }
        }
        while self.bytes() > self.limit && self.segments.len() > 1 {
            let Some((number, _)) = self.segments.front().copied() else { return };
            let (records, _) = read(&self.path(number));
            self.done(number);
            if let (Some(stone), Some((next, _))) = (tombstone(&records, Class::Event), self.segments.front().copied())
            {
                let (mut rest, _) = read(&self.path(next));
                rest.insert(0, stone);
                self.rewrite(0, next, &rest);
            }
        }
    }

    /// Takes a class out of a segment.
    fn without(&mut self, at: usize, class: Class) {
        let Some((number, _)) = self.segments.get(at).copied() else { return };
        let (records, _) = read(&self.path(number));
        let (gone, mut rest): (Vec<_>, Vec<_>) = records.into_iter().partition(|s| Class::of(&s.record) == class);
        if let Some(stone) = tombstone(&gone, class) {
            rest.insert(0, stone);
            self.rewrite(at, number, &rest);
        }
    }

    fn rewrite(&mut self, at: usize, number: u64, records: &[Stored]) {
        let mut bytes = Vec::new();
        records.iter().for_each(|r| encode(r, &mut bytes));
        let new = self.folder.join("new");
        let written = fs::write(&new, &bytes).and_then(|()| fs::rename(&new, self.path(number)));
        if written.is_ok()
            && let Some(entry) = self.segments.get_mut(at)
        {
            entry.1 = bytes.len() as u64;
        } else if written.is_err() {
            // No room even to make room: the segment itself has to go.
            let _ = fs::remove_file(&new);
            let _ = fs::remove_file(self.path(number));
            if let Some(entry) = self.segments.get_mut(at) {
                entry.1 = 0;
            }
        }
    }
}

/// What says that these records are gone. Tombstones among them are added up.
fn tombstone(gone: &[Stored], class: Class) -> Option<Stored> {
    let (first, last) = (gone.first()?, gone.last()?);
    let count = gone.iter().map(|s| s.record.gap.as_ref().map_or(1, |g| g.count)).sum();
    let gap = Gap {
        class: class.as_str().to_owned(),
        from_seq: first.record.seq,
        to_seq: last.record.seq,
        from_ms: first.record.at_ms,
        to_ms: last.record.at_ms,
        count,
    };
    let (seq, mono_ms, at_ms) = (last.record.seq, last.record.mono_ms, last.record.at_ms);
    Some(Stored {
        boot: last.boot.clone(),
        record: Record { seq, mono_ms, at_ms, gap: Some(gap), ..Record::default() },
    })
}

fn encode(s: &Stored, to: &mut Vec<u8>) {
    let Ok(json) = serde_json::to_vec(&s.record) else { return };
    let body = [s.boot.as_bytes(), b"\n", &json].concat();
    if body.len() > LONGEST {
        return;
    }
    let class = Class::of(&s.record) as u8;
    to.extend(MAGIC);
    to.push(class);
    to.extend(u32::try_from(body.len()).unwrap_or(0).to_le_bytes());
    to.extend(crc32c(&[&[class], body.as_slice()]).to_le_bytes());
    to.extend(body);
}

/// Every whole record, and how many bytes were not part of one.
fn read(path: &Path) -> (Vec<Stored>, u64) {
    let mut bytes = Vec::new();
    let opened = File::open(path).and_then(|f| f.take(4 * SEGMENT).read_to_end(&mut bytes));
    if opened.is_err() {
        return (Vec::new(), 0);
    }
    let (mut all, mut at, mut lost) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        match decode(bytes.get(at..).unwrap_or_default()) {
            Some((stored, length)) => {
                all.push(stored);
                at += length;
            }
            None => {
                lost += 1;
                at += 1;
            }
        }
    }
    (all, lost)
}

fn decode(bytes: &[u8]) -> Option<(Stored, usize)> {
    if bytes.get(..4)? != MAGIC {
        return None;
    }
    let class = *bytes.get(4)?;
    Class::from(class)?;
    let length = u32::from_le_bytes(bytes.get(5..9)?.try_into().ok()?) as usize;
    let sum = u32::from_le_bytes(bytes.get(9..HEAD)?.try_into().ok()?);
    let body = bytes.get(HEAD..HEAD.checked_add(length).filter(|_| length <= LONGEST)?)?;
    if crc32c(&[&[class], body]) != sum {
        return None;
    }
    let cut = body.iter().position(|b| *b == b'\n')?;
    let boot = std::str::from_utf8(body.get(..cut)?).ok()?.to_owned();
    let record = serde_json::from_slice(body.get(cut + 1..)?).ok()?;
    Some((Stored { boot, record }, HEAD + length))
}

/// CRC-32C, a nibble at a time: records are small and rare.
fn crc32c(parts: &[&[u8]]) -> u32 {
    const TABLE: [u32; 16] = {
        let mut t = [0; 16];
        let mut i = 0;
        while i < 16 {
            let (mut c, mut bit) = (i as u32, 0);
            while bit < 4 {
                c = if c & 1 == 1 { c >> 1 ^ 0x82F6_3B78 } else { c >> 1 };
                bit += 1;
            }
            t[i] = c;
            i += 1;
        }
        t
    };
    let step = |c: u32, n: u8| c >> 4 ^ TABLE[usize::from((c as u8 ^ n) & 15)];
    !parts.iter().flat_map(|p| p.iter()).fold(!0, |c, b| step(step(c, *b), b >> 4))
}

#[cfg(test)]
mod tests;
