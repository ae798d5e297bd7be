"""Values and their parsing: no I/O, no clock, no randomness, no logging."""
