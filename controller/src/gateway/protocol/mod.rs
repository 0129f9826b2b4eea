//! Display protocols, as far as the gateway takes part in them.

pub mod vnc;
