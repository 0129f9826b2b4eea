//! Who may sign releases of the agent. Endpoints have the same keys and decide for themselves; this one only spares them
//! what they would refuse.

use std::collections::BTreeSet;

use tram_wire::update::{Manifest, SignedManifest};

use super::papers::{self, PublicKeys, Purpose};

/// Whose signatures count, and how many are needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signers {
    /// Their keys.
    pub keys: PublicKeys,
    /// How many of them must sign.
    pub needed: usize,
}

impl Default for Signers {
    fn default() -> Self {
        Self { keys: PublicKeys::new(), needed: 2 }
    }
}

/// Why a release is not taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseFault {
    /// Its manifest makes no sense.
    #[error("{0}: {1}")]
    Manifest(&'static str, String),
    /// Too few of those who may have signed it.
    #[error("{0} of {1} signatures by keys of [updates] keys: computers would refuse it")]
    Signatures(usize, usize),
}

impl Signers {
    /// Proves a manifest; what it says.
    ///
    /// # Errors
    /// [`ReleaseFault`].
    pub fn prove(&self, signed: &SignedManifest) -> Result<Manifest, ReleaseFault> {
        let manifest = signed.read().map_err(|(code, why)| ReleaseFault::Manifest(code, why))?;
        let good = signed
            .signatures
            .iter()
            .filter(|s| papers::prove(&self.keys, &s.key, Purpose::Release, &signed.manifest, &s.signature).is_ok());
        let by: BTreeSet<&str> = good.map(|s| s.key.as_str()).collect();
        if by.len() < self.needed {
            return Err(ReleaseFault::Signatures(by.len(), self.needed));
        }
        Ok(manifest)
    }
}
