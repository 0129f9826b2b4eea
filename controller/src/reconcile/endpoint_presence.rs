//! Notices endpoints that fell silent.
