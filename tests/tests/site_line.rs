//! The sessions of a site keep to its line together, in the browser and at endpoints, and share it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_tungstenite::tungstenite::Message;
use tram_controller::domain::session::Policy;
use tram_controller::services::{Ctx, sites};
use tram_tests::db;
use tram_tests::endless::{Display, KEY, spice, spice_key};
use tram_tests::gate::{Gate, Viewer};
use tram_tests::office::{Plan, SITE};
use tram_tests::tunnels::{Commune, shake_hands};
use tram_tunnel::Stream;
use tram_wire::session::Protocol;
use tram_wire::tunnel::Class;

/// Long enough that bursts and scheduling are small beside it; only how much is looked at, not how fast.
const WINDOW: Duration = Duration::from_secs(6);
const PATIENCE: Duration = Duration::from_secs(60);

/// Somebody who looks at endless pictures.
struct Watcher {
    got: Arc<AtomicU64>,
    keys: mpsc::Sender<()>,
    task: AbortHandle,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watcher {
    fn take(&self) -> f64 {
        self.got.swap(0, Ordering::Relaxed) as f64
    }
}

/// The n-th officer at an endpoint.
async fn at_endpoint(commune: &Commune, n: usize) -> Result<Watcher> {
    let (_, session) = commune.session(n).await?;
    let mut stream = session.stream(Protocol::Vnc, Class::Input, Class::Display)?;
    shake_hands(&mut stream).await?;
    let (got, (keys, mut typed)) = (Arc::new(AtomicU64::new(0)), mpsc::channel::<()>(1));
    let count = got.clone();
    let task = tokio::spawn(async move {
        let _session = session;
        let mut piece = vec![0; 65_536];
        loop {
            tokio::select! {
                n = stream.read(&mut piece) => match n {
                    Ok(n @ 1..) => drop(count.fetch_add(n as u64, Ordering::Relaxed)),
                    _ => return,
                },
                Some(()) = typed.recv() => if stream.write_all(&KEY).await.is_err() { return },
            }
        }
    });
    Ok(Watcher { got, keys, task: task.abort_handle() })
}

/// The n-th officer at an endpoint with a SPICE viewer: MAIN, pictures that are read as they come, and a keyboard.
async fn by_spice(commune: &Commune, n: usize) -> Result<Watcher> {
    let (_, session) = commune.session(n).await?;
    let open = async |kind: u8, id: u32, class: Class| -> Result<Stream> {
        let mut stream = session.stream(Protocol::Spice, Class::Input, class)?;
        let mut link = b"REDQ".to_vec();
        [2, 2, 22, id].iter().for_each(|n| link.extend_from_slice(&u32::to_le_bytes(*n)));
        link.extend_from_slice(&[kind, 0]);
        [1, 0, 18, 0b1011].iter().for_each(|n| link.extend_from_slice(&u32::to_le_bytes(*n)));
        stream.write_all(&link).await?;
        let mut reply = [0; 16 + 182];
        stream.read_exact(&mut reply).await?;
        stream.write_all(&[&[1, 0, 0, 0][..], &[0; 128]].concat()).await?;
        let mut result = [9; 4];
        stream.read_exact(&mut result).await?;
        ensure!(result == [0; 4], "not let in: {result:?}");
        Ok(stream)
    };
    let mut main = open(1, 0, Class::Control).await?;
    let mut init = [0; 6 + 32];
    main.read_exact(&mut init).await?;
    let id = u32::from_le_bytes([init[6], init[7], init[8], init[9]]);
    let mut pictures = open(2, id, Class::Display).await?;
    pictures.write_all(&spice(101, &[1, 0, 0, 0x50, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0])).await?;
    let mut inputs = open(3, id, Class::Input).await?;
    let (got, (keys, mut typed)) = (Arc::new(AtomicU64::new(0)), mpsc::channel::<()>(1));
    let count = got.clone();
    let task = tokio::spawn(async move {
        let _all = (session, main);
        let mut piece = vec![0; 65_536];
        loop {
            tokio::select! {
                n = pictures.read(&mut piece) => match n {
                    Ok(n @ 1..) => drop(count.fetch_add(n as u64, Ordering::Relaxed)),
                    _ => return,
                },
                Some(()) = typed.recv() => if inputs.write_all(&spice_key()).await.is_err() { return },
            }
        }
    });
    Ok(Watcher { got, keys, task: task.abort_handle() })
}

/// The n-th officer in the browser.
async fn in_browser(commune: &Commune, n: usize) -> Result<Watcher> {
    Ok(watch(commune.gate.view(n).await?.1))
}

/// The same at another gateway.
async fn in_browser_at(commune: &Commune, n: usize, gateway: SocketAddr) -> Result<Watcher> {
    let gate = &commune.gate;
    let (_, ticket) = gate.ticket(n).await?;
    let origin = format!("http://{}", gate.address);
    let mut viewer = Gate::knock_there(gateway, "vnc", &ticket, &gate.cookie(&ticket), &origin).await?;
    viewer.shake_hands().await?;
    Ok(watch(viewer))
}

fn watch(mut viewer: Viewer) -> Watcher {
    let (got, (keys, mut typed)) = (Arc::new(AtomicU64::new(0)), mpsc::channel::<()>(1));
    let count = got.clone();
    let task = tokio::spawn(async move {
        loop {
            tokio::select! {
                piece = viewer.stream.next() => match piece {
                    Some(Ok(Message::Binary(b))) => drop(count.fetch_add(b.len() as u64, Ordering::Relaxed)),
                    Some(Ok(_)) => {}
                    _ => return,
                },
                Some(()) = typed.recv() => {
                    if viewer.stream.send(Message::binary(KEY.to_vec())).await.is_err() { return }
                }
            }
        }
    });
    Watcher { got, keys, task: task.abort_handle() }
}

/// What each gets within a while, bytes a second.
async fn rates(all: &[Watcher]) -> Vec<f64> {
    all.iter().for_each(|w| w.got.store(0, Ordering::Relaxed));
    let began = Instant::now();
    tokio::time::sleep(WINDOW).await;
    let got: Vec<f64> = all.iter().map(Watcher::take).collect();
    let passed = began.elapsed().as_secs_f64();
    got.iter().map(|n| n / passed).collect()
}

/// Waits until all of them together get more, or less, than so many bytes a second.
async fn until(all: &[Watcher], what: &str, so: impl Fn(f64) -> bool) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let sum: f64 = rates(all).await.iter().sum();
        if so(sum) {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{what}: {sum} bytes/s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_and_five_sessions_share_a_line_and_keys_pass_while_pictures_queue() -> Result<()> {
    let db = db::sqlite().await?;
    let folder = tempfile::tempdir()?;
    let display = Display::serve(folder.path())?;
    let display_of = format!("picture&displays={}", folder.path().display());
    let plan = Plan { desktops: 5, officers: 5, ..Plan::default() };
    let commune = Commune::open(&db.store, plan, &display_of, Policy::default()).await?;
    let app = &commune.gate.office.app;
    let operator = || Ctx::local_admin(app.clock.now());
    // 85 % of 2 Mbit/s, in bytes.
    let budget = 212_500.0;
    sites::set_line(app, &operator(), SITE, Some(2_000)).await?;

    let mut all = vec![at_endpoint(&commune, 0).await?, in_browser(&commune, 1).await?];
    for sessions in [2, 5] {
        for n in all.len()..sessions {
            all.push(if n % 2 == 0 { at_endpoint(&commune, n).await? } else { in_browser(&commune, n).await? });
        }
        let each = rates(&all).await;
        let sum: f64 = each.iter().sum();
        // What wraps the bytes is not counted here, what a quiet line may send at once is.
        ensure!(sum <= budget * 1.1, "{sessions} sessions get {each:?}, together more than {budget}");
        ensure!(sum >= budget * 0.5, "{sessions} sessions get {each:?}, together far less than {budget}");
        let fair = sum / sessions as f64;
        ensure!(each.iter().all(|r| (0.6..1.5).contains(&(r / fair))), "{sessions} sessions do not share: {each:?}");
        for one in &all {
            one.keys.send(()).await?;
            display.until_key().await?;
        }
    }
    // Everybody who sits there feels another rate, and none.
    sites::set_line(app, &operator(), SITE, Some(500)).await?;
    until(&all, "a slower line", |sum| sum <= budget / 4.0 * 1.2).await?;
    sites::set_line(app, &operator(), SITE, None).await?;
    until(&all, "no cap", |sum| sum > budget * 5.0).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_share_a_line_by_the_sessions_each_carries() -> Result<()> {
    for db in db::both().await? {
        let folder = tempfile::tempdir()?;
        let _display = Display::serve(folder.path())?;
        let display_of = format!("picture&displays={}", folder.path().display());
        let plan = Plan { desktops: 4, officers: 4, ..Plan::default() };
        let mut commune = Commune::open(&db.store, plan, &display_of, Policy::default()).await?;
        let second = commune.gate.beside(&db.store).await?;
        let app = commune.gate.office.app.clone();
        let budget = 212_500.0;
        sites::set_line(&app, &Ctx::local_admin(app.clock.now()), SITE, Some(2_000)).await?;

        // One here and one there, then a third here and a fourth there: nobody gets more for being alone at a gateway.
        let mut all = vec![in_browser(&commune, 0).await?];
        for n in 1..4 {
            all.push(if n % 2 == 1 {
                in_browser_at(&commune, n, second).await?
            } else {
                in_browser(&commune, n).await?
            });
            // A newcomer has its site's whole budget until its gateway has looked again.
            until(&all, "together they keep to the line", |sum| sum <= budget * 1.1).await?;
            let each = rates(&all).await;
            let sum: f64 = each.iter().sum();
            ensure!(sum <= budget * 1.1, "{} sessions at two gateways get {each:?}", all.len());
            ensure!(sum >= budget * 0.5, "{} sessions at two gateways get only {each:?}", all.len());
            let fair = sum / all.len() as f64;
            ensure!(each.iter().all(|r| (0.6..1.5).contains(&(r / fair))), "they do not share: {each:?}");
        }
        // Who is left has all of it, wherever they are.
        let last = all.swap_remove(1);
        drop(all);
        until(&[last], "one is left", |sum| (budget * 0.6..=budget * 1.1).contains(&sum)).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn spice_keeps_to_the_line_and_shares_it_and_its_keys_pass() -> Result<()> {
    let db = db::sqlite().await?;
    let folder = tempfile::tempdir()?;
    let display = Display::serve(folder.path())?;
    display.serve_spice(folder.path())?;
    let display_of = format!("picture&displays={}", folder.path().display());
    let plan = Plan { desktops: 3, officers: 3, ..Plan::default() };
    let commune = Commune::open(&db.store, plan, &display_of, Policy::default()).await?;
    let app = &commune.gate.office.app;
    let operator = || Ctx::local_admin(app.clock.now());
    let budget = 212_500.0;
    sites::set_line(app, &operator(), SITE, Some(2_000)).await?;

    // One alone, then two, then one of them beside a browser's pictures.
    let mut all = vec![by_spice(&commune, 0).await?];
    for n in 1..=3 {
        let each = rates(&all).await;
        let sum: f64 = each.iter().sum();
        ensure!(sum <= budget * 1.1, "{} sessions get {each:?}, together more than {budget}", all.len());
        ensure!(sum >= budget * 0.5, "{} sessions get only {each:?}", all.len());
        let fair = sum / all.len() as f64;
        ensure!(each.iter().all(|r| (0.6..1.5).contains(&(r / fair))), "they do not share: {each:?}");
        // Keys are not pictures: they pass while those queue.
        all[0].keys.send(()).await?;
        display.until_spice_key().await?;
        match n {
            1 => all.push(by_spice(&commune, 1).await?),
            2 => all.push(in_browser(&commune, 2).await?),
            _ => {}
        }
    }
    sites::set_line(app, &operator(), SITE, None).await?;
    until(&all, "no cap", |sum| sum > budget * 3.0).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoints_session_is_behind_its_own_line_a_browsers_behind_its_officers() -> Result<()> {
    for db in db::both().await? {
        let folder = tempfile::tempdir()?;
        let _display = Display::serve(folder.path())?;
        let display_of = format!("picture&displays={}", folder.path().display());
        let commune = Commune::open(&db.store, Plan::default(), &display_of, Policy::default()).await?;
        let office = &commune.gate.office;
        let operator = || Ctx::local_admin(office.app.clock.now());
        sites::set_line(&office.app, &operator(), SITE, Some(2_000)).await?;
        // The officer sits at a computer of another commune today.
        let (_, session) = commune.session(0).await?;
        office.sql("INSERT INTO site_lines (site_code, down_kbit, updated_at) VALUES ('00006', 777, 1)").await?;
        office.sql("UPDATE endpoints SET site_code = '00006'").await?;
        let (browser, _viewer) = commune.gate.view(1).await?;
        let store = &office.app.store;
        let mut uses = store.line_uses(uuid::Uuid::nil()).await?;
        uses.sort_by(|a, b| a.site_code.cmp(&b.site_code));
        let told: Vec<_> = uses.iter().map(|u| (u.site_code.as_str(), u.down_kbit, u.sessions, u.ours)).collect();
        ensure!(told == [(SITE, Some(2_000), 1, 0), ("00006", Some(777), 1, 0)], "{uses:?}");
        ensure!(store.line_of(browser).await? == Some((SITE.to_owned(), Some(2_000))));
        ensure!(store.line_of(session.id()).await? == Some(("00006".to_owned(), Some(777))));
        // What a connection measured is what its site uses.
        office.sql(r#"UPDATE sessions SET experience = '{"kbit": 300}'"#).await?;
        ensure!(store.lines().await?.get(SITE).is_some_and(|l| l.used_kbit == 300 && l.down_kbit == Some(2_000)));
        sites::set_line(&office.app, &operator(), SITE, None).await?;
        ensure!(store.lines().await?.get(SITE).is_some_and(|l| l.down_kbit.is_none() && l.sessions == 1));
        session.leave().await;
    }
    Ok(())
}
