//! The keys that sign orders to endpoints. Their public halves go to endpoints with the enrolment and each link.

use std::path::Path;

use tram_wire::diagnosis::{Order, OrderKey, SignedOrder};

use super::authority::CaError;
use super::key_file::KeyFile;
use crate::domain::lease::hex;

const FILE: &str = "order-keys.pem";

/// The keys, opened.
pub struct OrderKeys(KeyFile);

impl OrderKeys {
    /// Opens the keys of a data folder; makes one if there is none.
    ///
    /// # Errors
    /// [`CaError::File`], [`CaError::Damaged`].
    pub fn open(data: &Path) -> Result<Self, CaError> {
        KeyFile::open(data, FILE).map(Self)
    }

    /// Puts a new key before the one that signs now; the former one goes too if `forget`.
    ///
    /// # Errors
    /// [`CaError::File`], [`CaError::Damaged`].
    pub fn renew(data: &Path, forget: bool) -> Result<Self, CaError> {
        KeyFile::renew(data, FILE, forget).map(Self)
    }

    /// What proves orders.
    #[must_use]
    pub fn public(&self) -> Vec<OrderKey> {
        self.0.public().into_iter().map(|(id, public)| OrderKey { id, public: hex(&public) }).collect()
    }

    /// Signs an order.
    ///
    /// # Errors
    /// [`CaError::Make`].
    pub fn sign(&self, order: &Order) -> Result<SignedOrder, CaError> {
        let text = serde_json::to_string(order).map_err(|_| CaError::Request("the order can't be written"))?;
        let mut signed = SignedOrder { id: order.id, key: self.0.id()?, order: text, signature: String::new() };
        signed.signature = self.0.sign(&signed.signed_bytes())?;
        Ok(signed)
    }
}
