//! One task an endpoint: greets, then listens until the line ends or is cut.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Bytes;
use futures_util::{SinkExt, StreamExt};
use metrics::counter;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use tram_wire::diagnosis::MAX_NEWS;
use tram_wire::enrol::NewIdentity;
use tram_wire::frame::MAX_FRAME;
use tram_wire::heartbeat::{Beat, BeatAck, GoodbyeReason};
use tram_wire::hello::{Hello, HelloAck};
use tram_wire::ids::EndpointId;
use tram_wire::refusal::Refusal;
use tram_wire::report::ReportAck;
use tram_wire::{AgentMessage, ControllerMessage, Incoming, packed, short};

use super::ingest::Update;
use super::registry::Seat;
use super::{Agents, apart};
use crate::domain::copies::{Claim, Known, Signal, is_copy};
use crate::domain::endpoint::{LinkWay, reconnect_window};
use crate::services::{copies, diagnosis, endpoints, health};

/// From the upgrade to `hello`.
const GREETING: Duration = Duration::from_secs(15);
/// A frame that can't be sent in this time means a dead line.
const SEND: Duration = Duration::from_secs(10);
/// How long, and for how much more, a refused endpoint is listened to so that it can read why.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 1024 * 1024;
/// Messages an endpoint may send at once, and how fast that fills up again. A healthy one sends three
/// a minute.
pub(super) const BURST: u32 = 60;
const REFILL: Duration = Duration::from_secs(1);
/// The same for news of orders: two with all they may say.
const NEWS_BURST: u32 = 2 * MAX_NEWS;
/// Batches of records on their way into the database; an agent waits for the answers to a few.
const BATCHES: usize = 64;

/// What a link's bytes go by: a connection, or requests.
pub(super) trait Line: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Line for T {}

pub(super) type Socket = WebSocketStream<Box<dyn Line>>;

/// The library's default of 128 KiB each would be most of the memory of an endpoint, whose messages are mostly a dozen bytes.
pub(super) fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(1024)
        .write_buffer_size(4096)
        .max_write_buffer_size(2 * MAX_FRAME)
        .max_message_size(Some(MAX_FRAME))
        .max_frame_size(Some(MAX_FRAME))
}

/// Who said hello.
#[expect(clippy::large_enum_variant, reason = "made once a link and taken apart at once")]
enum Greeted {
    /// An endpoint, who showed its identity so far, and whether its line is paid by the byte.
    Link(EndpointId, Hello, Known, bool),
    /// A computer that shows an identity in quarantine.
    Apart(EndpointId, apart::Who),
}

/// How a link ended.
pub(super) enum End {
    /// The line broke, or the agent closed it.
    Lost,
    /// The agent said goodbye.
    Goodbye(GoodbyeReason),
    /// We end it.
    Refused(Refusal),
}

pub(super) async fn run(
    agents: Agents,
    certificate: Option<CertificateDer<'static>>,
    peer: SocketAddr,
    way: LinkWay,
    line: Box<dyn Line>,
) {
    let mut socket = WebSocketStream::from_raw_socket(line, Role::Server, Some(limits())).await;
    // What is over after a moment, or seldom happens, stands apart: a link is mostly its task, and there are thousands.
    let greeted = Box::pin(greet(&agents, certificate.as_ref(), peer, &mut socket)).await;
    drop(certificate);
    let end = match greeted {
        Ok(Greeted::Link(id, hello, known, metered)) => {
            linked(&agents, id, (&hello, way, metered), known, peer, &mut socket).await
        }
        Ok(Greeted::Apart(id, who)) => Box::pin(apart::run(&agents, id, &who, peer, &mut socket)).await,
        Err(end) => end,
    };
    if let End::Refused(refusal) = end {
        counter!("agent_refusals_total", "reason" => refusal.code()).increment(1);
        tracing::debug!(%peer, reason = refusal.code(), "refused an agent");
        let code = CloseFrame { code: CloseCode::Policy, reason: refusal.code().into() };
        let _ = send(&mut socket, &ControllerMessage::Refused(refusal)).await;
        let _ = tokio::time::timeout(LINGER, async {
            socket.close(Some(code)).await?;
            // Closing on unread data resets the line, and the reason would be lost with it.
            let mut rest = socket.get_mut().take(LINGER_BYTES);
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
            Ok::<_, tungstenite::Error>(())
        })
        .await;
    }
}

/// Proves who it is, hears `hello` and decides.
async fn greet(
    agents: &Agents,
    certificate: Option<&CertificateDer<'static>>,
    peer: SocketAddr,
    socket: &mut Socket,
) -> Result<Greeted, End> {
    let certificate = certificate.ok_or(End::Refused(Refusal::Unknown))?;
    let id = agents.ca.check(certificate, agents.app.clock.now()).map_err(End::Refused)?;
    let first = tokio::time::timeout(GREETING, next(socket)).await.map_err(|_| End::Lost)??;
    let Said::Long(AgentMessage::Hello(hello)) = first else {
        return Err(End::Refused(Refusal::Malformed { detail: "the first message must be hello".to_owned() }));
    };
    let claim = Claim::new(&hello, &peer.ip().to_canonical().to_string());
    let (version, entry) = copies::admit(&agents.app, id, &hello, &claim).await.map_err(End::Refused)?;
    let ack = |quarantined| HelloAck {
        version,
        server_ms: agents.app.clock.now().micros() / 1000,
        beat_s: u32::try_from(agents.app.pace.beat.as_secs()).unwrap_or(30),
        snapshot_s: u32::try_from(agents.app.pace.keyframe.as_secs()).unwrap_or(1200),
        reconnect_window_s: reconnect_window(agents.registry.expected()),
        order_keys: diagnosis::public_keys(&agents.app),
        quarantined,
    };
    let known = match entry {
        copies::Entry::Known(known) => agents.registry.known(id).or(known),
        copies::Entry::Copy { became } => {
            send(socket, &ControllerMessage::HelloAck(ack(true))).await?;
            if became.is_some() {
                send(socket, &ControllerMessage::NewIdentity(NewIdentity {})).await?;
            }
            return Ok(Greeted::Apart(id, apart::Who { claim, became, skew_ms: hello_skew(agents, &hello) }));
        }
    };
    send(socket, &ControllerMessage::HelloAck(ack(false))).await?;
    let known = match known {
        None => Known::only(claim),
        Some(known) => {
            let signals = copies::signals_of(&known, &claim);
            if is_copy(&signals) {
                return Err(suspect(agents, id, &known, &claim, &signals, socket).await);
            }
            copies::note(&agents.app, id, &known, &claim, &signals).await;
            known.then(claim)
        }
    };
    // Without a plan it reports as older agents do, until the next look brings one.
    let mut metered = false;
    if let Ok(plan) = health::plan(&agents.app, id).await {
        metered = plan.metered;
        send(socket, &ControllerMessage::Plan(Box::new(plan))).await?;
    }
    Ok(Greeted::Link(id, hello, known, metered))
}

/// It looks like a copy. A hello that waited somewhere until its process was gone does, too: only one that still speaks
/// after it was answered counts.
async fn suspect(
    agents: &Agents,
    id: EndpointId,
    known: &Known,
    claim: &Claim,
    signals: &[Signal],
    socket: &mut Socket,
) -> End {
    match tokio::time::timeout(GREETING, next(socket)).await {
        Err(_) => return End::Lost,
        Ok(Err(end)) => return end,
        Ok(Ok(_)) => {}
    }
    let now = agents.app.clock.now();
    match copies::quarantine(&agents.app, id, known, claim, signals, now).await {
        Ok(()) => {
            agents.registry.begin_anew(id, now);
            End::Refused(Refusal::Busy { retry_after_s: 1 })
        }
        Err(refusal) => End::Refused(refusal),
    }
}

fn hello_skew(agents: &Agents, hello: &Hello) -> i64 {
    skew(hello.at_ms, agents.app.clock.now().micros() / 1000, None)
}

async fn linked(
    agents: &Agents,
    id: EndpointId,
    (hello, way, metered): (&Hello, LinkWay, bool),
    known: Known,
    peer: SocketAddr,
    socket: &mut Socket,
) -> End {
    let now = agents.app.clock.now();
    let seat = agents.registry.sit(id, known.clone(), now);
    seat.planned(metered);
    seat.heard(now, Some(skew(hello.at_ms, now.micros() / 1000, None)));
    if let Ok(report) = endpoints::report_of_hello(hello) {
        agents.ingest.send(Update::linked(id, now, seat.skew_ms(), report, (known, way))).await;
    }
    tracing::debug!(endpoint = %id, %peer, "linked");
    let end = listen(agents, id, peer, &seat, socket).await;
    // A newer link of the same endpoint speaks for it now.
    if !matches!(end, End::Refused(Refusal::Superseded)) {
        agents.orders.lost(id);
        agents.ingest.send(Update::heard(id, seat.last_heard(), seat.skew_ms())).await;
        if let End::Goodbye(reason) = end {
            agents.ingest.send(Update::left(id, agents.app.clock.now(), reason)).await;
        }
    }
    end
}

async fn listen(agents: &Agents, id: EndpointId, peer: SocketAddr, seat: &Seat, socket: &mut Socket) -> End {
    let (mut budget, mut news) = (Budget::new(BURST), Budget::new(NEWS_BURST));
    let (keep, mut kept) = mpsc::channel(BATCHES);
    // The batch whose answer goes with the next beat's, and whether it is kept by now.
    let mut rides: Option<(u64, bool)> = None;
    loop {
        let message = tokio::select! {
            biased;
            () = agents.stop.cancelled() => return End::Lost,
            refusal = seat.cut() => return End::Refused(refusal),
            Some(batch) = kept.recv() => {
                if let Some((_, done)) = rides.as_mut().filter(|(waits, _)| *waits == batch) {
                    *done = true;
                    continue;
                }
                let ack = ControllerMessage::ReportAck(ReportAck { batch });
                if let Err(end) = send(socket, &ack).await {
                    return end;
                }
                continue;
            }
            order = seat.told() => {
                if let Err(end) = send(socket, &order).await {
                    return end;
                }
                continue;
            }
            () = tokio::time::sleep(seat.patience(agents.app.pace)) => return End::Lost,
            message = next(socket) => message,
        };
        let message = match message {
            Ok(m) => m,
            Err(end) => return end,
        };
        if let Said::Long(AgentMessage::OrderNews(n)) = message {
            // What comes of an order has a measure of its own; more than that is not listened to.
            if news.take() {
                seat.heard(agents.app.clock.now(), None);
                agents.orders.news(id, n);
            }
            continue;
        }
        if !budget.take() {
            let detail = "too many messages".to_owned();
            return End::Refused(Refusal::Malformed { detail });
        }
        let done = match message {
            Said::Long(AgentMessage::Report(r)) if r.rides => {
                rides = Some((r.batch, false));
                Box::pin(heard(agents, id, peer, seat, socket, &keep, AgentMessage::Report(r))).await
            }
            Said::Long(message) => Box::pin(heard(agents, id, peer, seat, socket, &keep, message)).await,
            Said::Short(beat) => {
                let ack = Message::binary(short::ack(&beaten(agents, seat, &beat)));
                match rides.take_if(|(_, done)| *done) {
                    Some((batch, _)) => {
                        transmit_both(socket, ack, Message::binary(short::kept(&ReportAck { batch }))).await
                    }
                    None => transmit(socket, ack).await,
                }
            }
        };
        if let Err(end) = done {
            return end;
        }
    }
}

async fn heard(
    agents: &Agents,
    id: EndpointId,
    peer: SocketAddr,
    seat: &Seat,
    socket: &mut Socket,
    kept: &mpsc::Sender<u64>,
    message: AgentMessage,
) -> Result<(), End> {
    let now = agents.app.clock.now();
    let malformed = |_| End::Refused(Refusal::Malformed { detail: "the report can't be kept".to_owned() });
    match message {
        AgentMessage::Beat(beat) => send(socket, &ControllerMessage::BeatAck(beaten(agents, seat, &beat))).await,
        AgentMessage::Snapshot(s) => {
            seat.heard(now, None);
            let report = endpoints::report_of_snapshot(&s).map_err(malformed)?;
            agents.ingest.send(Update::report(id, now, report)).await;
            Ok(())
        }
        AgentMessage::Change(c) => {
            seat.heard(now, None);
            let report = endpoints::report_of_change(&c).map_err(malformed)?;
            agents.ingest.send(Update::report(id, now, report)).await;
            Ok(())
        }
        AgentMessage::Report(mut r) => {
            seat.heard(now, None);
            health::cut(&mut r);
            agents.ingest.send(Update::health(id, now, *r, kept.clone())).await;
            Ok(())
        }
        AgentMessage::Renew(r) => {
            let ctx = endpoints::as_agent(peer.ip().to_string(), now);
            let issued = endpoints::renew(&agents.app, &ctx, &agents.ca, id, &r.csr_pem).await.map_err(End::Refused)?;
            send(socket, &ControllerMessage::Renewed(issued)).await
        }
        // Taken out before it comes here.
        AgentMessage::OrderNews(_) => Ok(()),
        AgentMessage::Goodbye(g) => Err(End::Goodbye(g.reason)),
        AgentMessage::Hello(_) => Err(End::Refused(Refusal::Malformed { detail: "hello came twice".to_owned() })),
    }
}

/// Takes a beat in; the answer.
fn beaten(agents: &Agents, seat: &Seat, beat: &Beat) -> BeatAck {
    counter!("agent_beats_total").increment(1);
    let now = agents.app.clock.now();
    let server_ms = now.micros() / 1000;
    seat.heard(now, Some(skew(beat.at_ms, server_ms, beat.rtt_us)));
    BeatAck { seq: beat.seq, server_ms }
}

/// What came.
#[expect(clippy::large_enum_variant, reason = "taken apart at once")]
pub(super) enum Said {
    /// A message.
    Long(AgentMessage),
    /// A beat in its short form.
    Short(Beat),
}

/// The next message of a kind we know.
pub(super) async fn next(socket: &mut Socket) -> Result<Said, End> {
    loop {
        let text: Bytes = match socket.next().await {
            Some(Ok(Message::Text(text))) => text.into(),
            Some(Ok(Message::Binary(bytes))) => {
                if let Some(beat) = short::read_beat(&bytes) {
                    return Ok(Said::Short(beat));
                }
                match packed::unpack(&bytes) {
                    Some(Ok(text)) => text.into(),
                    Some(Err(e)) => return Err(malformed(e.code())),
                    None => {
                        counter!("agent_messages_skipped_total").increment(1);
                        continue;
                    }
                }
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
            Some(Err(tungstenite::Error::Capacity(_))) => return Err(malformed("the frame is over the limit")),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(End::Lost),
        };
        match AgentMessage::decode(&text) {
            Ok(Incoming::Message(m)) => return Ok(Said::Long(m)),
            Ok(Incoming::Unknown { .. }) => counter!("agent_messages_skipped_total").increment(1),
            Err(e) => return Err(malformed(e.code())),
        }
    }
}

fn malformed(detail: &str) -> End {
    End::Refused(Refusal::Malformed { detail: detail.to_owned() })
}

pub(super) async fn send(socket: &mut Socket, message: &ControllerMessage) -> Result<(), End> {
    let text = message.encode().map_err(|_| End::Lost)?;
    transmit(socket, Message::text(text)).await
}

pub(super) async fn transmit(socket: &mut Socket, message: Message) -> Result<(), End> {
    match tokio::time::timeout(SEND, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(End::Lost),
    }
}

/// Two messages in one packet.
async fn transmit_both(socket: &mut Socket, first: Message, second: Message) -> Result<(), End> {
    match tokio::time::timeout(SEND, socket.feed(first)).await {
        Ok(Ok(())) => transmit(socket, second).await,
        Ok(Err(_)) | Err(_) => Err(End::Lost),
    }
}

/// Its clock less ours, taking its message to be half a round trip old.
pub(super) fn skew(at_ms: i64, server_ms: i64, rtt_us: Option<u32>) -> i64 {
    at_ms.saturating_add(i64::from(rtt_us.unwrap_or(0)) / 2000).saturating_sub(server_ms)
}

/// A bound on messages a second, so that one mad agent can't fill the writer's queue.
pub(super) struct Budget {
    most: u32,
    left: u32,
    since: tokio::time::Instant,
}

impl Budget {
    pub(super) fn new(most: u32) -> Self {
        Self { most, left: most, since: tokio::time::Instant::now() }
    }

    pub(super) fn take(&mut self) -> bool {
        let periods = self.since.elapsed().as_secs() / REFILL.as_secs();
        if periods > 0 {
            self.left = self.left.saturating_add(u32::try_from(periods).unwrap_or(self.most)).min(self.most);
            self.since = tokio::time::Instant::now();
        }
        let ok = self.left > 0;
        self.left = self.left.saturating_sub(1);
        ok
    }
}
