//! Floor 4: reconcilers.
