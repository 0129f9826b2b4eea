//! Passwords: Argon2id, with a bound on hashes computed at once.
//!
//! One hash takes 19 MiB and tens of milliseconds of a core. Unbounded, a burst of sign-ins (or of guesses)
//! would take the whole controller's memory and processors: so as many run as there are cores, a few wait,
//! and the rest are told to come back.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use argon2::{Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version};
use tokio::sync::Semaphore;

use super::secret::Secret;

/// OWASP's recommendation for Argon2id: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;

/// How many may wait for each core: about a second's worth, more would only time out.
const WAITING_PER_CORE: usize = 16;

/// Longest password. Argon2 takes any length; hashing megabytes for a stranger is not our job.
pub const MAX_BYTES: usize = 256;

/// Why a hash was not computed.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many are being computed: try again in a moment.
    #[error("too many sign-ins at this moment")]
    Busy,
    /// The stored hash does not parse, or memory ran out.
    #[error("password hashing failed: {0}")]
    Broken(String),
}

/// Hashes and checks passwords off the async threads. Cheap to clone; clones share one bound.
#[derive(Clone, Debug)]
pub struct Passwords(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cores: Arc<Semaphore>,
    /// The hash of a password nobody has, made on first need.
    nobody: OnceLock<String>,
    waiting: AtomicUsize,
    waiting_max: usize,
    memory_kib: u32,
    passes: u32,
}

impl Default for Passwords {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with(cores, cores * WAITING_PER_CORE, MEMORY_KIB, PASSES)
    }
}

impl Passwords {
    fn with(cores: usize, waiting_max: usize, memory_kib: u32, passes: u32) -> Self {
        Self(Arc::new(Inner {
            cores: Arc::new(Semaphore::new(cores)),
            nobody: OnceLock::new(),
            waiting: AtomicUsize::new(0),
            waiting_max,
            memory_kib,
            passes,
        }))
    }

    /// Hashes that cost next to nothing, for tests that make many accounts. Never for a server.
    #[must_use]
    pub fn cheap_for_tests() -> Self {
        Self::with(4, 1000, Params::MIN_M_COST, 1)
    }

    /// Computes the hash to store, with a fresh salt, as a PHC string.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] when too many wait already.
    pub async fn hash(&self, password: &Secret) -> Result<String, PasswordError> {
        let password = password.clone();
        self.run(move |argon2| hash_with(argon2, &password)).await
    }

    /// Whether the password is the one behind the stored hash. For an unknown user pass `None`: the answer
    /// is `false` after the same work, so that time does not tell who has an account.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] when too many wait already.
    pub async fn verify(&self, stored: Option<&str>, password: &Secret) -> Result<bool, PasswordError> {
        let known = stored.is_some();
        let stored = match stored {
            Some(hash) => hash.to_owned(),
            None => self.nobody().await?,
        };
        let password = password.clone();
        let right = self
            .run(move |argon2| {
                let parsed = PasswordHash::new(&stored).map_err(broken)?;
                Ok(argon2.verify_password(password.reveal().as_bytes(), &parsed).is_ok())
            })
            .await?;
        Ok(right && known)
    }

    async fn nobody(&self) -> Result<String, PasswordError> {
        if let Some(hash) = self.0.nobody.get() {
            return Ok(hash.clone());
        }
        let hash = self.hash(&Secret::generate("")).await?;
        Ok(self.0.nobody.get_or_init(|| hash).clone())
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Argon2<'static>) -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let inner = &self.0;
        let place = Waiting::take(inner)?;
        let core = inner.cores.clone().acquire_owned().await.map_err(|_| PasswordError::Busy)?;
        drop(place);
        let params = Params::new(inner.memory_kib, inner.passes, 1, None).map_err(broken)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        tokio::task::spawn_blocking(move || {
            // Held by the work, not by whoever waits for it: a caller that hangs up frees no core.
            let _core = core;
            work(&argon2)
        })
        .await
        .unwrap_or_else(|e| Err(broken(e)))
    }
}

fn hash_with(argon2: &Argon2<'static>, password: &Secret) -> Result<String, PasswordError> {
    let hash: PasswordHash = argon2.hash_password(password.reveal().as_bytes()).map_err(broken)?;
    Ok(hash.to_string())
}

fn broken(e: impl std::fmt::Display) -> PasswordError {
    PasswordError::Broken(e.to_string())
}

/// A place in the queue, given back when dropped, also when the caller hangs up while waiting.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn take(inner: &'a Inner) -> Result<Self, PasswordError> {
        if inner.waiting.fetch_add(1, Ordering::SeqCst) >= inner.waiting_max {
            inner.waiting.fetch_sub(1, Ordering::SeqCst);
            return Err(PasswordError::Busy);
        }
        Ok(Self(&inner.waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_right_password_passes_and_nothing_else() {
        let passwords = Passwords::cheap_for_tests();
        let secret = Secret::from_text("đường Đê La Thành 12");
        let stored = passwords.hash(&secret).await.unwrap();
        assert!(passwords.verify(Some(&stored), &secret).await.unwrap());
        assert!(!passwords.verify(Some(&stored), &Secret::from_text("đường Đê La Thành 13")).await.unwrap());
        assert!(!passwords.verify(None, &secret).await.unwrap());
        assert!(matches!(passwords.verify(Some("rubbish"), &secret).await, Err(PasswordError::Broken(_))));
        assert_ne!(stored, passwords.hash(&secret).await.unwrap(), "the salt is fresh");
    }

    #[tokio::test]
    async fn real_hashes_follow_owasp() {
        let stored = Passwords::default().hash(&Secret::from_text("x")).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
    }

    #[tokio::test]
    async fn a_full_queue_says_busy_and_recovers() {
        let passwords = Passwords::with(1, 1, Params::MIN_M_COST, 1);
        let core = passwords.0.cores.clone().acquire_owned().await.unwrap();
        let waiter = tokio::spawn({
            let passwords = passwords.clone();
            async move { passwords.hash(&Secret::from_text("a")).await }
        });
        while passwords.0.waiting.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(passwords.hash(&Secret::from_text("b")).await, Err(PasswordError::Busy)));
        drop(core);
        waiter.await.unwrap().unwrap();
        passwords.hash(&Secret::from_text("b")).await.unwrap();
    }

    #[tokio::test]
    async fn hanging_up_while_waiting_gives_the_place_back() {
        let passwords = Passwords::with(1, 1, Params::MIN_M_COST, 1);
        let core = passwords.0.cores.clone().acquire_owned().await.unwrap();
        let waiter = tokio::spawn({
            let passwords = passwords.clone();
            async move { passwords.hash(&Secret::from_text("a")).await }
        });
        while passwords.0.waiting.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        waiter.abort();
        assert!(waiter.await.unwrap_err().is_cancelled());
        drop(core);
        passwords.hash(&Secret::from_text("b")).await.unwrap();
    }
}
