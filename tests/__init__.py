"""The tests; a package, so that every folder of them can use the peers and builders of another."""
