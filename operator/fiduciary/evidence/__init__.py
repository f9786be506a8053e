"""Statistics as pure functions on sufficient statistics: no clock, no randomness, no array library."""
