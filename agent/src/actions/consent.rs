//! Asks the officer, by the desk of this computer: a socket in the state folder, which only its owner opens.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tram_wire::diagnosis::{ANSWER_S, Consent, Order};

/// In the folder of the identity.
pub const SOCKET: &str = "consent.sock";
/// Between the officer's time and ours.
const SLACK: Duration = Duration::from_secs(3);

/// What the desk is to show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// An answer is wanted; else the officer is only told.
    pub ask: bool,
    /// The officer agreed, and the desk does it.
    #[serde(default)]
    pub act: bool,
    /// The action's word in the catalogue.
    pub action: String,
    /// Whose wish it is.
    pub who: String,
    /// Why.
    pub why: String,
    /// Seconds to answer.
    pub left_s: u16,
}

/// What the officer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Yes.
    pub allow: bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It may be done.
    Yes,
    /// The officer said no, or nothing.
    No,
    /// There is no desk here, or nobody at it.
    NobodyThere,
}

/// Asks, or tells, as the order's class wants it.
pub(super) async fn officer(order: &Order, socket: &Path, answer: Duration) -> Said {
    let consent = order.work.class().consent();
    if consent == Consent::None {
        return Said::Yes;
    }
    let question = Question {
        ask: consent == Consent::Ask,
        act: false,
        action: order.work.name().to_owned(),
        who: order.by.clone(),
        why: order.why.clone(),
        left_s: u16::try_from(answer.as_secs()).unwrap_or(ANSWER_S),
    };
    let within = if question.ask { answer + SLACK } else { SLACK };
    let answer = timeout(within, put(&question, socket)).await.ok().flatten();
    match (question.ask, answer) {
        // Told, or nobody there to be told: nothing is lost by that, the ledger has it.
        (false, _) => Said::Yes,
        (true, Some(Answer { allow: true })) => Said::Yes,
        (true, Some(Answer { allow: false })) => Said::No,
        (true, None) => Said::NobodyThere,
    }
}

/// Has the desk do something it was agreed to; whether it worked. `None`: no desk.
pub(super) async fn act(action: &str, socket: &Path) -> Option<bool> {
    let question = Question {
        ask: false,
        act: true,
        action: action.to_owned(),
        who: String::new(),
        why: String::new(),
        left_s: 0,
    };
    timeout(SLACK, put(&question, socket)).await.ok().flatten().map(|a| a.allow)
}

async fn put(question: &Question, socket: &Path) -> Option<Answer> {
    let mut line = UnixStream::connect(socket).await.ok()?;
    line.write_all(&serde_json::to_vec(question).ok()?).await.ok()?;
    line.shutdown().await.ok()?;
    let mut answer = Vec::new();
    line.take(256).read_to_end(&mut answer).await.ok()?;
    serde_json::from_slice(&answer).ok()
}
