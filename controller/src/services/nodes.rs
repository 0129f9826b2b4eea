//! Nodes of hypervisor hosts: giving one what it needs to serve.

use serde_json::json;
use tram_hypervisor::node::PORT;

use super::{App, Ctx, Error, Result, audit};
use crate::domain::access::Role;
use crate::domain::name;
use crate::domain::time::Time;
use crate::identity::ca::CaError;
use crate::identity::nodes::{NODE_LIFE, NodeCa};

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
         # Beside this file unless said otherwise.\n\
         certificate = \"node.pem\"\n\
         ca = \"ca.pem\"\n",
        app.installation
    );
    Ok(Issued { settings, certificate, authority: ca.pem().to_owned(), not_after: ctx.now.plus(NODE_LIFE) })
}
