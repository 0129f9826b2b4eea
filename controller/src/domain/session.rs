//! Rules about sessions.
