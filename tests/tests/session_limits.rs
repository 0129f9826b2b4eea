//! What a session's policy forbids does not reach the desktop, and pictures keep to its bandwidth, in the browser and at
//! an endpoint.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tram_controller::domain::session::Policy;
use tram_tests::db;
use tram_tests::endless::{Display, KEY};
use tram_tests::office::Plan;
use tram_tests::tunnels::{Commune, shake_hands};
use tram_wire::session::Protocol;
use tram_wire::tunnel::Class;

const CLIPBOARD: [u8; 4] = 0xc0a1_e5ce_u32.to_be_bytes();
const SOUND: [u8; 4] = (-259_i32).to_be_bytes();

fn said() -> Vec<u8> {
    let encodings = [&[2, 0, 0, 3][..], &CLIPBOARD, &SOUND, &[0; 4]].concat();
    let text = [&[6, 0, 0, 0, 0, 0, 0, 5][..], b"hello"].concat();
    let rich_text = [&[6, 0, 0, 0, 255, 255, 255, 250][..], b"extend"].concat();
    [&encodings[..], &text, &rich_text, &[255, 1, 0, 0], &KEY].concat()
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|w| w == part)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clipboard_and_sound_stay_out_where_policy_says_so() -> Result<()> {
    for db in db::both().await? {
        let folder = tempfile::tempdir()?;
        let display = Display::serve(folder.path())?;
        let display_of = format!("picture&displays={}", folder.path().display());
        let plan = Plan { desktops: 4, officers: 4, ..Plan::default() };
        let commune = Commune::open(&db.store, plan, &display_of, Policy::default()).await?;
        for (n, policy, clipboard, sound) in [
            (0, r#"{}"#, true, true),
            (1, r#"{"clipboard": false}"#, false, true),
            (2, r#"{"audio": false}"#, true, false),
            (3, r#"{"audio": false, "clipboard": false}"#, false, false),
        ] {
            commune.gate.office.sql(&format!("UPDATE pools SET policy = '{policy}'")).await?;
            // At an endpoint, then in the browser: the session keeps the policy it began with.
            let (_, session) = commune.session(n).await?;
            let mut stream = session.stream(Protocol::Vnc, Class::Input, Class::Display)?;
            shake_hands(&mut stream).await?;
            stream.write_all(&said()).await?;
            let at_endpoint = display.until_key().await?;
            session.leave().await;
            commune.gate.office.sql("UPDATE pools SET policy = '{}'").await?;
            let (_, mut viewer) = commune.gate.view(n).await?;
            viewer.send(&said()).await?;
            let in_browser = display.until_key().await?;
            for (place, heard) in [("endpoint", at_endpoint), ("browser", in_browser)] {
                let context = format!("{place}, {policy}: {heard:?}");
                ensure!(holds(&heard, b"hello") == clipboard && holds(&heard, b"extend") == clipboard, "{context}");
                ensure!(holds(&heard, &CLIPBOARD) == clipboard, "{context}");
                ensure!(holds(&heard, &[255, 1, 0, 0]) == sound && holds(&heard, &SOUND) == sound, "{context}");
            }
        }
    }
    Ok(())
}

/// Only the lower bound is looked at: a slow machine makes it longer, never shorter.
#[tokio::test(flavor = "multi_thread")]
async fn pictures_keep_to_the_bandwidth_and_keys_do_not_wait_for_them() -> Result<()> {
    let db = db::sqlite().await?;
    let folder = tempfile::tempdir()?;
    let display = Display::serve(folder.path())?;
    let display_of = format!("picture&displays={}", folder.path().display());
    let commune = Commune::open(&db.store, Plan::default(), &display_of, Policy::default()).await?;
    commune.gate.office.sql(r#"UPDATE pools SET policy = '{"kbit": 256}'"#).await?;
    // 256 kbit/s are 32 kB/s; 8 kB may come at once.
    let (wanted, least) = (72 * 1024, Duration::from_millis(1900));

    let (_, session) = commune.session(0).await?;
    let mut stream = session.stream(Protocol::Vnc, Class::Input, Class::Display)?;
    shake_hands(&mut stream).await?;
    let began = Instant::now();
    stream.read_exact(&mut vec![0; wanted]).await?;
    ensure!(began.elapsed() >= least, "at the endpoint: {:?}", began.elapsed());
    stream.write_all(&KEY).await?;
    display.until_key().await?;
    session.leave().await;

    // Until the gateway has noticed that, the session is open at another place.
    let until = Instant::now() + Duration::from_secs(60);
    let mut viewer = loop {
        match commune.gate.view(0).await.context("in the browser") {
            Ok((_, viewer)) => break viewer,
            Err(e) if Instant::now() > until => return Err(e),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let began = Instant::now();
    viewer.read(wanted).await?;
    ensure!(began.elapsed() >= least, "in the browser: {:?}", began.elapsed());
    viewer.send(&KEY).await?;
    display.until_key().await?;
    Ok(())
}
