//! `kill -9` of the controller at many points of making, resizing and removing 20 desktops on a
//! simulated host: afterwards there are exactly the desktops that were asked for, nothing is left over,
//! and what belongs to others is as it was.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tram_hypervisor::sim::{Item, Sim};
use tram_hypervisor::{AccelPolicy, DesktopId, InstallationId, OpenOptions, Owner, Power};
use tram_tests::world::World;
use uuid::Uuid;

const FOREIGN: DesktopId = DesktopId(Uuid::from_u128(7));

/// The simulated host as somebody else would see it.
fn peek(state: &Path) -> Result<Sim> {
    let owner = Owner { installation: InstallationId(Uuid::nil()), image_dir: "/".into(), disk_dir: "/".into() };
    let options = OpenOptions { owner, accel: AccelPolicy::Auto, deadline: Duration::from_secs(5), tls: None };
    Ok(Sim::open(&format!("sim:///sim?state={}", state.display()), options)?)
}

/// Exactly the desktops of the database are on the host, each whole, and the foreign one is untouched.
fn assert_exact(world: &World, state: &Path, foreign: &Item) -> Result<()> {
    let rows: BTreeSet<String> = world.desktops()?.into_iter().map(|(id, _)| id).collect();
    let (others, ours): (Vec<Item>, Vec<Item>) = peek(state)?.everything().into_iter().partition(|i| i.id == FOREIGN);
    ensure!(others == [foreign.clone()], "what belongs to others was touched: {others:?}");
    let found: BTreeSet<String> = ours.iter().map(|i| i.id.to_string()).collect();
    ensure!(
        found == rows,
        "on the host but not in the database: {:?}; the other way round: {:?}",
        found.difference(&rows).collect::<Vec<_>>(),
        rows.difference(&found).collect::<Vec<_>>()
    );
    for i in ours {
        ensure!(i.disk.as_ref().is_some_and(|d| d.complete), "half a disk: {i:?}");
        ensure!(i.domain.as_ref().is_some_and(|d| d.power == Power::Running), "not running: {i:?}");
    }
    Ok(())
}

fn prepare() -> Result<(World, std::path::PathBuf, Item)> {
    let world = World::new()?;
    world.small_image()?;
    let state = world.sim_host("&boot_ms=30")?;
    let sim = peek(&state)?;
    sim.add_foreign(FOREIGN, "somebody-elses")?;
    let foreign = sim.everything().into_iter().next().context("foreign")?;
    Ok((world, state, foreign))
}

fn create(world: &World, size: &str) -> Result<String> {
    world.cli(&[
        "admin",
        "pool",
        "create",
        "--name",
        "p",
        "--site",
        "00004",
        "--image",
        "small",
        "--memory-mib",
        "128",
        "--size",
        size,
    ])
}

/// Kills at the `n`-th point of what the running change makes the host do, restarts, and returns whether
/// that point was reached at all.
fn killed_at(world: &mut World, n: u64) -> Result<bool> {
    world.start_with(&[("TRAM_SIM_KILL_AT", &n.to_string())])?;
    let reached = world.ended_within(Duration::from_secs(8))?;
    if !reached {
        world.kill9()?;
    }
    world.start()?;
    Ok(reached)
}

#[test]
fn twenty_desktops_are_made_whatever_the_moment_of_the_kill() -> Result<()> {
    let mut reached = 0;
    for n in [1, 2, 3, 5, 8, 13, 21, 30, 41, 55, 72, 90] {
        let (mut world, state, foreign) = prepare()?;
        create(&world, "20")?;
        reached += u32::from(killed_at(&mut world, n)?);
        world.settled(20, "running").with_context(|| format!("killed at point {n}"))?;
        assert_exact(&world, &state, &foreign).with_context(|| format!("killed at point {n}"))?;
    }
    ensure!(reached >= 10, "only {reached} of 12 kill points were reached: the test tests too little");
    Ok(())
}

#[test]
fn shrinking_and_removing_leave_nothing_behind_whatever_the_moment_of_the_kill() -> Result<()> {
    let (mut world, state, foreign) = prepare()?;
    create(&world, "20")?;
    world.start()?;
    world.settled(20, "running")?;
    let mut reached = 0;
    for (n, size) in [(1, "15"), (3, "20"), (6, "8"), (9, "20"), (17, "2")] {
        world.stop()?;
        world.cli(&["admin", "pool", "resize", "p", size])?;
        reached += u32::from(killed_at(&mut world, n)?);
        world.settled(size.parse()?, "running").with_context(|| format!("to {size}, killed at {n}"))?;
        assert_exact(&world, &state, &foreign).with_context(|| format!("to {size}, killed at {n}"))?;
    }
    world.stop()?;
    world.cli(&["admin", "pool", "delete", "p"])?;
    killed_at(&mut world, 2)?;
    world.settled(0, "")?;
    assert_exact(&world, &state, &foreign)?;
    world.until("the pool's row is gone", |w| {
        Ok(w.json(&["admin", "pool", "list", "--json"])? == serde_json::json!([]))
    })?;
    ensure!(reached >= 4, "only {reached} of 5 kill points were reached");
    Ok(())
}

#[test]
fn a_host_that_refuses_every_seventh_call_still_ends_exact() -> Result<()> {
    let world = World::new()?;
    world.small_image()?;
    let state = world.sim_host("&boot_ms=30&fail_every=7")?;
    let sim = peek(&state)?;
    sim.add_foreign(FOREIGN, "somebody-elses")?;
    let foreign = sim.everything().into_iter().next().context("foreign")?;
    let mut world = world;
    world.start()?;
    create(&world, "20")?;
    world.settled(20, "running")?;
    assert_exact(&world, &state, &foreign)
}

#[test]
fn a_host_switched_off_in_the_middle_is_waited_for() -> Result<()> {
    let (mut world, state, foreign) = prepare()?;
    world.start()?;
    create(&world, "20")?;
    std::fs::write(state.join("offline"), "")?;
    world
        .until("the host is seen to be down", |w| Ok(w.json(&["status", "--json"])?["hosts"][0]["state"] == "down"))?;
    std::fs::remove_file(state.join("offline"))?;
    world.settled(20, "running")?;
    assert_exact(&world, &state, &foreign)
}

#[test]
fn a_second_server_on_the_same_file_is_refused_and_the_first_goes_on() -> Result<()> {
    let (mut world, _, _) = prepare()?;
    world.start()?;
    let refused = world.cli(&["server"]).unwrap_err().to_string();
    ensure!(refused.contains("already serves this SQLite database"), "{refused}");
    world.cli(&["status"])?;
    world.stop()
}

#[test]
fn a_desktop_of_ours_the_database_never_heard_of_is_reported_and_left_alone() -> Result<()> {
    // As after restoring an older backup: destroying it would destroy somebody's work.
    let (mut world, state, _) = prepare()?;
    create(&world, "3")?;
    world.start()?;
    world.settled(3, "running")?;
    world.stop()?;
    ensure!(lose_a_row(&world)? == 1, "the row to lose was not found");
    let before = peek(&state)?.everything();
    world.start()?;
    world.until("it is counted", |w| Ok(w.json(&["status", "--json"])?["hosts"][0]["unknown_desktops"] == 1))?;
    // Its successor can't have the same domain name: that is said, not solved by force.
    world.until("the clash is told", |w| Ok(w.cli(&["admin", "desktop", "list"])?.contains("is named p-0")))?;
    let after = peek(&state)?.everything();
    ensure!(before.iter().all(|b| after.iter().any(|a| a.id == b.id && a.domain.is_some())), "it was destroyed");
    Ok(())
}

/// Loses one desktop's row, as a restored backup would.
fn lose_a_row(world: &World) -> Result<u64> {
    let url = format!("sqlite://{}", world.path().join("tram.db").display());
    tokio::runtime::Runtime::new()?.block_on(async {
        let pool = sqlx::SqlitePool::connect(&url).await?;
        let sql = "DELETE FROM desktops WHERE id IN (SELECT id FROM desktops LIMIT 1)";
        let gone = sqlx::query(sql).execute(&pool).await?.rows_affected();
        pool.close().await;
        Ok(gone)
    })
}
