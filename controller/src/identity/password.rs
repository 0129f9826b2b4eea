//! Passwords: Argon2id, with a bound on hashes computed at once.

/// Hashes and checks passwords off the async threads.
#[derive(Clone, Debug, Default)]
pub struct Passwords;
