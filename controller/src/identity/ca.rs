//! The device certificate authority.
