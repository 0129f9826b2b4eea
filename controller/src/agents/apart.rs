//! A computer that shows an identity in quarantine: it is heard, and what it says is kept apart. Nothing is asked of it,
//! except to take an identity of its own once an operator said that it is another computer.

use std::net::SocketAddr;

use tokio_tungstenite::tungstenite::Message;
use tram_wire::heartbeat::{Beat, BeatAck};
use tram_wire::ids::EndpointId;
use tram_wire::refusal::Refusal;
use tram_wire::report::ReportAck;
use tram_wire::{AgentMessage, ControllerMessage, short};

use super::Agents;
use super::conn::{BURST, Budget, End, Said, Socket, next, send, skew, transmit};
use super::ingest::Update;
use crate::domain::copies::Claim;
use crate::services::{copies, endpoints};

/// Who is there.
pub(super) struct Who {
    /// What it says of itself.
    pub(super) claim: Claim,
    /// The endpoint it is instead.
    pub(super) became: Option<EndpointId>,
    /// Its clock less ours.
    pub(super) skew_ms: i64,
}

pub(super) async fn run(agents: &Agents, id: EndpointId, who: &Who, peer: SocketAddr, socket: &mut Socket) -> End {
    let now = agents.app.clock.now();
    let seat = agents.registry.sit_apart(id, now);
    if who.became.is_none() {
        // Somebody with this identity is there; who it is nobody knows.
        agents.ingest.send(Update::heard(id, now, Some(who.skew_ms))).await;
    }
    tracing::debug!(endpoint = %id, %peer, copy = who.claim.key(), "linked apart");
    let mut budget = Budget::new(BURST);
    loop {
        let message = tokio::select! {
            biased;
            () = agents.stop.cancelled() => return End::Lost,
            refusal = seat.cut() => return End::Refused(refusal),
            () = tokio::time::sleep(agents.app.pace.silent_within()) => return End::Lost,
            message = next(socket) => message,
        };
        let message = match message {
            Ok(m) if budget.take() => m,
            Ok(_) => return End::Refused(Refusal::Malformed { detail: "too many messages".to_owned() }),
            Err(end) => return end,
        };
        let done = match message {
            Said::Long(message) => heard(agents, id, who, peer, socket, message).await,
            Said::Short(beat) => {
                let ack = short::ack(&beaten(agents, id, who, &beat).await);
                transmit(socket, Message::binary(ack)).await
            }
        };
        if let Err(end) = done {
            return end;
        }
    }
}

/// Takes a beat in; the answer.
async fn beaten(agents: &Agents, id: EndpointId, who: &Who, beat: &Beat) -> BeatAck {
    let now = agents.app.clock.now();
    let server_ms = now.micros() / 1000;
    if who.became.is_none() {
        let skew_ms = skew(beat.at_ms, server_ms, beat.rtt_us);
        agents.ingest.send(Update::heard(id, now, Some(skew_ms))).await;
    }
    copies::heard(&agents.app, id, &who.claim, None::<&()>, now).await;
    BeatAck { seq: beat.seq, server_ms }
}

async fn heard(
    agents: &Agents,
    id: EndpointId,
    who: &Who,
    peer: SocketAddr,
    socket: &mut Socket,
    message: AgentMessage,
) -> Result<(), End> {
    let (app, now) = (&agents.app, agents.app.clock.now());
    match message {
        AgentMessage::Beat(beat) => {
            let ack = beaten(agents, id, who, &beat).await;
            send(socket, &ControllerMessage::BeatAck(ack)).await
        }
        AgentMessage::Snapshot(s) => {
            copies::heard(app, id, &who.claim, Some(&*s), now).await;
            Ok(())
        }
        AgentMessage::Report(r) => {
            let batch = r.batch;
            copies::heard(app, id, &who.claim, Some(&*r), now).await;
            send(socket, &ControllerMessage::ReportAck(ReportAck { batch })).await
        }
        AgentMessage::Renew(r) => {
            // Nobody gets a longer life for an identity in quarantine.
            let Some(new) = who.became else { return Ok(()) };
            let ctx = endpoints::as_agent(peer.ip().to_canonical().to_string(), now);
            let answer = copies::rebirth(app, &ctx, &agents.ca, id, new, &r.csr_pem).await.map_err(End::Refused)?;
            send(socket, &ControllerMessage::Reborn(answer)).await
        }
        // Nothing is asked of a copy.
        AgentMessage::Change(_) | AgentMessage::OrderNews(_) => Ok(()),
        AgentMessage::Goodbye(g) => Err(End::Goodbye(g.reason)),
        AgentMessage::Hello(_) => Err(End::Refused(Refusal::Malformed { detail: "hello came twice".to_owned() })),
    }
}
