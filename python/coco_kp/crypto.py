"""The native core for the rest of coco-kp, which alone imports it.

Keys that leave Rust as ``bytes`` live in Python's ordinary memory until it is reused: Python cannot
wipe them. They are kept for as short as their use takes.
"""

from __future__ import annotations

from coco_kp._native import (
    CHUNK,
    Kek,
    LayerOpener,
    LayerSealer,
    OpenedLayer,
    SealedLayer,
    kernel,
)
from coco_kp._native import Progress as PumpProgress

__all__ = ["CHUNK", "KEK_SIZE", "SAMPLE_KEK", "Kek", "LayerOpener", "LayerSealer", "OpenedLayer"]
__all__ += ["PumpProgress", "SealedLayer", "kernel"]

KEK_SIZE = 32
"""Bytes of a key-encryption key: both algorithms are AES-256."""

SAMPLE_KEK = bytes.fromhex("d99b7705b0ba7a168295b3a3367270b0dd9b371bf514ca8b9ba7f0a33711daea")
"""The KEK compiled into every sample KBC: public, so no secret (docs/protocols.md 3.2)."""
