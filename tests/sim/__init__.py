"""The other side, simulated in this process: a registry that fails as it is told."""
