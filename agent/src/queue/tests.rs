use tram_wire::check::CheckState;
use tram_wire::report::CheckResult;

use super::*;

fn delta(seq: u64) -> Stored {
    let gauges = (0..20).map(|i| (format!("gauge-{i}"), Some(1.5))).collect();
    Stored { boot: "b".into(), record: Record { seq, at_ms: seq as i64 * 1000, gauges, ..Record::default() } }
}

fn turn(seq: u64) -> Stored {
    let check = CheckResult { check: "printer".into(), state: CheckState::Crit, ..CheckResult::default() };
    Stored { boot: "b".into(), record: Record { seq, checks: vec![check], ..Record::default() } }
}

fn all(q: &mut Queue) -> Vec<Stored> {
    let mut out = Vec::new();
    while let Some((n, records)) = q.oldest() {
        out.extend(records);
        q.done(n);
    }
    out
}

fn seqs(records: &[Stored]) -> Vec<u64> {
    records.iter().map(|s| s.record.seq).collect()
}

#[test]
fn the_checksum_is_the_usual_one() {
    assert_eq!(crc32c(&[b"123456789"]), 0xE306_9283);
    assert_eq!(crc32c(&[b"1234", b"56789"]), 0xE306_9283);
}

#[test]
fn what_is_kept_comes_back_in_order_and_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut q = Queue::open(dir.path(), LIMIT);
    assert!(q.is_empty());
    q.keep((1..=3).map(delta).collect());
    q.keep(vec![turn(4)]);
    let mut q = Queue::open(dir.path(), LIMIT);
    assert!(!q.is_empty());
    assert_eq!(all(&mut q), [delta(1), delta(2), delta(3), turn(4)]);
    assert!(q.is_empty() && q.bytes() == 0);
    // What wasn't acknowledged comes again.
    q.keep(vec![delta(9)]);
    assert_eq!(seqs(&q.oldest().unwrap().1), [9]);
    assert_eq!(seqs(&q.oldest().unwrap().1), [9]);
}

#[test]
fn a_flipped_bit_costs_one_record_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    Queue::open(dir.path(), LIMIT).keep((1..=5).map(turn).collect());
    let path = dir.path().join("queue/00000001.seg");
    let good = fs::read(&path).unwrap();
    let one = good.len() / 5;
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(&path, &bad).unwrap();
        let (records, lost) = read(&path);
        let hit = (at / one) as u64 + 1;
        assert_eq!(seqs(&records), (1..=5).filter(|s| *s != hit).collect::<Vec<_>>(), "byte {at}");
        assert_eq!(lost, one as u64);
    }
}

#[test]
fn a_file_cut_anywhere_keeps_what_is_whole_and_says_what_is_not() {
    let dir = tempfile::tempdir().unwrap();
    Queue::open(dir.path(), LIMIT).keep((1..=3).map(turn).collect());
    let path = dir.path().join("queue/00000001.seg");
    let good = fs::read(&path).unwrap();
    for cut in 0..good.len() {
        fs::write(&path, &good[..cut]).unwrap();
        assert_eq!(read(&path).0.len(), cut / (good.len() / 3), "cut at {cut}");
    }
    fs::write(&path, &good[..good.len() - 1]).unwrap();
    let mut q = Queue::open(dir.path(), LIMIT);
    assert_eq!(seqs(&all(&mut q)), [1, 2]);
    assert!(q.damage() > 0 && q.damage() == 0);
    // New records are read after the torn one.
    fs::write(&path, &good[..good.len() - 1]).unwrap();
    let mut q = Queue::open(dir.path(), LIMIT);
    q.keep(vec![turn(7)]);
    assert_eq!(seqs(&all(&mut q)), [1, 2, 7]);
}

#[test]
fn rubbish_in_its_place_is_moved_aside() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("queue"), "not a folder").unwrap();
    let mut q = Queue::open(dir.path(), LIMIT);
    q.keep(vec![turn(1)]);
    assert_eq!(seqs(&all(&mut q)), [1]);
    assert!(dir.path().join("queue.damaged").exists());
    fs::write(dir.path().join("queue/00000005.seg"), vec![0x54; 100_000]).unwrap();
    let mut q = Queue::open(dir.path(), LIMIT);
    assert!(all(&mut q).is_empty() && q.damage() == 100_000);
}

#[test]
fn a_disk_that_takes_nothing_leaves_the_newest_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut q = Queue::open(Path::new("/proc/no-such-place"), LIMIT);
    q.keep((1..=600).map(turn).collect());
    let (number, records) = q.oldest().unwrap();
    assert_eq!((number, records.len(), records[0].record.seq), (0, MEMORY, 600 - MEMORY as u64 + 1));
    assert_eq!(q.forgotten, 600 - MEMORY as u32);
    // The disk is back.
    q.folder = dir.path().join("queue");
    q.keep(vec![turn(601)]);
    assert!(q.memory.is_empty() && q.bytes() > 0);
}

#[test]
fn over_its_limit_deltas_go_first_and_what_changed_stays() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 3 * SEGMENT;
    let mut q = Queue::open(dir.path(), limit);
    let mut told = 0;
    for seq in 1..=6000 {
        q.keep(vec![if seq % 100 == 0 { turn(seq) } else { delta(seq) }]);
        told += 1;
        assert!(q.bytes() <= limit + SEGMENT, "{} bytes", q.bytes());
    }
    let rest = all(&mut q);
    let turns = rest.iter().filter(|s| !s.record.checks.is_empty()).count();
    assert_eq!(turns, 60, "no change was forgotten");
    let gaps: u32 = rest.iter().filter_map(|s| s.record.gap.as_ref()).map(|g| g.count).sum();
    let deltas = rest.iter().filter(|s| Class::of(&s.record) == Class::Delta).count();
    assert!(gaps > 0 && deltas > 0);
    assert_eq!(told, turns as u32 + gaps + deltas as u32, "everything is there, or its tombstone is");
}

#[test]
fn even_changes_have_an_end_and_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut q = Queue::open(dir.path(), SEGMENT);
    let mut kept = 0;
    for from in (1..=8000).step_by(50) {
        q.keep((from..from + 50).map(turn).collect());
        kept += 50;
    }
    let rest = all(&mut q);
    let gaps: u32 = rest.iter().filter_map(|s| s.record.gap.as_ref()).map(|g| g.count).sum();
    let left = rest.iter().filter(|s| s.record.gap.is_none()).count();
    assert_eq!(kept, gaps as usize + left);
    assert_eq!(rest.last().unwrap().record.seq, 8000, "the newest is there");
}
