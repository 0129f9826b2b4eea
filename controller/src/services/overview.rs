//! Overview.
