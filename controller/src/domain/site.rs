//! Rules about sites.
