//! One look at everything.

use std::collections::BTreeMap;

use super::{App, Ctx, Result};
use crate::domain::access::Role;
use crate::domain::desktop::DesktopState;
use crate::domain::host::HostState;

/// Counts for the first page.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// Hosts in all, and up.
    pub hosts: (i64, i64),
    /// Pools.
    pub pools: i64,
    /// Desktops by state.
    pub desktops: BTreeMap<DesktopState, i64>,
    /// Endpoints in all, online, silent.
    pub endpoints: (i64, i64, i64),
    /// Sessions active, disconnected.
    pub sessions: (i64, i64),
}

/// Counts what the caller may see of hosts, pools and desktops.
///
/// # Errors
/// [`super::Error::Forbidden`] for officers.
pub async fn get(app: &App, ctx: &Ctx) -> Result<Overview> {
    ctx.require(&[Role::Operator, Role::Support])?;
    let hosts = app.store.hosts().await?;
    let up = hosts.iter().filter(|h| h.state == HostState::Up).count();
    let pools = super::pools::list(app, ctx).await?;
    let mut desktops = BTreeMap::new();
    for (state, n) in pools.iter().flat_map(|p| &p.counts) {
        *desktops.entry(*state).or_default() += n;
    }
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let endpoints = super::endpoints::counts(app, ctx).await?;
    let sessions = app.store.session_counts(&ctx.caller.scope()).await?;
    Ok(Overview { hosts: (count(hosts.len()), count(up)), pools: count(pools.len()), desktops, endpoints, sessions })
}
