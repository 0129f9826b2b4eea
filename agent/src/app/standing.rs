//! Who this computer is to its controller: its certificate's renewal, and what becomes of an identity that several show.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tram_wire::AgentMessage;
use tram_wire::enrol::{EnrolResponse, Issued, Renew};
use tram_wire::hello::Hello;

use super::linking::Opened;
use super::{App, note};
use crate::actions::Measure;
use crate::config::Address;
use crate::host::Host;
use crate::identity::Request;
use crate::link::{LinkError, bandwidth, renew, tls};
use crate::outbox::Outbox;
use crate::status::LinkStatus;
use crate::{collect, generalize};

/// How an order measures the line: by the identity this computer has now.
pub(super) fn measure(to: Address, tls: Arc<ClientConfig>) -> Measure {
    Measure(Arc::new(move |order| {
        let (to, tls) = (to.clone(), tls.clone());
        Box::pin(async move { bandwidth::measure(&to, tls, order).await })
    }))
}

impl<H: Host + Send + 'static> App<H> {
    pub(super) fn schedule_renewal(&mut self, at_ms: i64) {
        let server_now = self.wall_ms().saturating_sub(self.machine.skew_ms().unwrap_or(0));
        let wait = u64::try_from(at_ms.saturating_sub(server_now)).unwrap_or(0);
        self.machine.renew_at(self.now() + Duration::from_millis(wait));
    }

    pub(super) async fn renew(&mut self) {
        match Request::new() {
            Ok(request) => {
                let message = AgentMessage::Renew(Renew { csr_pem: request.csr_pem.clone() });
                self.renewal = Some(request);
                self.send(&message).await;
            }
            Err(e) => note(&format!("renewal: {e}")),
        }
    }

    pub(super) fn renewed(&mut self, issued: Issued) {
        let Some(request) = self.renewal.take() else { return };
        let next = self.identity.renewed(&request, issued);
        // A certificate that doesn't fit the key would lock us out: try it before it replaces the old.
        let usable = tls::link(&next).map_err(|e| e.to_string());
        match usable.and_then(|tls| next.save(&self.state).map(|()| tls).map_err(|e| e.to_string())) {
            Ok(tls) => {
                note("the certificate was renewed");
                self.tls = tls;
                self.identity = next;
                self.schedule_renewal(self.identity.issued.renew_at_ms());
                self.save_status();
            }
            Err(e) => note(&format!("the new certificate can't be used: {e}")),
        }
    }

    pub(super) fn hello(&self) -> Hello {
        let mut hello = collect::hello(&self.host, self.identity.connects);
        hello.key = Some(self.identity.key_place());
        if let Some(instance) = &mut hello.instance {
            instance.nonce.clone_from(&self.nonce);
            instance.copy.clone_from(&self.identity.copy);
        }
        hello
    }

    /// Several computers show this identity. From here on this one can be told from the others.
    pub(super) fn quarantined(&mut self, wall: i64) {
        self.status = LinkStatus::Quarantined { since_ms: wall };
        self.up = Some((self.now(), false));
        if self.identity.copy.is_some() {
            note("several computers show this identity; an operator has to say whose it is");
            self.save_status();
            return;
        }
        let marked =
            self.identity.mark_as_copy().and_then(|()| self.identity.save(&self.state).map_err(std::io::Error::other));
        match marked {
            // The mark is part of hello.
            Ok(()) => self.lost("several computers show this identity"),
            Err(e) => note(&format!("this computer can't be told from its copies: {e}")),
        }
    }

    /// Whatever was said of copies is over.
    pub(super) fn settled(&mut self) {
        if self.identity.copy.take().is_some()
            && let Err(e) = self.identity.save(&self.state)
        {
            note(&format!("the identity can't be saved: {e}"));
        }
    }

    /// This computer was a copy, and is an endpoint of its own now. What waited was made under the other's name.
    pub(super) fn reborn(&mut self, answer: EnrolResponse) {
        let Some(request) = self.renewal.take() else { return };
        let next = self.identity.reborn(&request, answer.endpoint_id, answer.issued);
        let usable = tls::link(&next).map_err(|e| e.to_string());
        match usable.and_then(|tls| next.save(&self.state).map(|()| tls).map_err(|e| e.to_string())) {
            Ok(tls) => {
                note(&format!("this computer is endpoint {} from now on", next.endpoint_id));
                self.tls = tls;
                self.identity = next;
                self.plan = None;
                self.outbox.cut();
                generalize::forget(&self.state);
                self.outbox = Outbox::open(&self.state);
                self.lost("this computer has a new identity");
            }
            Err(e) => note(&format!("the new identity can't be used: {e}")),
        }
    }
}

/// Asks for a certificate for a new key, by the ended one.
pub(super) async fn renew_ended(to: &Address, tls: Arc<ClientConfig>) -> Opened {
    let failed = |e: String| Opened::Failed(LinkError::Connect(std::io::Error::other(e)));
    let request = match Request::new() {
        Ok(request) => request,
        Err(e) => return failed(e.to_string()),
    };
    match renew::renew(to, tls, &request.csr_pem).await {
        Ok(issued) => Opened::Renewed(request, issued),
        Err(renew::RenewError::Refused(refusal)) => Opened::Refused(refusal),
        Err(e) => failed(e.to_string()),
    }
}
