//! A TCP connection's way through a place where it can be cut, silenced and mended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// What the cable does with its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Carries.
    Whole,
    /// Ends all connections and takes none.
    Cut,
    /// Swallows everything without a word.
    Silent,
}

/// Listens where clients are sent, and connects to a server for each.
pub struct Cable {
    /// Where clients connect.
    pub address: SocketAddr,
    state: watch::Sender<State>,
    connections: Arc<AtomicUsize>,
    refused: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.task.abort();
        self.state.send_replace(State::Cut);
    }
}

impl Cable {
    /// One to a server.
    ///
    /// # Errors
    /// If nothing can listen.
    pub async fn to(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = watch::Sender::new(State::Whole);
        let (connections, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn({
            let (state, connections, refused) = (state.clone(), connections.clone(), refused.clone());
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let mut watch = state.subscribe();
                    let now = *watch.borrow_and_update();
                    if now == State::Cut {
                        refused.store(true, Ordering::SeqCst);
                        continue;
                    }
                    connections.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(async move {
                        let Ok(server) = TcpStream::connect(server).await else { return };
                        let _ = (client.set_nodelay(true), server.set_nodelay(true));
                        let ((cr, cw), (sr, sw)) = (client.into_split(), server.into_split());
                        let cut = async { watch.clone().wait_for(|s| *s == State::Cut).await.map(|_| ()) };
                        tokio::select! {
                            _ = cut => {}
                            () = one_way(cr, sw, watch.clone()) => {}
                            () = one_way(sr, cw, watch.clone()) => {}
                        }
                    });
                }
            }
        });
        Ok(Self { address, state, connections, refused, task: task.abort_handle() })
    }

    /// Cuts it: what is under way is lost, and nobody gets through.
    pub fn cut(&self) {
        self.refused.store(false, Ordering::SeqCst);
        self.state.send_replace(State::Cut);
    }

    /// Lets everything in and nothing out: like a line that died without a word.
    pub fn silence(&self) {
        self.state.send_replace(State::Silent);
    }

    /// Mends it; connections have to be made anew.
    pub fn mend(&self) {
        self.state.send_replace(State::Whole);
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until somebody tries while it is cut.
    pub async fn tried(&self) {
        while !self.refused.load(Ordering::SeqCst) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: watch::Receiver<State>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let silent = *state.borrow() == State::Silent;
        if !silent && to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
