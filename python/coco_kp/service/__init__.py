"""Whose key it is that a door's caller wants: the key provider's calls, and the KBS's plugin."""
