"""The two algorithms that wrap a layer's key (docs/protocols.md 3.2)."""

from __future__ import annotations

from enum import StrEnum

from coco_kp.errors import InputError
from coco_kp.redact import shown


class Algorithm(StrEnum):
    """What wraps a layer's key: ``wrap_type`` of a packet, in which case counts."""

    A256GCM = "A256GCM"
    """AES-256-GCM: the default. Tampering with the packet is detected."""

    A256CTR = "A256CTR"
    """AES-256-CTR: does not detect tampering; for guests that can do nothing else."""

    @property
    def iv_size(self) -> int:
        """Bytes of its IV."""
        return 12 if self is Algorithm.A256GCM else 16

    @property
    def tag_size(self) -> int:
        """Bytes of the tag at the end of the wrapped data."""
        return 16 if self is Algorithm.A256GCM else 0


def parse_algorithm(text: str, what: str) -> Algorithm:
    """Read an algorithm's name. Raises ``InputError`` that names the two."""
    try:
        return Algorithm(text)
    except ValueError:
        hint = "use A256GCM (default, detects tampering) or A256CTR (does not); case matters"
        raise InputError(f"{what} {shown(text)} is unknown", hint) from None
