//! Floor 4: the endpoint link.
