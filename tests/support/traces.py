"""What a secret looks like where it must not show."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode

WINDOW = 12
"""Bytes of a key in a row that give it away; 12 are 16 characters of base64."""


def traces(secret: bytes) -> set[bytes]:
    """Return every form in which a piece of a secret would show."""
    found = set()
    for text in (secret, b64encode(secret)):  # JSON holds keys in base64, and is encoded again
        for start in range(len(text) - WINDOW + 1):
            piece = text[start : start + WINDOW]
            # With all starts, base64 of a piece covers each alignment.
            found |= {piece, b64encode(piece), urlsafe_b64encode(piece)}
            found |= {piece.hex().encode(), piece.hex().upper().encode()}
            found |= {repr(piece)[2:-1].encode()}
            found |= {",".join(map(str, piece)).encode(), ", ".join(map(str, piece)).encode()}
    return found
