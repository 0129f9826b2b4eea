//! Nodes of hypervisor hosts: giving one what it needs to serve.

use async_trait::async_trait;
use serde_json::json;
use tram_hypervisor::node::{PORT, Signer};

use super::{App, Ctx, Error, Result, audit};
use crate::domain::access::Role;
use crate::domain::name;
use crate::domain::time::Time;
use crate::identity::ca::CaError;
use crate::identity::nodes::{NODE_LIFE, NodeCa};

/// Where a node answers who watches it, unless told otherwise.
pub const METRICS: u16 = 8446;

/// Signs for nodes over their links.
#[derive(Clone)]
pub struct Renewals(pub App);

impl std::fmt::Debug for Renewals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Renewals(…)")
    }
}

#[async_trait]
impl Signer for Renewals {
    async fn sign(&self, current: &[u8], request: &str) -> std::result::Result<String, String> {
        renew(&self.0, current, request).await.map_err(|e| e.to_string())
    }
}

async fn renew(app: &App, current: &[u8], request: &str) -> Result<String> {
    let now = app.clock.now();
    let ca = open_ca(app, now)?;
    let (pem, names) = ca.renew(current, request, now).map_err(|e| Error::Internal(Box::new(e)))?;
    let mut tx = app.store.begin().await?;
    audit(&mut tx, &Ctx::system(now), "node.renew", &names.join(","), json!({"until": now.plus(NODE_LIFE)})).await?;
    tx.commit().await?;
    Ok(pem)
}

/// The files of a node, to be carried to its host.
#[derive(Debug)]
pub struct Issued {
    /// `node.toml`.
    pub settings: String,
    /// `node.pem`: key and certificate; secret.
    pub certificate: String,
    /// `ca.pem`.
    pub authority: String,
    /// The last moment the certificate is good.
    pub not_after: Time,
}

/// Opens the nodes' authority of this installation.
///
/// # Errors
/// [`Error::Unavailable`].
pub fn open_ca(app: &App, now: Time) -> Result<NodeCa> {
    NodeCa::open(&app.data_dir, now).map_err(|e| Error::Unavailable("H-503", e.to_string()))
}

/// Issues a node a certificate for the names it is reached by. An earlier one stays good until its end.
///
/// # Errors
/// [`Error::Invalid`] for a bad name; [`Error::Unavailable`] without the authority.
pub async fn issue(app: &App, ctx: &Ctx, node: &str, names: &[String]) -> Result<Issued> {
    ctx.require(&[Role::Operator])?;
    name::check(node).map_err(|m| Error::field("name", "H-201", m))?;
    let ca = open_ca(app, ctx.now)?;
    let certificate = ca.issue(names, ctx.now).map_err(|e| match e {
        CaError::Request(why) => Error::field("names", "H-203", why),
        other => Error::Internal(Box::new(other)),
    })?;
    let mut tx = app.store.begin().await?;
    audit(&mut tx, ctx, "node.issue", node, json!({"names": names})).await?;
    tx.commit().await?;
    let settings = format!(
        "# The node of {node}: /etc/tram/node.toml\n\
         listen = \"0.0.0.0:{PORT}\"\n\
         installation = \"{}\"\n\
         uri = \"qemu:///system\"\n\
         image_dir = \"/var/lib/libvirt/images/tram/images\"\n\
         disk_dir = \"/var/lib/libvirt/images/tram/disks\"\n\
         # Figures (/metrics) and health (/healthz) of the node, without TLS: for this host only.\n\
         metrics = \"127.0.0.1:{METRICS}\"\n\
         # Beside this file unless said otherwise; the node renews its certificate and writes it there.\n\
         certificate = \"node.pem\"\n\
         ca = \"ca.pem\"\n",
        app.installation
    );
    Ok(Issued { settings, certificate, authority: ca.pem().to_owned(), not_after: ctx.now.plus(NODE_LIFE) })
}
