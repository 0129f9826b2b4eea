//! Looks at the fleet and follows what is wrong.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::World;
use super::driver::Reconciler;
use crate::domain::incident::picture::Probe;
use crate::nudge::Kind;
use crate::services::incidents::{self, Lookout};
use crate::services::runbooks;

/// How long a probe of the controller's own may take.
const ANSWER: Duration = Duration::from_secs(3);

/// The reconciler.
pub struct IncidentJudge {
    /// What it goes by.
    pub lookout: Lookout,
    /// What the controller itself must reach; empty: it asks nobody.
    pub uplinks: Vec<SocketAddr>,
    /// Between two looks.
    pub every: Duration,
}

impl Reconciler for IncidentJudge {
    const NAME: &'static str = "incident_judge";
    // Nobody else waits for these nudges. Looks come at an even pace: damping counts them.
    const KIND: Kind = Kind::Incident;
    const PERIOD: Duration = Duration::from_secs(15);

    fn period(&self) -> Duration {
        self.every
    }

    async fn pass(&mut self, world: &World) -> anyhow::Result<()> {
        let mut probes = Vec::new();
        for uplink in &self.uplinks {
            let ok = matches!(timeout(ANSWER, TcpStream::connect(uplink)).await, Ok(Ok(_)));
            probes.push(Probe { name: uplink.to_string(), ok: Some(ok) });
        }
        if let Some(done) = incidents::look(&world.app, &self.lookout, probes, world.app.clock.now()).await?
            && done != incidents::Looked::default()
        {
            tracing::info!(opened = done.opened, over = done.over, "incidents");
        }
        runbooks::settle(&world.app, world.app.clock.now()).await?;
        Ok(())
    }
}
