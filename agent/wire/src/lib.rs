//! The agent-controller protocol: ids, versions, frames and messages.
//!
//! No I/O and no runtime: both ends, the golden samples and the load simulator share these types.
//!
//! # Shape
//! Every message is one JSON object in one WebSocket text frame, told apart by its `kind`:
//! `{"kind":"beat","seq":7,"at_ms":…}`. A receiver ignores fields it doesn't know, and skips and
//! counts kinds it doesn't know, so that either end may be the newer one. Times are Unix
//! milliseconds; they are evidence about a clock, never trusted to order events.
//!
//! # The talk
//! ```text
//! agent                                controller
//!   POST /agent/v1/enrol  (once)   →   certificate, or pending: the same request again, until a person decided
//!   POST /agent/v1/renew           →   certificate, after weeks off
//!   GET  /agent/v1/time            →   the time, for clocks that are wrong
//!   GET  /agent/v1/link (mTLS, ws) →
//!   hello                          →   hello_ack | refused
//!   snapshot                       →
//!   beat (30 s)                    →   beat_ack
//!   change (60 s, if any)          →
//!                                  ←   plan: from here on `report` instead of snapshot and change
//!   report (60 s, if any)          →   report_ack: [`report`], [`plan`]
//!                                  ←   live: deltas every second for a while
//!                                  ←   order: [`diagnosis`]
//!   order_news                     →
//!   renew (at 2/3 of the life)     →   renewed
//!                                  ←   new_identity: this was a copy; a renew is answered with
//!                                  ←   reborn: it is an endpoint of its own from here on
//!   goodbye                        →
//!   POST /agent/v1/poll (mTLS)     →   the same talk by requests, where a WebSocket does not get through: [`poll`]
//!   POST /agent/v1/signed          →   the same by requests signed at both ends, where TLS is opened on the way: [`signed`]
//!   GET  /agent/v1/tunnel (mTLS)   →   streams of a session: [`tunnel`], [`session`]
//!   GET, POST /agent/v1/bandwidth/… (mTLS)   under an order: [`bandwidth`]
//!   POST /agent/v1/desk/… (mTLS)   →   an officer signs in and asks for a desktop: [`desk`]; a [`lease`] for outages;
//!                                      calls support: [`call`]
//!   POST /agent/v1/update (mTLS)   →   what the updater shall run: [`update`]
//!   GET  /agent/v1/release/… (mTLS)
//! ```

pub mod assist;
pub mod bandwidth;
pub mod call;
pub mod check;
pub mod desk;
pub mod diagnosis;
pub mod enrol;
pub mod frame;
pub mod heartbeat;
pub mod hello;
pub mod helper;
pub mod ids;
pub mod instance;
pub mod lease;
mod order;
pub mod packed;
pub mod plan;
pub mod poll;
pub mod refusal;
pub mod report;
pub mod session;
pub mod short;
pub mod signed;
pub mod token;
pub mod tunnel;
pub mod update;
pub mod version;

pub use frame::{AgentMessage, ControllerMessage, Incoming, WireError};
pub use refusal::Refusal;

/// The name the controller's agent listener proves, whatever address it was reached by.
///
/// An agent trusts exactly one private CA, and that CA signs exactly one kind of server. The address
/// in the URL therefore adds nothing to the proof, and an office may reach the controller by a name,
/// a carrier's address or a tunnel without a new certificate.
pub const SERVER_NAME: &str = "controller.tram.internal";

/// Where an agent enrols: `POST`, JSON in and out.
pub const ENROL_PATH: &str = "/agent/v1/enrol";

/// Where an endpoint whose certificate ended proves that it still has the key: `POST` of [`enrol::Renew`] over TLS with the
/// ended certificate; the answer is [`enrol::Issued`] or a [`Refusal`]. Nothing else is served there.
pub const RENEW_PATH: &str = "/agent/v1/renew";

/// What time it is, for computers whose clock is too wrong to judge a certificate: `GET`, `{"server_ms": …}`.
pub const TIME_PATH: &str = "/agent/v1/time";

/// Where an agent opens a tunnel: `GET` with `Upgrade: tram-tunnel`.
pub const TUNNEL_PATH: &str = "/agent/v1/tunnel";

/// What a connection at [`TUNNEL_PATH`] is upgraded to.
pub const TUNNEL_UPGRADE: &str = "tram-tunnel";

/// Where an agent links: a WebSocket upgrade.
pub const LINK_PATH: &str = "/agent/v1/link";
