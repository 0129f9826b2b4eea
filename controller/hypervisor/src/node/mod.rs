//! A hypervisor host that speaks for itself: the node.
//!
//! The node is the only process of its host that holds libvirt's socket. Controllers call it, and gateways get
//! displays from it, over TLS 1.3 with certificates on both sides; a host then needs one open port and no SSH key,
//! no libvirt listener and no shared account. Behind it stands any backend of this crate, unchanged, and to its
//! callers it is one more ([`Remote`]): the conformance suite holds it to the same rules.
//!
//! ```text
//! controller ── calls, answers, events (one connection, kept) ──▶ node ── libvirt's socket ──▶ libvirtd
//! gateway    ── one connection for each display              ──▶ node ── a descriptor     ──▶ QEMU
//! controller ── one connection for each golden image sent    ──▶ node ── a file, read-only
//! ```
//!
//! **Restarts.** A controller, a gateway or the node itself may be killed at any moment: desktops belong to
//! libvirt. Calls under way fail as [`Unreachable`](crate::Error::Unreachable) and are repeated by reconcilers,
//! all calls being idempotent. When a gateway vanishes, the node keeps QEMU's side of its displays open for
//! [`LINGER`] and reads from it, because QEMU's SPICE server dies of a display channel that ends while it begins.
//!
//! **Trust.** Who may call is whoever has a client certificate of the nodes' authority, which only controllers
//! have: a node's own certificate serves, and endpoints' certificates are another authority's. A node belongs to
//! one installation and touches nothing of another. A node's certificate renews itself ([`Certificate`]).

use std::time::Duration;

mod certificate;
mod client;
mod figures;
mod images;
mod server;
mod wire;

pub use certificate::{Access, Certificate, Signer};
pub use client::Remote;
pub use figures::Figures;
pub use server::{Node, Settings, serve};

/// Where nodes listen unless told otherwise.
pub const PORT: u16 = 8445;
/// How long QEMU's side of a display outlives the gateway's.
pub const LINGER: Duration = Duration::from_secs(2);

/// Longest for a TLS handshake and the first words.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Both sides say something this often.
const BEAT: Duration = Duration::from_secs(5);
/// After this long without a word the other side is gone.
const SILENCE: Duration = Duration::from_secs(20);
