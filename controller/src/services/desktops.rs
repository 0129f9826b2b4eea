//! Desktops.
