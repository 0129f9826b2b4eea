use super::*;

/// One that always has more to send; what it sent.
fn bulk(site: &Arc<Site>, piece: usize) -> (Arc<AtomicU64>, tokio::task::JoinHandle<()>) {
    let (sent, site) = (Arc::new(AtomicU64::new(0)), site.clone());
    let count = sent.clone();
    let task = tokio::spawn(async move {
        let taker = Taker::default();
        loop {
            let grant = site.take(&taker, 65_536).await;
            // The desktop had less than there was room for.
            let n = grant.bytes().min(piece);
            grant.spent(n);
            count.fetch_add(n as u64, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    (sent, task)
}

fn take(sent: &AtomicU64) -> f64 {
    sent.swap(0, Ordering::Relaxed) as f64
}

#[tokio::test(start_paused = true)]
async fn the_sum_keeps_to_the_rate_and_who_has_much_shares_evenly() {
    for (kbit, sessions, piece) in [(800, 2, 65_536), (4_000, 5, 65_536), (4_000, 5, 700), (80_000, 3, 20_000)] {
        let shaper = Shaper::new(None);
        let site = shaper.site("a", Some(kbit));
        let all: Vec<_> = (0..sessions).map(|_| bulk(&site, piece)).collect();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let sent: Vec<f64> = all.iter().map(|(s, _)| take(s)).collect();
        let (sum, fair) = (sent.iter().sum::<f64>(), f64::from(kbit) * 125.0 * 5.0);
        assert!((0.9..1.02).contains(&(sum / fair)), "{kbit} kbit/s for {sessions}: {sum} of {fair}");
        for one in &sent {
            let part = one * f64::from(sessions) / sum;
            assert!((0.9..1.1).contains(&part), "{kbit} kbit/s: {sent:?}");
        }
        all.iter().for_each(|(_, task)| task.abort());
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_quiet_lends_and_who_sends_little_does_not_wait_for_bulk() {
    let shaper = Shaper::new(None);
    let site = shaper.site("a", Some(2_000));
    let all = [bulk(&site, 65_536), bulk(&site, 65_536), bulk(&site, 65_536)];
    let typist = Taker::default();
    let mut longest = Duration::ZERO;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(170)).await;
        let asked = Instant::now();
        site.take(&typist, 2_000).await.spent(800);
        longest = longest.max(asked.elapsed());
    }
    // A turn of somebody else's, and the line's own pace; behind three of bulk it would be sixty and more.
    assert!(longest <= Duration::from_millis(45), "{longest:?}");
    let sum: f64 = all.iter().map(|(s, _)| take(s)).sum();
    assert!(sum > 0.9 * 250_000.0 * 17.0, "the line is used: {sum}");
    all[0].1.abort();
    all[1].1.abort();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(take(&all[2].0) > 0.9 * 2_500_000.0, "one alone has it all");
    all[2].1.abort();
}

#[tokio::test(start_paused = true)]
async fn a_new_rate_is_felt_by_who_waits_and_none_lets_everybody_go() {
    let shaper = Shaper::new(None);
    let site = shaper.site("a", Some(64));
    let (sent, task) = bulk(&site, 65_536);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!((70_000.0..90_000.0).contains(&take(&sent)));
    shaper.set(&HashMap::from([("a".to_owned(), 6_400)]));
    tokio::time::sleep(Duration::from_secs(10)).await;
    let much = take(&sent);
    assert!((7.0e6..9.0e6).contains(&much), "{much}");
    shaper.set(&HashMap::from([("a".to_owned(), 64)]));
    let waiting = tokio::spawn({
        let site = site.clone();
        async move { site.take(&Taker::default(), 1 << 20).await.bytes() }
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    task.abort();
    shaper.set(&HashMap::new());
    assert_eq!(waiting.await.unwrap(), 1 << 20, "uncapped");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_spent_or_not_waited_for_is_lost_to_nobody() {
    let shaper = Shaper::new(None);
    let site = shaper.site("a", Some(800));
    let (one, other) = (Taker::default(), Taker::default());
    drop(site.take(&one, 65_536).await);
    let again = site.take_now(&other, 65_536).unwrap();
    assert_eq!(again.bytes(), 5_000, "50 ms of 800 kbit/s");
    again.spent(5_000);
    assert!(site.take_now(&one, 1).is_none());
    // Who stops waiting holds up nobody.
    let left = tokio::time::timeout(Duration::from_millis(1), site.take(&one, 65_536)).await;
    assert!(left.is_err());
    let grant = tokio::time::timeout(Duration::from_millis(100), site.take(&other, 65_536)).await.unwrap();
    assert!(grant.bytes() >= 1024 && grant.waited());
    grant.spent(0);
    // Sound goes at once; pictures make room for it, but not for ever.
    site.owe(10_000_000);
    let asked = Instant::now();
    site.take(&one, 65_536).await.spent(1);
    let took = asked.elapsed();
    assert!((Duration::from_millis(500)..Duration::from_millis(1100)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_gateways_own_rate_is_shared_by_sites_not_by_sessions() {
    let shaper = Shaper::new(Some(8_000));
    let (thin, wide) = (shaper.site("thin", Some(1_000)), shaper.site("wide", Some(100_000)));
    let free = shaper.site("unknown", None);
    let all = [bulk(&thin, 65_536), bulk(&wide, 65_536), bulk(&wide, 65_536), bulk(&wide, 65_536), bulk(&free, 65_536)];
    tokio::time::sleep(Duration::from_secs(5)).await;
    let sent: Vec<f64> = all.iter().map(|(s, _)| take(s) / 5.0 / 125.0).collect();
    let sum: f64 = sent.iter().sum();
    assert!((7_200.0..8_200.0).contains(&sum), "{sent:?}");
    assert!((850.0..1_020.0).contains(&sent[0]), "the thin one has its own line: {sent:?}");
    let others = sent[1] + sent[2] + sent[3];
    assert!((0.85..1.15).contains(&(others / sent[4])), "three sessions are one site: {sent:?}");
    let (uses, gone) = shaper.uses();
    assert!(uses.iter().find(|u| u.code == "thin").is_some_and(|u| u.kbit == Some(1_000) && u.waits > 50));
    assert!(gone.is_empty());
    all.iter().for_each(|(_, task)| task.abort());
}
