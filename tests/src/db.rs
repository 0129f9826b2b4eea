//! A fresh database of each kind for a test.
//!
//! PostgreSQL is the real server: one cluster per test process, made by `initdb` in a temporary folder,
//! one database per test. It ends with the process, and its folder goes then, however the process ended.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tram_controller::nudge::Bus;
use tram_controller::store::{Db, Store};

/// A migrated database, gone when dropped.
pub struct TestDb {
    /// The store on it.
    pub store: Store,
    /// Its URL, for a second process.
    pub url: String,
    _folder: Option<TempDir>,
}

/// SQLite in a temporary folder.
///
/// # Errors
/// If it can't be made.
pub async fn sqlite() -> Result<TestDb> {
    let folder = tempfile::tempdir()?;
    let url = format!("sqlite://{}", folder.path().join("tram.db").display());
    let store = Store::open(&url, Bus::default()).await?;
    store.migrate().await?;
    Ok(TestDb { store, url, _folder: Some(folder) })
}

/// A fresh database on this process's own PostgreSQL.
///
/// # Errors
/// If PostgreSQL is not installed or does not start.
pub async fn postgres() -> Result<TestDb> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let cluster = tokio::task::spawn_blocking(cluster).await??;
    let name = format!("t{}", NEXT.fetch_add(1, Ordering::SeqCst));
    let admin = sqlx::PgPool::connect(&cluster_url(cluster, "postgres")).await?;
    sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&admin).await?;
    admin.close().await;
    let url = cluster_url(cluster, &name);
    let store = Store::open(&url, Bus::default()).await?;
    store.migrate().await?;
    Ok(TestDb { store, url, _folder: None })
}

/// One of each, with its name: `for db in db::both().await? { … }`.
///
/// # Errors
/// If either can't be made.
pub async fn both() -> Result<Vec<TestDb>> {
    Ok(vec![sqlite().await?, postgres().await?])
}

impl TestDb {
    /// Runs SQL as it is, for what no repository function does.
    ///
    /// # Errors
    /// The database's.
    pub async fn raw(&self, sql: &str) -> Result<()> {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        match self.store.db() {
            Db::Sqlite { write, .. } => sqlx::raw_sql(sql).execute(write).await.map(|_| ())?,
            Db::Postgres(p) => sqlx::raw_sql(sql).execute(p).await.map(|_| ())?,
        }
        Ok(())
    }
}

/// PostgreSQL's way to a store, where it can be cut.
pub struct DbCable {
    /// For the store at this end.
    pub url: String,
    whole: tokio::sync::watch::Sender<bool>,
    task: tokio::task::AbortHandle,
}

impl Drop for DbCable {
    fn drop(&mut self) {
        self.cut();
        self.task.abort();
    }
}

impl DbCable {
    /// One to a database on this process's PostgreSQL.
    ///
    /// # Errors
    /// If nothing can listen.
    pub async fn to(db: &TestDb) -> Result<Self> {
        let name = db.url.split('?').next().and_then(|u| u.rsplit('/').next()).context("a database's name")?;
        let socket = PathBuf::from(db.url.split("host=").nth(1).context("not PostgreSQL")?).join(".s.PGSQL.5432");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("postgres://postgres@{}/{name}?sslmode=disable", listener.local_addr()?);
        let whole = tokio::sync::watch::Sender::new(true);
        let seen = whole.subscribe();
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (mut seen, socket) = (seen.clone(), socket.clone());
                tokio::spawn(async move {
                    if !*seen.borrow() {
                        return;
                    }
                    let Ok(mut server) = tokio::net::UnixStream::connect(socket).await else { return };
                    tokio::select! {
                        _ = seen.wait_for(|whole| !whole) => {}
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    }
                });
            }
        });
        Ok(Self { url, whole, task: task.abort_handle() })
    }

    /// Cuts it: every connection ends, and no new one is served.
    pub fn cut(&self) {
        self.whole.send_replace(false);
    }

    /// Mends it.
    pub fn mend(&self) {
        self.whole.send_replace(true);
    }
}

/// A PostgreSQL of a test's own, that it may stop.
pub struct Cluster {
    folder: PathBuf,
    // Dropped last: it takes the folder away.
    _watch: Watch,
}

impl Cluster {
    /// Starts one.
    ///
    /// # Errors
    /// If PostgreSQL is not installed or does not start.
    pub fn start() -> Result<Self> {
        start()
    }

    /// The address of its database.
    #[must_use]
    pub fn url(&self) -> String {
        cluster_url(&self.folder, "postgres")
    }

    /// Ends it at once, with all its connections, as a crash would.
    ///
    /// # Errors
    /// If it does not run, or does not end.
    pub fn kill(&self) -> Result<()> {
        let pid = postmaster(&self.folder).context("it does not run")?;
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGQUIT)?;
        for _ in 0..600 {
            if nix::sys::signal::kill(pid, None).is_err() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("PostgreSQL did not end")
    }

    /// Starts it again on its data.
    ///
    /// # Errors
    /// If it does not start.
    pub fn again(&self) -> Result<()> {
        serve(&newest_bin().context("PostgreSQL is not installed")?, &self.folder)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn cluster_url(folder: &Path, database: &str) -> String {
    format!("postgres://postgres@localhost/{database}?host={}", folder.display())
}

fn cluster() -> Result<&'static Path> {
    // Nobody drops it: its watcher notices the end of this process.
    static CLUSTER: OnceLock<Result<Cluster, String>> = OnceLock::new();
    match CLUSTER.get_or_init(|| start().map_err(|e| format!("{e:#}"))) {
        Ok(c) => Ok(&c.folder),
        Err(e) => bail!("PostgreSQL for the tests did not start: {e}"),
    }
}

/// The process of a folder's server, if there is one.
fn postmaster(folder: &Path) -> Option<i32> {
    let text = std::fs::read_to_string(folder.join("data/postmaster.pid")).ok()?;
    text.lines().next()?.trim().parse().ok()
}

/// Begins the name of each cluster's folder.
const PREFIX: &str = "tram-pg-";
/// A folder without a server is left alone for so long: somebody may be about to start one.
const FRESH: Duration = Duration::from_secs(600);

/// Takes away what earlier processes left together with their watchers, as when a container is stopped.
fn sweep() {
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let folder = entry.path();
        let ours = entry.file_name().to_str().is_some_and(|n| n.starts_with(PREFIX));
        let runs =
            |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.trim() == "postgres");
        let age = entry.metadata().ok().and_then(|m| m.modified().ok()?.elapsed().ok());
        if ours && !postmaster(&folder).is_some_and(runs) && age.is_some_and(|a| a > FRESH) {
            // Another process may be at it, too.
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// Waits for the end of whoever holds its input, then for the server's, and removes the folder.
const WATCH: &str = r#"
read -r _
for _ in $(seq 600); do
    pid=$(head -n1 "$1/data/postmaster.pid" 2>/dev/null) && kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
done
rm -rf -- "$1"
"#;

/// A process that outlives this one by as long as it takes to remove a cluster's folder: statics are not dropped, and
/// a test may be killed.
struct Watch {
    child: Child,
    held: Option<ChildStdin>,
}

impl Watch {
    fn over(folder: &Path) -> Result<Self> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", WATCH, "watch"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            // Ctrl-C is for the tests, not for who cleans up after them.
            .process_group(0)
            .spawn()?;
        let held = child.stdin.take();
        Ok(Self { child, held })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.held.take();
        let _ = self.child.wait();
    }
}

fn start() -> Result<Cluster> {
    let bin = newest_bin().context("PostgreSQL's initdb is not installed; run `make setup`")?;
    sweep();
    let folder = tempfile::Builder::new().prefix(PREFIX).tempdir()?.keep();
    let watch = Watch::over(&folder)?;
    // PostgreSQL refuses to run as root.
    let root = nix::unistd::geteuid().is_root();
    if root {
        run(Command::new("chown").arg("postgres:postgres").arg(&folder))?;
    }
    let data = folder.join("data");
    run(as_postgres(bin.join("initdb"))
        .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync", "-D"])
        .arg(&data))?;
    serve(&bin, &folder)?;
    Ok(Cluster { folder, _watch: watch })
}

/// A command that runs as PostgreSQL's own user.
fn as_postgres(program: PathBuf) -> Command {
    let mut c = Command::new("setpriv");
    if nix::unistd::geteuid().is_root() {
        c.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    c.arg("--pdeathsig=QUIT").arg(program);
    c
}

/// Starts the server on a folder's data and waits until it answers.
fn serve(bin: &Path, folder: &Path) -> Result<()> {
    let mut server = as_postgres(bin.join("postgres"));
    server.arg("-D").arg(folder.join("data")).args(["-c", "listen_addresses=", "-c", "fsync=off", "-c"]);
    server.arg(format!("unix_socket_directories={}", folder.display()));
    server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    // The kernel ends the server when the *thread* that started it ends: so this one never does.
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let child = server.spawn();
        let _ = tell.send(child.is_ok());
        if let Ok(mut child) = child {
            // Or it would stay as a zombie, and seem to run, after it was killed.
            let _ = child.wait();
        }
        loop {
            std::thread::park();
        }
    });
    if !told.recv()? {
        bail!("the server could not be started");
    }
    for _ in 0..300 {
        let ready = Command::new(bin.join("pg_isready")).arg("-q").arg("-h").arg(folder).status()?;
        if ready.success() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("the server did not answer within 30 s");
}

fn newest_bin() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> =
        std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|e| e.path()).collect();
    versions.sort_by_key(|p| p.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse::<u32>().ok()));
    versions.into_iter().rev().map(|p| p.join("bin")).find(|p| p.join("initdb").exists())
}

fn run(command: &mut Command) -> Result<()> {
    let out = command.current_dir("/").output()?;
    if !out.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
    Ok(())
}
