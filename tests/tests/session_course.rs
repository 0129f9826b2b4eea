//! What a session felt like is measured and kept, in the browser and at an endpoint, and shown to support.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::io::AsyncWriteExt;
use tram_controller::domain::experience::{Sample, Segment};
use tram_controller::domain::session::{Policy, SessionState};
use tram_controller::services::{Ctx, Error, broker, sites};
use tram_controller::store::samples::Point;
use tram_tests::db;
use tram_tests::endless::KEY;
use tram_tests::office::{Plan, SITE};
use tram_tests::tunnels::{Commune, ask, rectangle, shake_hands};
use tram_wire::ids::SessionId;
use tram_wire::session::Protocol;
use tram_wire::tunnel::Class;

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for the course of a session to have a point like this.
async fn until(commune: &Commune, id: SessionId, what: &str, so: impl Fn(&Point) -> bool) -> Result<Vec<Point>> {
    let until = Instant::now() + PATIENCE;
    loop {
        let points = commune.gate.office.app.store.samples(id).await?;
        if points.iter().any(&so) {
            return Ok(points);
        }
        ensure!(Instant::now() < until, "waited in vain for {what}: {points:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn felt(commune: &Commune, id: SessionId, wanted: &[Segment]) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let row = commune.gate.office.app.store.session(id).await?.expect("a row");
        let felt = row.segments();
        if wanted.iter().all(|w| felt.iter().any(|m| m.segment == *w)) {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{wanted:?} are not all among {felt:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_answered_and_that_is_kept_with_loss_and_the_guests_sign_in() -> Result<()> {
    for db in db::both().await? {
        let commune = Commune::open(&db.store, Plan::default(), "picture", Policy::default()).await?;
        let office = &commune.gate.office;
        let whole =
            [Segment::Ticket, Segment::Display, Segment::Picture, Segment::SignIn, Segment::Reply, Segment::Loss];

        let (id, mut viewer) = commune.gate.view(0).await?;
        viewer.picture(640, 400).await?;
        viewer.send(&[3, 1, 0, 0, 0, 0, 2, 128, 1, 144]).await?;
        viewer.send(&KEY).await?;
        viewer.rectangle().await?;
        let points = until(&commune, id, "a reply", |p| p.sample.reply_ms.is_some()).await?;
        let first = &points[0];
        ensure!(first.epoch == 1 && first.sample.kbit > 0, "{points:?}");
        ensure!(first.sample.lost_permille == Some(0) && first.sample.pictures_min.is_some(), "{points:?}");
        felt(&commune, id, &[Segment::Ticket, Segment::Display, Segment::Picture, Segment::Reply]).await?;
        drop(viewer);
        // The guest's sign-in was seen on the way; gone, it is written down.
        until(&commune, id, "a last point", |p| p.at > first.at).await?;

        // At an endpoint, the same and once more after the line was away: that is another connection.
        let (_, session) = commune.session(1).await?;
        let mut stream = session.stream(Protocol::Vnc, Class::Input, Class::Display)?;
        let size = shake_hands(&mut stream).await?;
        ask(&mut stream, size).await?;
        rectangle(&mut stream).await?;
        stream.write_all(&[3, 1, 0, 0, 0, 0, 2, 128, 1, 144]).await?;
        stream.write_all(&KEY).await?;
        rectangle(&mut stream).await?;
        until(&commune, session.id(), "a reply at the endpoint", |p| p.sample.reply_ms.is_some()).await?;
        commune.cable.cut();
        commune.cable.tried().await;
        commune.cable.mend();
        until(&commune, session.id(), "a resume", |p| p.epoch == 2).await?;
        let course_of = session.id();
        session.leave().await;
        felt(&commune, course_of, &whole[..5]).await?;

        // Support sees it, with the line it is used over; its officer does not.
        let operator = || Ctx::local_admin(office.app.clock.now());
        sites::set_line(&office.app, &operator(), SITE, Some(4_000)).await?;
        let (line, points) = broker::course(&office.app, &operator(), course_of).await?;
        ensure!(line.is_some_and(|l| l.site_code == SITE && l.down_kbit == Some(4_000)));
        ensure!(points.len() >= 2 && points.windows(2).all(|w| w[0].at < w[1].at), "{points:?}");
        let own = broker::course(&office.app, &office.officer(1), course_of).await;
        ensure!(matches!(own, Err(Error::Forbidden(..))), "{own:?}");
        let unknown = broker::course(&office.app, &operator(), SessionId(uuid::Uuid::now_v7())).await;
        ensure!(matches!(unknown, Err(Error::NotFound("S-404", _))), "{unknown:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_hour_of_a_course_is_kept_and_a_week_after_it() -> Result<()> {
    for db in db::both().await? {
        let commune = Commune::open(&db.store, Plan::default(), "picture", Policy::default()).await?;
        let office = &commune.gate.office;
        let (id, _) = commune.gate.ticket(0).await?;
        let (start, minute) = (office.app.clock.now(), Duration::from_secs(60));
        let kept = 60 * minute;
        for n in 0..100_u32 {
            let mut tx = db.store.begin().await?;
            let sample = Sample { rtt_ms: Some(n.into()), ..Sample::default() };
            tx.put_sample(id, 1, &sample, start.plus(minute * n), kept).await?;
            // Two that tell at once are one point.
            tx.put_sample(id, 1, &Sample::default(), start.plus(minute * n), kept).await?;
            tx.commit().await?;
        }
        let points = db.store.samples(id).await?;
        ensure!(points.len() == 61 && points[0].sample.rtt_ms == Some(39), "{}: {:?}", points.len(), points[0]);
        let mut tx = db.store.begin().await?;
        ensure!(tx.forget_samples(start.plus(minute * 50)).await? == 11);
        tx.commit().await?;
        ensure!(office.app.store.session(id).await?.is_some_and(|s| s.state != SessionState::Ended));
    }
    Ok(())
}
