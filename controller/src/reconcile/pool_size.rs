//! Makes as many desktop rows as each pool wants, places them on hosts, and forgets pools that are gone.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Result;
use tram_wire::ids::{DesktopId, PoolId};
use uuid::Uuid;

use super::World;
use super::driver::Reconciler;
use crate::domain::placement::{self, Need, NoRoom, Room};
use crate::domain::pool::{self, Change, DesiredPool};
use crate::nudge::Kind;
use crate::store::pools::Pool;

/// Desktops taken from hosts that are being emptied, before the next ones wait for their replacements.
const MOVED_AT_ONCE: i64 = 4;

/// The reconciler.
pub struct PoolSize;

impl Reconciler for PoolSize {
    const NAME: &'static str = "pool_size";
    const KIND: Kind = Kind::Pool;
    const PERIOD: Duration = Duration::from_secs(5);

    async fn pass(&mut self, world: &World) -> Result<()> {
        pass(world).await
    }
}

/// One look at all pools.
///
/// # Errors
/// The database's; whatever was not reached is reached by the next pass.
pub async fn pass(world: &World) -> Result<()> {
    let mut more = false;
    drain(world).await?;
    for pool in world.app.store.pools().await? {
        more |= resize(world, &pool).await?;
    }
    place(world).await?;
    if more {
        world.app.store.bus().nudge(Kind::Pool);
    }
    Ok(())
}

/// Takes a few desktops from hosts that are being emptied; their pools make them anew elsewhere.
async fn drain(world: &World) -> Result<()> {
    let mut tx = world.app.store.begin().await?;
    let ids = tx.to_move_away(MOVED_AT_ONCE).await?;
    if !ids.is_empty() {
        tx.drop_desktops(&ids, world.app.clock.now()).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Plans one pool and applies the plan in one transaction. `true` if more is left than one surge.
async fn resize(world: &World, pool: &Pool) -> Result<bool> {
    let now = world.app.clock.now();
    let mut tx = world.app.store.begin().await?;
    let Some((size, members)) = tx.pool_members(pool.id).await? else { return Ok(false) };
    let steps = pool::plan(size, &members);
    if steps.is_empty() {
        if pool.desired == DesiredPool::Absent && members.is_empty() && tx.forget_pool(pool.id).await? {
            tx.commit().await?;
        }
        return Ok(false);
    }
    let mut add = Vec::new();
    let mut remove = Vec::new();
    for step in &steps {
        match step {
            Change::Add(n) => add.push((DesktopId(Uuid::now_v7()), *n, pool::desktop_name(&pool.name, *n))),
            Change::Remove(id) => remove.push(*id),
        }
    }
    tx.add_desktops(pool, &add, now).await?;
    tx.drop_desktops(&remove, now).await?;
    tx.touch(Kind::Pool, pool.id.0);
    tx.commit().await?;
    Ok(steps.len() >= pool::SURGE)
}

/// Gives every desktop without a host one, and says on it and on its pool when there is no room.
async fn place(world: &World) -> Result<()> {
    let mut rooms = world.app.store.rooms().await?;
    let now = world.app.clock.now();
    let mut tx = world.app.store.begin().await?;
    let waiting = tx.unplaced().await?;
    let mut problems: HashMap<PoolId, NoRoom> = HashMap::new();
    for d in &waiting {
        match placement::choose(&rooms, Need { memory_mib: d.memory_mib }) {
            Ok(host) => {
                tx.place(d.id, host, now).await?;
                if let Some(r) = rooms.iter_mut().find(|r| r.host == host) {
                    promise(r, d.memory_mib);
                }
            }
            Err(why) => {
                // On the desktop, too: that is what the one who asked for it looks at.
                tx.desktop_without_room(d.id, words(why)).await?;
                problems.insert(d.pool, why);
            }
        }
    }
    for pool in world.app.store.pools().await? {
        tx.pool_problem(pool.id, problems.get(&pool.id).map(|w| words(*w))).await?;
    }
    tx.commit().await?;
    Ok(())
}

fn promise(room: &mut Room, memory_mib: i64) {
    room.promised_mib += memory_mib;
    room.desktops += 1;
}

fn words(why: NoRoom) -> (&'static str, &'static str) {
    match why {
        NoRoom::NoHost => ("P-301", "no host is up; look at the hosts page"),
        NoRoom::Memory => {
            ("P-302", "no host has enough memory left for another running desktop; add a host or make the pool smaller")
        }
        NoRoom::Disk => ("P-303", "no host has enough disk left; free some or add a host"),
    }
}
