//! Signing in at an endpoint: requests beside the link, each proved by the device certificate.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use metrics::counter;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tram_wire::call::{CALL_PATH, Call};
use tram_wire::desk::{
    CONNECT_PATH, Connect, Connected, Current, LEASE_PATH, Leased, Problem, SESSION_PATH, SIGN_IN_PATH, SIGN_OUT_PATH,
    SUPPORT_PATH, Session, SignIn, SignOut, SignedIn, Step, Support, Ticket,
};
use tram_wire::refusal::Refusal;

use super::Agents;
use super::accept::{json, read, status};
use super::limit::Kind;
use crate::domain::time::Time;
use crate::identity::secret::Secret;
use crate::services::gateways::{self, Target};
use crate::services::{Error, broker, calls, desk, endpoints, leases};

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    SignIn,
    Connect,
    Session,
    Lease,
    SignOut,
    Support,
    Call,
}

impl Ask {
    pub(super) fn of(method: &Method, path: &str) -> Option<Self> {
        match (method, path) {
            (&Method::POST, SIGN_IN_PATH) => Some(Self::SignIn),
            (&Method::POST, CONNECT_PATH) => Some(Self::Connect),
            (&Method::GET, SESSION_PATH) => Some(Self::Session),
            (&Method::POST, LEASE_PATH) => Some(Self::Lease),
            (&Method::POST, SIGN_OUT_PATH) => Some(Self::SignOut),
            (&Method::GET, SUPPORT_PATH) => Some(Self::Support),
            (&Method::POST, CALL_PATH) => Some(Self::Call),
            _ => None,
        }
    }

    fn kind(self) -> Kind {
        if self == Self::SignIn { Kind::SignIn } else { Kind::Other }
    }
}

pub(super) async fn answer(
    agents: &Agents,
    certificate: Option<&CertificateDer<'static>>,
    peer: SocketAddr,
    ask: Ask,
    request: Request<Incoming>,
) -> Response<Body> {
    let done = match admit(agents, certificate, peer, ask).await {
        Ok(at) => match ask {
            Ask::SignIn => sign_in(agents, &at, request).await,
            Ask::Connect => connect(agents, &at, request).await,
            Ask::Session => session(agents, &at, request).await,
            Ask::Lease => lease(agents, &at, request).await,
            Ask::SignOut => sign_out(agents, &at, request).await,
            Ask::Support => Ok(json(StatusCode::OK, &Support { phone: agents.app.support_phone.clone() })),
            Ask::Call => call(agents, &at, request).await,
        },
        Err(no) => Err(no),
    };
    let (mut response, result) = match done {
        Ok(response) => (response, "ok".to_owned()),
        Err(No(status, problem)) => (json(status, &problem), problem.code),
    };
    counter!("desk_requests_total", "result" => result).increment(1);
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

/// Not done, and why.
struct No(StatusCode, Problem);

impl No {
    fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self(status, Problem { code: code.into(), detail: detail.into(), remaining: None, retry_after_s: None })
    }

    fn retry_after(mut self, wait: Duration) -> Self {
        // Rounded up: asking a moment too early would be refused again.
        self.1.retry_after_s = Some(wait.as_secs() + 1);
        self
    }

    fn of(e: &Error, now: Time) -> Self {
        if let Error::Internal(source) = e {
            tracing::error!(error = %source, "a request of an endpoint failed");
        }
        let status = match e {
            Error::NotFound(..) => StatusCode::NOT_FOUND,
            Error::Conflict(..) | Error::Elsewhere(_) => StatusCode::CONFLICT,
            Error::Invalid(..) => StatusCode::UNPROCESSABLE_ENTITY,
            Error::Unauthenticated(..) | Error::WrongPassword { .. } => StatusCode::UNAUTHORIZED,
            Error::Locked(..) => StatusCode::LOCKED,
            Error::Forbidden(..) => StatusCode::FORBIDDEN,
            Error::Capacity(..) => StatusCode::INSUFFICIENT_STORAGE,
            Error::Unavailable(..) => StatusCode::SERVICE_UNAVAILABLE,
            Error::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut no = Self::new(status, e.code(), e.to_string());
        match e {
            // A span, not a time: the endpoint's clock may be wrong.
            Error::Locked(_, _, until) => no = no.retry_after(until.since(now)),
            Error::WrongPassword { remaining } => no.1.remaining = Some(*remaining),
            _ => {}
        }
        no
    }
}

/// Code of a device that is not served; the words are the refusal's own.
fn device(refusal: &Refusal) -> No {
    let code = match refusal {
        Refusal::Unknown => "E-301",
        Refusal::Revoked => "E-302",
        Refusal::Expired => "E-303",
        Refusal::Clock { .. } => "E-304",
        Refusal::Busy { .. } => "E-305",
        Refusal::Clone => "E-306",
        _ => "E-300",
    };
    let busy = matches!(refusal, Refusal::Busy { .. });
    No::new(if busy { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::FORBIDDEN }, code, refusal.to_string())
}

/// Which endpoint asks, if it may.
async fn admit(
    agents: &Agents,
    certificate: Option<&CertificateDer<'static>>,
    peer: SocketAddr,
    ask: Ask,
) -> Result<desk::Endpoint, No> {
    let certificate = certificate.ok_or_else(|| device(&Refusal::Unknown))?;
    let id = agents.ca.check(certificate, agents.app.clock.now()).map_err(|r| device(&r))?;
    agents.limits.take(id, ask.kind(), tokio::time::Instant::now()).map_err(|wait| {
        No::new(StatusCode::TOO_MANY_REQUESTS, "E-429", "too many requests of this computer").retry_after(wait)
    })?;
    endpoints::standing(&agents.app, id).await.map_err(|r| device(&r))?;
    let ip = peer.ip().to_canonical().to_string();
    Ok(desk::Endpoint { id, certificate: Sha256::digest(certificate).into(), ip })
}

/// Who asks, by the token of an earlier sign-in.
async fn visit(
    agents: &Agents,
    at: &desk::Endpoint,
    request: &Request<Incoming>,
) -> Result<crate::services::sign_in::Visit, No> {
    let token = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()?.strip_prefix("Bearer "));
    let now = agents.app.clock.now();
    desk::visit(&agents.app, at, token.unwrap_or_default()).await.map_err(|e| No::of(&e, now))
}

fn unread() -> No {
    No::new(StatusCode::BAD_REQUEST, "X-400", "the body is not what is asked for here")
}

async fn sign_in(agents: &Agents, at: &desk::Endpoint, request: Request<Incoming>) -> Result<Response<Body>, No> {
    let SignIn { username, password } = read(request).await.ok_or_else(unread)?;
    let now = agents.app.clock.now();
    let opened = desk::sign_in(&agents.app, at, &username, &Secret::from_text(password)).await;
    let opened = opened.map_err(|e| No::of(&e, now))?;
    let user = opened.person.user;
    let (token, language) = (opened.token.reveal().to_owned(), user.language.as_str().to_owned());
    Ok(json(StatusCode::OK, &SignedIn { token, display_name: user.display_name, language }))
}

async fn connect(agents: &Agents, at: &desk::Endpoint, request: Request<Incoming>) -> Result<Response<Body>, No> {
    let visit = visit(agents, at, &request).await?;
    let Connect { take_over } = read(request).await.ok_or_else(unread)?;
    let now = visit.ctx.now;
    let (view, ticket) = desk::connect(&agents.app, at, &visit, take_over).await.map_err(|e| No::of(&e, now))?;
    let gateways = match &ticket {
        Some(t) => gateways::place(&agents.app, &t.to).await.map_err(|e| No::of(&e, now))?.agents,
        None => Vec::new(),
    };
    let ticket = ticket.map(|t| Ticket { ticket: t.secret.reveal().to_owned(), expires_s: t.expires_in.as_secs() });
    Ok(json(StatusCode::OK, &Connected { session: shown(view), ticket, gateways }))
}

async fn session(agents: &Agents, at: &desk::Endpoint, request: Request<Incoming>) -> Result<Response<Body>, No> {
    let visit = visit(agents, at, &request).await?;
    let view = desk::session(&agents.app, &visit).await.map_err(|e| No::of(&e, visit.ctx.now))?;
    let to = view.as_ref().map(|v| Target { session: v.session.id, host: v.session.host_id, left: None });
    // What is known helps; that there is none now is told when it is needed.
    let gateways = match to {
        Some(to) => gateways::place(&agents.app, &to).await.map(|p| p.agents).unwrap_or_default(),
        None => Vec::new(),
    };
    Ok(json(StatusCode::OK, &Current { session: view.map(shown), gateways }))
}

async fn lease(agents: &Agents, at: &desk::Endpoint, request: Request<Incoming>) -> Result<Response<Body>, No> {
    let visit = visit(agents, at, &request).await?;
    let leased = leases::issue(&agents.app, at, &visit).await.map_err(|e| No::of(&e, visit.ctx.now))?;
    Ok(json(StatusCode::OK, &Leased { lease: leased.lease, renew_s: leased.renew.as_secs() }))
}

async fn call(agents: &Agents, at: &desk::Endpoint, request: Request<Incoming>) -> Result<Response<Body>, No> {
    let made: Call = read(request).await.ok_or_else(unread)?;
    let kept = calls::receive(&agents.app, at, &made).await.map_err(|e| No::of(&e, agents.app.clock.now()))?;
    Ok(json(StatusCode::OK, &kept))
}

async fn sign_out(agents: &Agents, at: &desk::Endpoint, request: Request<Incoming>) -> Result<Response<Body>, No> {
    let visit = visit(agents, at, &request).await?;
    let SignOut { end_session } = read(request).await.ok_or_else(unread)?;
    desk::sign_out(&agents.app, &visit, end_session).await.map_err(|e| No::of(&e, visit.ctx.now))?;
    Ok(status(StatusCode::NO_CONTENT))
}

fn shown(v: broker::View) -> Session {
    let line = v.queue.map(|q| Step {
        code: v.state.as_str().to_owned(),
        estimate_s: q.estimate_s,
        progress: None,
        position: u64::try_from(q.position).ok(),
    });
    let step = v.step.map(|s| Step {
        code: s.code.as_str().to_owned(),
        estimate_s: s.estimate_s,
        progress: s.progress,
        position: None,
    });
    let step = line.or(step);
    Session {
        id: v.session.id,
        state: v.state.as_str().to_owned(),
        desktop: v.session.desktop_name.clone(),
        step,
        end_reason: v.session.end_reason.clone(),
    }
}
