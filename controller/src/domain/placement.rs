//! On which host a new desktop goes.

use tram_wire::ids::HostId;

/// What a host still has room for.
#[derive(Clone, Debug)]
pub struct Room {
    /// Which host.
    pub host: HostId,
    /// It is up and not drained.
    pub usable: bool,
    /// Memory in MiB that running desktops may use in all.
    pub memory_mib: i64,
    /// Memory in MiB already promised to desktops that should run there.
    pub promised_mib: i64,
    /// Free disk in MiB.
    pub disk_free_mib: i64,
    /// Desktops already placed there.
    pub desktops: i64,
}

/// What a desktop needs.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// Memory in MiB while it runs; 0 if it shall not run.
    pub memory_mib: i64,
}

/// Why no host fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// No host is up and enabled.
    NoHost,
    /// None has that much memory left.
    Memory,
    /// None has disk left.
    Disk,
}

/// Disk in MiB that must stay free on a host: an overlay starts small and grows.
pub const DISK_RESERVE_MIB: i64 = 1024;

/// Memory in MiB a host keeps for itself.
pub const HOST_RESERVE_MIB: i64 = 1024;

/// Picks the host with the most unpromised memory, then the fewest desktops.
///
/// # Errors
/// [`NoRoom`] when none fits: the most advanced reason any host reached.
pub fn choose(rooms: &[Room], need: Need) -> Result<HostId, NoRoom> {
    let usable: Vec<&Room> = rooms.iter().filter(|r| r.usable).collect();
    if usable.is_empty() {
        return Err(NoRoom::NoHost);
    }
    let with_disk: Vec<&Room> = usable.into_iter().filter(|r| r.disk_free_mib >= DISK_RESERVE_MIB).collect();
    if with_disk.is_empty() {
        return Err(NoRoom::Disk);
    }
    with_disk
        .into_iter()
        .filter(|r| need.memory_mib == 0 || left(r) >= need.memory_mib)
        .max_by_key(|r| (left(r), -r.desktops, std::cmp::Reverse(r.host)))
        .map(|r| r.host)
        .ok_or(NoRoom::Memory)
}

fn left(r: &Room) -> i64 {
    r.memory_mib - HOST_RESERVE_MIB - r.promised_mib
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn room(n: u128, memory: i64, promised: i64) -> Room {
        Room {
            host: HostId(Uuid::from_u128(n)),
            usable: true,
            memory_mib: memory,
            promised_mib: promised,
            disk_free_mib: 50_000,
            desktops: 0,
        }
    }

    #[test]
    fn the_emptiest_host_that_fits_is_chosen() {
        let rooms = [room(1, 8192, 4096), room(2, 8192, 1024), room(3, 2048, 0)];
        assert_eq!(choose(&rooms, Need { memory_mib: 2048 }).unwrap(), HostId(Uuid::from_u128(2)));
    }

    #[test]
    fn each_lack_is_named() {
        assert_eq!(choose(&[], Need { memory_mib: 1 }), Err(NoRoom::NoHost));
        let mut full = room(1, 4096, 3000);
        assert_eq!(choose(&[full.clone()], Need { memory_mib: 2048 }), Err(NoRoom::Memory));
        // A desktop that shall not run needs no memory.
        assert!(choose(&[full.clone()], Need { memory_mib: 0 }).is_ok());
        full.disk_free_mib = 10;
        assert_eq!(choose(&[full.clone()], Need { memory_mib: 0 }), Err(NoRoom::Disk));
        full.usable = false;
        assert_eq!(choose(&[full], Need { memory_mib: 0 }), Err(NoRoom::NoHost));
    }
}
