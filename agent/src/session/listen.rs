//! Where a viewer connects: a socket of this computer that serves one process, the viewer we started.
//!
//! A UNIX socket in a private folder is the rule. A viewer that only knows TCP gets a random port of the
//! loopback interface. In both cases the kernel is asked who connects: the user must be ours and the process
//! the viewer itself. Nothing else opens the way, so there is no password that could be seen in arguments,
//! environment, files or a log.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use crate::host::peer;

/// The two ways to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A UNIX socket in our folder.
    Unix,
    /// A port of the loopback interface.
    Loopback,
}

/// What a viewer is told to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A socket's path.
    Path(PathBuf),
    /// A port of 127.0.0.1.
    Port(u16),
}

enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// A connection of the viewer.
pub trait Local: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Local for T {}

/// Listens until it is dropped; the socket's file goes with it.
pub struct Listener {
    socket: Socket,
    place: Place,
    uid: u32,
}

impl Listener {
    /// Listens. `folder` is ours alone; it is made so if need be.
    ///
    /// # Errors
    /// Those of the operating system; a folder that somebody else may enter.
    pub fn bind(kind: Kind, folder: &Path) -> io::Result<Self> {
        let uid = peer::own_uid()?;
        let (socket, place) = match kind {
            Kind::Unix => {
                private(folder)?;
                let path = folder.join(format!("{:016x}.sock", getrandom::u64().map_err(io::Error::other)?));
                let socket = UnixListener::bind(&path)?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
                (Socket::Unix(socket), Place::Path(path))
            }
            Kind::Loopback => {
                let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
                socket.set_nonblocking(true)?;
                let port = socket.local_addr()?.port();
                (Socket::Tcp(TcpListener::from_std(socket)?), Place::Port(port))
            }
        };
        Ok(Self { socket, place, uid })
    }

    /// What the viewer connects to.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The next connection of this process; anybody else's is closed at once.
    ///
    /// # Errors
    /// Those of the operating system.
    pub async fn accept(&self, pid: u32) -> io::Result<Box<dyn Local>> {
        loop {
            match &self.socket {
                Socket::Unix(socket) => {
                    let (stream, _) = socket.accept().await?;
                    let who = stream.peer_cred()?;
                    let same = who.pid().and_then(|p| u32::try_from(p).ok()) == Some(pid);
                    if who.uid() == self.uid && same {
                        return Ok(Box::new(stream));
                    }
                }
                Socket::Tcp(socket) => {
                    let (stream, theirs) = socket.accept().await?;
                    if self.is_of(pid, stream.local_addr()?, theirs) {
                        stream.set_nodelay(true)?;
                        return Ok(Box::new(stream));
                    }
                }
            }
        }
    }

    fn is_of(&self, pid: u32, ours: SocketAddr, theirs: SocketAddr) -> bool {
        peer::owner(ours, theirs).is_some_and(|o| o.uid == self.uid && peer::holds(pid, o.inode))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Place::Path(path) = &self.place {
            // A file that is gone already is as good.
            let _ = fs::remove_file(path);
        }
    }
}

/// Makes a folder that only we can enter, or makes sure that it is one.
///
/// # Errors
/// If it is another's, or a link.
pub fn private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let found = fs::symlink_metadata(folder)?;
    if !found.is_dir() || found.uid() != peer::own_uid()? {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{} is not ours", folder.display())));
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpStream, UnixStream};

    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn the_socket_is_private_and_gone_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("desk");
        let listener = Listener::bind(Kind::Unix, &folder).unwrap();
        let Place::Path(path) = listener.place().clone() else { panic!("not a path") };
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&path)), (0o700, 0o600));
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_folder_that_is_a_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("desk");
        std::os::unix::fs::symlink("/tmp", &link).unwrap();
        assert!(Listener::bind(Kind::Unix, &link).is_err());
    }

    #[tokio::test]
    async fn our_own_process_is_let_in() {
        let dir = tempfile::tempdir().unwrap();
        let me = std::process::id();
        let unix = Listener::bind(Kind::Unix, dir.path()).unwrap();
        let Place::Path(path) = unix.place().clone() else { panic!("not a path") };
        let _open = UnixStream::connect(path).await.unwrap();
        tokio::time::timeout(SOON, unix.accept(me)).await.unwrap().unwrap();
        let tcp = Listener::bind(Kind::Loopback, dir.path()).unwrap();
        let Place::Port(port) = *tcp.place() else { panic!("not a port") };
        let _open = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        tokio::time::timeout(SOON, tcp.accept(me)).await.unwrap().unwrap();
    }

    /// Another process of our own user comes first, and one of another user if this test may become one.
    #[tokio::test]
    async fn whoever_else_comes_first_is_sent_away() {
        let dir = tempfile::tempdir().unwrap();
        let tcp = Listener::bind(Kind::Loopback, dir.path()).unwrap();
        let Place::Port(port) = *tcp.place() else { panic!("not a port") };
        let knock = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; read -r line <&3; echo \"got ${{line:-nothing}}\"");
        let root = peer::own_uid().unwrap() == 0;
        let mut intruders = vec![vec!["bash", "-c", knock.as_str()]];
        if root {
            intruders.push(vec!["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-c", &knock]);
        }
        for words in intruders {
            let child = Command::new(words[0]).args(&words[1..]).stdout(Stdio::piped()).spawn().unwrap();
            let waiting = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
            let out = tokio::select! {
                out = waiting => out.unwrap(),
                _ = tcp.accept(std::process::id()) => panic!("{words:?} was let in"),
            };
            assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "got nothing");
        }
        // The right one is still served after them.
        let mut open = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let served = tokio::time::timeout(SOON, tcp.accept(std::process::id())).await.unwrap().unwrap();
        drop(served);
        assert_eq!(open.read(&mut [0; 8]).await.unwrap(), 0);
    }
}
