//! Rules about endpoints.
