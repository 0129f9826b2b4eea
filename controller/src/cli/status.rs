//! `status`: counts, for people and scripts.

use anyhow::Result;
use serde_json::json;

use crate::services::{App, Ctx, hosts, pools};

pub(super) async fn run(app: &App, as_json: bool) -> Result<()> {
    let ctx = Ctx::local_admin(app.clock.now());
    let hosts = hosts::list(app, &ctx).await?;
    let pools = pools::list(app, &ctx).await?;
    if as_json {
        let hosts: Vec<_> = hosts
            .iter()
            .map(|h| {
                json!({"name": h.name, "uri": h.uri, "state": h.state, "reason": h.state_reason,
            "accel": h.info.as_ref().map(|i| i.accel), "accel_reason": h.info.as_ref().map(|i| i.accel_reason.clone()),
            "desktops": h.desktops, "running": h.running, "unknown_desktops": h.unknown_desktops})
            })
            .collect();
        let pools: Vec<_> = pools
            .iter()
            .map(|p| json!({"name": p.pool.name, "site": p.pool.site_code, "size": p.pool.size, "counts": p.counts, "problem": p.pool.problem_text}))
            .collect();
        println!("{}", serde_json::to_string_pretty(&json!({"hosts": hosts, "pools": pools}))?);
        return Ok(());
    }
    for h in &hosts {
        let why = h.info.as_ref().map_or_else(|| h.state_reason.clone(), |i| i.accel_reason.clone());
        println!("host {}  {}  {} desktops, {} running  {}", h.name, h.state, h.desktops, h.running, why);
    }
    for p in &pools {
        let counts: Vec<String> = p.counts.iter().map(|(s, n)| format!("{n} {s}")).collect();
        println!(
            "pool {}  {} wanted: {}  {}",
            p.pool.name,
            p.pool.size,
            counts.join(", "),
            p.pool.problem_text.as_deref().unwrap_or("")
        );
    }
    if hosts.is_empty() {
        println!("no host yet: tram-controller admin host add --name NAME --uri qemu:///system");
    }
    Ok(())
}
