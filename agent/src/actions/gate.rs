//! Whether an order is obeyed: who signed it, for whom, until when, whether it was seen before, and what this
//! computer forbids.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use tram_wire::diagnosis::{MAX_ORDER, Order, OrderKey, Refused, SignedOrder, VERSION};
use tram_wire::ids::{EndpointId, OrderId};

use crate::deny;
use crate::identity::write_private;

const KEYS: &str = "order-keys.json";
const SEEN: &str = "orders-seen.json";
/// An order signed later than now is a wrong clock up to here.
const AHEAD_MS: i64 = 120_000;
/// No order is good for longer, whatever it says.
const LONGEST_MS: i64 = 600_000;
/// Orders remembered whatever their age, against clocks that are set back.
const ALWAYS: usize = 1024;
/// How long after its end an order is remembered.
const KEPT_MS: i64 = 86_400_000;

/// Ids of orders and when they end.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Seen(BTreeMap<OrderId, i64>);

/// The gate.
#[derive(Debug)]
pub struct Gate {
    state: PathBuf,
    deny: PathBuf,
    endpoint: EndpointId,
    keys: Vec<OrderKey>,
    /// `None`: what was seen can't be read, so everything may have been.
    seen: Option<Seen>,
}

/// Keeps what proves orders, as enrolment and each link say it. A controller that names none changes nothing.
pub fn keep_keys(state: &Path, keys: &[OrderKey]) {
    if keys.is_empty() {
        return;
    }
    if let Ok(bytes) = serde_json::to_vec(keys) {
        let _ = write_private(state, KEYS, &bytes);
    }
}

impl Gate {
    /// With what was kept.
    #[must_use]
    pub fn open(state: &Path, deny: &Path, endpoint: EndpointId) -> Self {
        let keys = std::fs::read(state.join(KEYS)).ok().and_then(|b| serde_json::from_slice(&b).ok());
        let seen = match std::fs::read(state.join(SEEN)) {
            Ok(bytes) => serde_json::from_slice(&bytes).ok(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Some(Seen::default()),
            Err(_) => None,
        };
        Self { state: state.to_owned(), deny: deny.to_owned(), endpoint, keys: keys.unwrap_or_default(), seen }
    }

    /// Takes over the keys a controller names on a link that is proved.
    pub fn keys(&mut self, keys: &[OrderKey]) {
        if !keys.is_empty() && self.keys != keys {
            self.keys = keys.to_vec();
            keep_keys(&self.state, keys);
        }
    }

    /// Proves an order; `now_ms` by the controller's clock. Each is decided once: a second time it is a replay.
    ///
    /// # Errors
    /// Why not, with the order if it is surely the controller's.
    pub fn prove(&mut self, signed: &SignedOrder, now_ms: i64) -> Result<Order, (Option<Box<Order>>, Refused)> {
        let order = self.signed(signed, now_ms).map_err(|e| (None, e))?;
        if let Err(code) = self.once(&order, now_ms).and_then(|()| allowed(&order, &self.deny)) {
            return Err((Some(Box::new(order)), code));
        }
        Ok(order)
    }

    fn signed(&self, signed: &SignedOrder, now_ms: i64) -> Result<Order, Refused> {
        if signed.order.len() > MAX_ORDER || signed.signature.len() != 128 {
            return Err(Refused::Malformed);
        }
        let key = self.keys.iter().find(|k| k.id == signed.key).ok_or(Refused::Key)?;
        let public = unhex(&key.public).ok_or(Refused::Key)?;
        let signature = unhex(&signed.signature).ok_or(Refused::Signature)?;
        let key = UnparsedPublicKey::new(&ED25519, public);
        key.verify(&signed.signed_bytes(), &signature).map_err(|_| Refused::Signature)?;
        let order: Order = serde_json::from_str(&signed.order).map_err(|_| {
            // Well written, and of a kind made after this build; or nonsense.
            let json = serde_json::from_str::<serde_json::Value>(&signed.order);
            if json.is_ok_and(|v| v["work"].is_object()) { Refused::Unknown } else { Refused::Malformed }
        })?;
        if order.version != VERSION || order.id != signed.id {
            return Err(Refused::Malformed);
        }
        if order.endpoint != self.endpoint {
            return Err(Refused::Endpoint);
        }
        let life = order.expires_ms.saturating_sub(order.issued_ms);
        let good = (order.issued_ms.saturating_sub(AHEAD_MS)..order.expires_ms).contains(&now_ms);
        if !good || life > LONGEST_MS {
            return Err(Refused::Expired);
        }
        order.work.check().map_err(|_| Refused::Unknown)?;
        Ok(order)
    }

    /// Remembers it, on disk, before anything is done.
    fn once(&mut self, order: &Order, now_ms: i64) -> Result<(), Refused> {
        let seen = self.seen.as_mut().ok_or(Refused::Disk)?;
        if seen.0.contains_key(&order.id) {
            return Err(Refused::Replayed);
        }
        let old: Vec<OrderId> =
            seen.0.iter().filter(|(_, end)| end.saturating_add(KEPT_MS) < now_ms).map(|(id, _)| *id).collect();
        // Ids sort by time: the oldest go first.
        let spare = seen.0.len().saturating_sub(ALWAYS);
        for id in old.into_iter().take(spare) {
            seen.0.remove(&id);
        }
        seen.0.insert(order.id, order.expires_ms);
        let bytes = serde_json::to_vec(seen).map_err(|_| Refused::Disk)?;
        write_private(&self.state, SEEN, &bytes).map_err(|_| Refused::Disk)
    }
}

/// Looks into the deny file.
fn allowed(order: &Order, file: &Path) -> Result<(), Refused> {
    let actions = order.work.actions();
    let names: Vec<&str> = actions.iter().map(tram_wire::diagnosis::Action::name).collect();
    if deny::forbids(file, order.work.name(), &names) { Err(Refused::Denied) } else { Ok(()) }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16);
    #[allow(clippy::cast_possible_truncation)] // two digits of four bits
    let pair = |p: &[u8]| Some((digit(*p.first()?)? * 16 + digit(*p.get(1)?)?) as u8);
    text.as_bytes().chunks(2).map(pair).collect()
}
