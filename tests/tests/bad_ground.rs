//! What a whole controller says and does when the ground gives way: no room on the disk, a data folder it may
//! not write, a port that is taken, a database of a newer version, a second controller on the same file.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::json;
use tram_tests::device::Console;
use tram_tests::world::World;

/// A file system of its own over the data folder; unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn over(folder: &Path, size: &str) -> Result<Self> {
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size},mode=755"), "tmpfs"]).arg(folder))?;
        Ok(Self(folder.to_owned()))
    }

    fn again(&self, options: &str) -> Result<()> {
        run(Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a server that is about to be killed may still have its database open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn run(command: &mut Command) -> Result<()> {
    let out = command.output()?;
    ensure!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

fn may_mount() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped, not root: file systems that are full or read-only");
    }
    root
}

#[test]
fn a_full_disk_is_said_nothing_is_half_done_and_room_mends_it() -> Result<()> {
    if !may_mount() {
        return Ok(());
    }
    let folder = tempfile::Builder::new().prefix("tram-ground-").tempdir_in("/var/tmp")?;
    let _mount = Mounted::over(folder.path(), "24m")?;
    let mut world = World::at(folder.path())?;
    world.start()?;
    let console = Console::sign_in(&world, "operator")?;
    let filler = world.path().join("filler");
    // All the room there is, in one go; what SQLite already has allocated is used up by the requests.
    let _ = Command::new("dd").args(["if=/dev/zero", "bs=4k"]).arg(format!("of={}", filler.display())).output()?;

    let user = |n: usize| {
        let name = format!("support{n:03}");
        json!({"username": name, "display_name": "x".repeat(60), "role": "support", "password": "tàu điện leng keng"})
    };
    let mut made = 0;
    let refusal = loop {
        ensure!(made < 400, "the disk never was full");
        let (status, answer) = console.post("/api/v1/users", &user(made))?;
        match status {
            201 => made += 1,
            _ => break (status, answer),
        }
    };
    assert_eq!((refusal.0, &refusal.1["code"]), (503, &json!("X-503")), "{refusal:?}");
    // Not only the first one: the next must not stumble over what the first left behind.
    let (status, answer) = console.post("/api/v1/users", &user(made))?;
    assert_eq!((status, &answer["code"]), (503, &json!("X-503")), "{answer}");
    let count = |console: &Console| -> Result<Option<usize>> {
        let (status, list) = console.get("/api/v1/users?limit=1000")?;
        ensure!(status == 200, "reading still works: {status} {list}");
        Ok(list["items"].as_array().map(Vec::len))
    };
    assert_eq!(count(&console)?, Some(made + 1), "the refused account is not there, the others are");

    std::fs::remove_file(&filler)?;
    let (status, answer) = console.post("/api/v1/users", &user(made))?;
    assert_eq!(status, 201, "room is back: {answer}\n{}", world.log());
    world.kill9()?;
    world.start()?;
    assert_eq!(count(&console)?, Some(made + 2), "and all of it lasts");
    Ok(())
}

#[test]
fn a_data_folder_that_turns_read_only_is_said() -> Result<()> {
    if !may_mount() {
        return Ok(());
    }
    let folder = tempfile::Builder::new().prefix("tram-ground-").tempdir_in("/var/tmp")?;
    let mount = Mounted::over(folder.path(), "64m")?;
    let mut world = World::at(folder.path())?;
    mount.again("ro")?;
    let said = world.cannot_start()?;
    assert!(said.contains(&folder.path().display().to_string()), "{said}");
    assert!(said.contains("can't be used") && said.contains("Read-only file system"), "{said}");
    mount.again("rw")?;
    world.start()?;
    Ok(())
}

#[test]
fn a_port_that_is_taken_is_named() -> Result<()> {
    let mut world = World::new()?;
    for (address, key) in [(world.web, "server.listen"), (world.agents, "server.agent_listen")] {
        let other = TcpListener::bind(address)?;
        let said = world.cannot_start()?;
        assert!(said.contains(&address.to_string()) && said.contains(key), "{said}");
        drop(other);
    }
    world.start()
}

#[test]
fn a_second_controller_on_the_same_file_is_sent_away() -> Result<()> {
    let mut world = World::new()?;
    world.start()?;
    let first = world.server_pid()?;
    let said = world.twin()?.cannot_start()?;
    assert!(said.contains("another tram-controller") && said.contains(&first.to_string()), "{said}");
    assert!(said.contains("PostgreSQL"), "what to do instead: {said}");
    assert!(world.cli(&["status"]).is_ok(), "the first one serves on");
    // The kernel lets go of the lock whatever way the first one ends.
    let mut second = world.twin()?;
    world.kill9()?;
    second.start()
}

#[test]
fn a_database_of_a_newer_version_is_left_alone() -> Result<()> {
    let mut world = World::new()?;
    let file = world.path().join("tram.db");
    let insert = "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, execution_time) \
                  VALUES (9999, 'from tomorrow', CURRENT_TIMESTAMP, TRUE, x'00', 0)";
    run(Command::new("python3")
        .args(["-c", "import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); c.commit()"])
        .arg(&file)
        .arg(insert))?;
    let before = std::fs::read(&file)?;
    let said = world.cannot_start()?;
    assert!(said.contains("newer version of Tram") && said.contains("9999"), "{said}");
    let refused = world.cli(&["status"]).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(refused.contains("newer version of Tram"), "{refused}");
    assert!(std::fs::read(&file)? == before, "not a byte of it was changed");
    Ok(())
}
