//! Floor 4: carries display traffic. Never changes the outside world.
