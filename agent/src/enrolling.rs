//! Becoming an endpoint: a token, a key made here, and perhaps a person who has to approve this computer first.
//!
//! What waits is kept in one file, so that neither a restart nor a power cut changes the key: the controller knows this
//! computer by it until it has a certificate. Another process (`run`, the desk) goes by the same file.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tram_wire::Refusal;
use tram_wire::enrol::{EnrolRequest, EnrolResponse};
use tram_wire::heartbeat::Hardware;
use tram_wire::hello::Hello;
use tram_wire::ids::EndpointId;

use crate::actions::keep_keys;
use crate::config::{Address, ConfigError};
use crate::identity::{Identity, IdentityError, Request, write_private};
use crate::link::enrol::{self, EnrolError};

/// What is about to be asked: an answer that is lost on the way is asked for again with the same key.
const ASKED: &str = "enrol-asked.json";
/// What waits: it was asked, and a person has to approve.
const WAITS: &str = "enrolling.json";
/// What was said no to.
const REFUSED: &str = "enrol-refused.json";
/// Between two questions while the line is down.
const LINE_DOWN: Duration = Duration::from_secs(15);
/// A controller may not put a computer off for longer.
const LONGEST: u32 = 600;

/// Why this computer is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum EnrollingError {
    /// Nothing to go on with.
    #[error("nothing waits for approval here; give --controller and --token")]
    Nothing,
    /// Not what a QR code says.
    #[error("a code says the controller's address, a blank, and the token")]
    Code,
    /// The controller's address is none.
    #[error(transparent)]
    Address(#[from] ConfigError),
    /// It could not be asked, or said no.
    #[error("{text}", text = coded(.0))]
    Enrol(#[from] EnrolError),
    /// The result can't be kept.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// What waits can't be kept.
    #[error("{0}: {1}")]
    Io(String, io::Error),
}

fn coded(e: &EnrolError) -> String {
    match e {
        EnrolError::Refused(refusal) => format!("{refusal} ({})", refusal.code()),
        other => other.to_string(),
    }
}

/// A computer that asked, or is about to. Holds secrets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The controller.
    pub controller: String,
    token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca_pem: Option<String>,
    key_pem: String,
    csr_pem: String,
    /// Six digits that stand on the console's screen, too; none: it was not asked yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digits: Option<String>,
    /// Until when it waits, by the controller's clock.
    #[serde(default)]
    pub until_ms: i64,
}

/// What a person, or nobody in time, answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The refusal's code.
    pub code: String,
    /// Why, as it was written; empty: nobody wrote anything.
    #[serde(default)]
    pub reason: String,
}

impl Waiting {
    fn new(asked: Asked) -> Result<Self, IdentityError> {
        let request = Request::new()?;
        Ok(Self {
            controller: asked.controller.to_string(),
            token: asked.token,
            ca_pem: asked.ca_pem,
            key_pem: request.key_pem(),
            csr_pem: request.csr_pem,
            digits: None,
            until_ms: 0,
        })
    }

    /// What waits in this folder. What can't be read waits for nothing.
    #[must_use]
    pub fn load(state: &Path) -> Option<Self> {
        read(state, WAITS)
    }

    fn save(&self, state: &Path) -> Result<(), EnrollingError> {
        keep(state, if self.digits.is_some() { WAITS } else { ASKED }, self)
    }
}

impl Refused {
    /// What was said no to last, if nothing was asked since.
    #[must_use]
    pub fn load(state: &Path) -> Option<Self> {
        read(state, REFUSED)
    }
}

fn read<T: DeserializeOwned>(state: &Path, name: &str) -> Option<T> {
    serde_json::from_slice(&fs::read(state.join(name)).ok()?).ok()
}

fn keep(state: &Path, name: &str, what: &impl Serialize) -> Result<(), EnrollingError> {
    let bytes = serde_json::to_vec_pretty(what).map_err(|e| EnrollingError::Io(name.to_owned(), e.into()))?;
    write_private(state, name, &bytes).map_err(|e| EnrollingError::Io(state.join(name).display().to_string(), e))
}

fn remove(state: &Path, name: &str) {
    match fs::remove_file(state.join(name)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            eprintln!("tram-agent: {}: {e}", state.join(name).display());
        }
        _ => {}
    }
}

/// Nothing is asked any more.
fn forget(state: &Path) {
    remove(state, ASKED);
    remove(state, WAITS);
}

/// With what somebody asks.
pub struct Asked {
    /// The controller.
    pub controller: Address,
    /// The token.
    pub token: String,
    /// The controller's CA, if the token doesn't name it.
    pub ca_pem: Option<String>,
}

impl Asked {
    /// What a QR code says: the controller's address, a blank, and the token.
    ///
    /// # Errors
    /// [`EnrollingError::Code`], [`EnrollingError::Address`].
    pub fn read(code: &str) -> Result<Self, EnrollingError> {
        let (address, token) = code.trim().split_once(char::is_whitespace).ok_or(EnrollingError::Code)?;
        Ok(Self { controller: address.parse()?, token: token.trim().to_owned(), ca_pem: None })
    }
}

/// What this computer says of itself.
pub struct Me {
    /// Who it says it is.
    pub hello: Hello,
    /// What it is made of.
    pub hardware: Hardware,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// An endpoint.
    Enrolled(EndpointId),
    /// A person has to approve it; these digits stand on both screens.
    Waits(String),
}

/// Asks with a token, or goes on with what waits. With `wait` until somebody decided; `told` hears the digits.
///
/// # Errors
/// [`EnrollingError`]. While this computer waits, a line that is down is no error.
pub async fn enrol(
    state: &Path,
    asked: Option<Asked>,
    me: Me,
    wait: bool,
    mut told: impl FnMut(&str),
) -> Result<Done, EnrollingError> {
    let mut waiting = begin(state, asked)?;
    let to: Address = waiting.controller.parse()?;
    let request = EnrolRequest {
        token: waiting.token.clone(),
        csr_pem: waiting.csr_pem.clone(),
        hello: me.hello,
        hardware: Some(me.hardware),
    };
    loop {
        let pause = match enrol::enrol(&to, &request, waiting.ca_pem.as_deref()).await {
            Ok(answer) => return finish(state, waiting, answer),
            Err(EnrolError::Refused(Refusal::Pending { digits, until_ms, ask_again_s })) => {
                if waiting.digits.as_ref() != Some(&digits) || waiting.until_ms != until_ms {
                    (waiting.digits, waiting.until_ms) = (Some(digits.clone()), until_ms);
                    waiting.save(state)?;
                    remove(state, ASKED);
                }
                if !wait {
                    return Ok(Done::Waits(digits));
                }
                told(&digits);
                Duration::from_secs(ask_again_s.clamp(1, LONGEST).into())
            }
            Err(EnrolError::Refused(Refusal::Busy { retry_after_s })) if waiting.digits.is_some() && wait => {
                Duration::from_secs(retry_after_s.clamp(1, LONGEST).into())
            }
            Err(e @ (EnrolError::Connect(_) | EnrolError::Timeout)) if waiting.digits.is_some() && wait => {
                eprintln!("tram-agent: {e}; asking again");
                LINE_DOWN
            }
            Err(e) => return Err(over(state, e)),
        };
        sleep(pause).await;
        // Another process of ours may have come for the certificate meanwhile.
        if Waiting::load(state).is_none()
            && let Ok(identity) = Identity::load(state)
        {
            return Ok(Done::Enrolled(identity.endpoint_id));
        }
    }
}

/// What to ask with: the key that asked before, if it is the same question.
fn begin(state: &Path, asked: Option<Asked>) -> Result<Waiting, EnrollingError> {
    let kept = Waiting::load(state).or_else(|| read(state, ASKED).filter(|_| asked.is_some()));
    let waiting = match (asked, kept) {
        (None, Some(kept)) => return Ok(kept),
        (None, None) => return Err(EnrollingError::Nothing),
        (Some(asked), Some(kept)) if kept.controller == asked.controller.to_string() && kept.token == asked.token => {
            Waiting { ca_pem: asked.ca_pem.or(kept.ca_pem.clone()), ..kept }
        }
        (Some(asked), _) => Waiting::new(asked)?,
    };
    // Before the token is spent: can the result be kept?
    waiting.save(state)?;
    remove(state, REFUSED);
    Ok(waiting)
}

fn finish(state: &Path, waiting: Waiting, answer: EnrolResponse) -> Result<Done, EnrollingError> {
    let identity = Identity {
        controller: waiting.controller,
        endpoint_id: answer.endpoint_id,
        key_pem: waiting.key_pem,
        issued: answer.issued,
        connects: 0,
        copy: None,
    };
    identity.save(state)?;
    keep_keys(state, &answer.order_keys);
    forget(state);
    Ok(Done::Enrolled(answer.endpoint_id))
}

/// What is no longer waited for is forgotten; what a person said stays, for the screen.
fn over(state: &Path, e: EnrolError) -> EnrollingError {
    match &e {
        EnrolError::Refused(refusal @ (Refusal::NotApproved { .. } | Refusal::Unanswered)) => {
            let reason = match refusal {
                Refusal::NotApproved { reason } => reason.chars().take(256).collect(),
                _ => String::new(),
            };
            forget(state);
            if let Err(e) = keep(state, REFUSED, &Refused { code: refusal.code().to_owned(), reason }) {
                return e;
            }
        }
        EnrolError::Refused(Refusal::Busy { .. } | Refusal::Version { .. } | Refusal::Other)
        | EnrolError::Connect(_)
        | EnrolError::Timeout
        | EnrolError::Answer(_) => {}
        EnrolError::Refused(_) | EnrolError::Token(_) | EnrolError::NoTrust | EnrolError::WrongController => {
            forget(state);
        }
    }
    e.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(token: &str) -> Asked {
        Asked { controller: "https://127.0.0.1:8444".parse().unwrap(), token: token.into(), ca_pem: None }
    }

    #[test]
    fn the_same_question_is_asked_with_the_same_key_and_another_one_with_another() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(begin(dir.path(), None), Err(EnrollingError::Nothing)));
        let first = begin(dir.path(), Some(asked("a"))).unwrap();
        assert!(begin(dir.path(), Some(asked("a"))).unwrap() == first);
        assert!(Waiting::load(dir.path()).is_none(), "nobody answered yet");
        let waits = Waiting { digits: Some("048213".into()), ..first.clone() };
        waits.save(dir.path()).unwrap();
        assert!(begin(dir.path(), None).unwrap() == waits);
        let other = begin(dir.path(), Some(asked("b"))).unwrap();
        assert!(other.key_pem != first.key_pem);
    }

    #[test]
    fn a_code_is_an_address_and_a_token() {
        let asked = Asked::read(" https://tram.example:8444  tram1-AAAAA-BBBBB \n").unwrap();
        assert_eq!(
            (asked.controller.to_string().as_str(), asked.token.as_str()),
            ("https://tram.example:8444", "tram1-AAAAA-BBBBB")
        );
        assert!(matches!(Asked::read("tram1-AAAAA"), Err(EnrollingError::Code)));
        assert!(matches!(Asked::read("tram1 AAAAA"), Err(EnrollingError::Address(_))));
    }

    #[test]
    fn a_refusal_forgets_the_key_and_stays_for_the_screen() {
        let dir = tempfile::tempdir().unwrap();
        begin(dir.path(), Some(asked("a"))).unwrap();
        let said = over(dir.path(), Refusal::NotApproved { reason: "not ours".into() }.into());
        assert_eq!(said.to_string(), "this computer was refused: not ours (not_approved)");
        assert!(Waiting::load(dir.path()).is_none());
        let kept = Refused { code: "not_approved".into(), reason: "not ours".into() };
        assert_eq!(Refused::load(dir.path()), Some(kept));
        // Whoever asks anew isn't refused any more.
        begin(dir.path(), Some(asked("b"))).unwrap();
        assert_eq!(Refused::load(dir.path()), None);
        over(dir.path(), EnrolError::Timeout);
        assert!(dir.path().join(ASKED).exists(), "a line that is down forgets nothing");
        over(dir.path(), Refusal::Token.into());
        assert!(!dir.path().join(ASKED).exists());
    }
}
