//! A libvirtd of the tests' own, which they may kill and freeze, and small helpers.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod pki;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;
use tram_hypervisor::{
    AccelPolicy, DesktopId, DesktopSpec, Found, GuestProfile, HostEvent, Hypervisor, InstallationId, Observed,
    OpenOptions, Owner,
};
use uuid::Uuid;

/// libvirtd with folders of its own. As root it runs the system driver in a mount namespace, so that the
/// machine's own libvirt, running or not, is not seen and not touched; as a user it is a session daemon.
pub struct Daemon {
    folder: TempDir,
    child: Child,
}

const QEMU_CONF: &str = "user = \"root\"\ngroup = \"root\"\nsecurity_driver = \"none\"\nnamespaces = []\ncgroup_controllers = []\nstdio_handler = \"file\"\nremember_owner = 0\n";
const LIBVIRTD_CONF: &str = "auth_unix_rw = \"none\"\nunix_sock_rw_perms = \"0700\"\n";
/// Everything libvirtd writes lies under these; /run/libvirt may not exist yet. Where process 1 is no real
/// init, tini buries what libvirt leaves to it: libvirt waits for that.
const PRIVATE: &str = r#"set -e
mkdir -p /run/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt /etc/libvirt
mount --bind "$1/run" /run/libvirt
mount --bind "$1/lib" /var/lib/libvirt
mount --bind "$1/cache" /var/cache/libvirt
mount --bind "$1/log" /var/log/libvirt
mount --bind "$1/etc" /etc/libvirt
reaper=
command -v tini >/dev/null && [ ! -d /run/systemd/system ] && reaper="tini -s --"
exec $reaper libvirtd -f /etc/libvirt/libvirtd.conf -p "$1/pid" -t 7200"#;

impl Daemon {
    pub fn start() -> Self {
        // A short path: a socket's may have 107 bytes.
        let folder = tempfile::Builder::new().prefix("tv").tempdir_in("/tmp").unwrap();
        for part in ["run", "lib", "cache", "log", "etc"] {
            fs::create_dir(folder.path().join(part)).unwrap();
        }
        fs::write(folder.path().join("etc/qemu.conf"), QEMU_CONF).unwrap();
        fs::write(folder.path().join("etc/libvirtd.conf"), LIBVIRTD_CONF).unwrap();
        let child = Self::spawn(folder.path());
        let daemon = Self { folder, child };
        daemon.wait();
        daemon
    }

    fn spawn(folder: &Path) -> Child {
        let mut command = if geteuid().is_root() {
            let mut c = Command::new("unshare");
            c.args(["-m", "--propagation", "private", "sh", "-c", PRIVATE, "sh"]).arg(folder);
            c
        } else {
            let mut c = Command::new("libvirtd");
            c.args(["-t", "7200", "-p"]).arg(folder.join("pid"));
            c.env("XDG_RUNTIME_DIR", folder.join("run")).env("XDG_CONFIG_HOME", folder.join("etc"));
            c.env("XDG_CACHE_HOME", folder.join("cache"));
            c
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("libvirtd (package libvirt-daemon) is needed")
    }

    fn socket(&self) -> PathBuf {
        let run = self.folder.path().join("run");
        if geteuid().is_root() { run.join("libvirt-sock") } else { run.join("libvirt/libvirt-sock") }
    }

    fn wait(&self) {
        let until = Instant::now() + Duration::from_secs(60);
        while !self.virsh_on("test+unix:///default", &["version"]).0 {
            assert!(Instant::now() < until, "libvirtd did not come up; see {}", self.folder.path().display());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn uri(&self, base: &str) -> String {
        format!("{base}?socket={}", self.socket().display())
    }

    pub fn test_uri(&self) -> String {
        self.uri("test+unix:///default")
    }

    pub fn qemu_uri(&self) -> String {
        self.uri(if geteuid().is_root() { "qemu+unix:///system" } else { "qemu+unix:///session" })
    }

    fn virsh_on(&self, base: &str, args: &[&str]) -> (bool, String) {
        let uri = self.uri(base);
        // -k0: no keep-alive of virsh's own; a test stops the daemon on purpose.
        let out = Command::new("virsh").args(["-q", "-c", &uri]).args(args).output().expect("virsh is needed");
        (
            out.status.success(),
            String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr),
        )
    }

    /// virsh on the QEMU driver; panics when it fails.
    pub fn qemu(&self, args: &[&str]) -> String {
        let base = if geteuid().is_root() { "qemu+unix:///system" } else { "qemu+unix:///session" };
        let (ok, text) = self.virsh_on(base, args);
        assert!(ok, "virsh {args:?}: {text}");
        text
    }

    pub fn test_driver(&self, args: &[&str]) -> String {
        let (ok, text) = self.virsh_on("test+unix:///default", args);
        assert!(ok, "virsh {args:?}: {text}");
        text
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// libvirtd itself: our child, or tini's.
    fn pid(&self) -> Pid {
        let written = fs::read_to_string(self.folder.path().join("pid")).expect("libvirtd wrote its pid file");
        Pid::from_raw(written.trim().parse().expect("a pid file holds a number"))
    }

    pub fn kill9(&mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().unwrap();
    }

    pub fn restart(&mut self) {
        // Not to be taken for the new one's.
        let _ = fs::remove_file(self.folder.path().join("pid"));
        self.child = Self::spawn(self.folder.path());
        self.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = kill(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
        // Guests outlive libvirtd. Their pid files lie in our own folder, so these are ours alone.
        for run in ["run/qemu", "run/libvirt/qemu/run"] {
            let Ok(files) = fs::read_dir(self.folder.path().join(run)) else { continue };
            for path in files.flatten().map(|f| f.path()).filter(|p| p.extension().is_some_and(|e| e == "pid")) {
                let pid = fs::read_to_string(&path).ok().and_then(|t| t.trim().parse::<i32>().ok());
                let is_guest = |pid: &i32| {
                    fs::read(format!("/proc/{pid}/cmdline"))
                        .is_ok_and(|c| String::from_utf8_lossy(&c).contains("qemu-system"))
                };
                if let Some(pid) = pid.filter(is_guest) {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
        }
    }
}

/// Folders of one installation.
pub struct Place {
    pub folder: TempDir,
    pub owner: Owner,
}

impl Place {
    pub fn new() -> Self {
        // Not below a home folder: QEMU's user may not be ours.
        let folder = tempfile::Builder::new().prefix("tram-hv").tempdir_in("/var/tmp").unwrap();
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let owner = Owner {
            installation: InstallationId(Uuid::now_v7()),
            image_dir: folder.path().join("images"),
            disk_dir: folder.path().join("disks"),
        };
        fs::create_dir(&owner.image_dir).unwrap();
        let place = Self { folder, owner };
        place.golden("small.qcow2", "64M");
        place
    }

    pub fn golden(&self, name: &str, size: &str) -> PathBuf {
        let path = self.owner.image_dir.join(name);
        let made = Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&path).arg(size).status();
        assert!(made.expect("qemu-img is needed").success());
        path
    }

    pub fn options(&self, deadline: Duration) -> OpenOptions {
        OpenOptions { owner: self.owner.clone(), accel: AccelPolicy::Auto, deadline, tls: None }
    }
}

pub fn spec(name: &str) -> DesktopSpec {
    DesktopSpec {
        id: DesktopId(Uuid::now_v7()),
        name: name.into(),
        image_file: "small.qcow2".into(),
        vcpus: 1,
        memory_mib: 32,
        disk_gib: None,
        generation: 1,
        guest: GuestProfile::default(),
    }
}

pub async fn sees(hv: &Arc<dyn Hypervisor>, id: DesktopId) -> Observed {
    hv.observe(id).await.unwrap()
}

pub async fn found(hv: &Arc<dyn Hypervisor>) -> Vec<Found> {
    let mut all = hv.inventory().await.unwrap();
    all.sort_by_key(|f| f.id);
    all
}

/// Asks until it is so; `what` names it when it never is.
pub async fn until(what: &str, limit: Duration, mut ask: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + limit;
    while !ask().await {
        assert!(Instant::now() < end, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits for an event that satisfies `want`.
pub async fn event(
    events: &mut tokio::sync::broadcast::Receiver<HostEvent>,
    limit: Duration,
    want: impl Fn(&HostEvent) -> bool,
) -> HostEvent {
    let wait = async {
        loop {
            match events.recv().await {
                Ok(e) if want(&e) => return e,
                Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(e) => panic!("no more events: {e}"),
            }
        }
    };
    tokio::time::timeout(limit, wait).await.expect("the event did not come in time")
}
