"""Keys: which key, from where, kept by whom (docs/architecture.md, "The way of a key")."""
