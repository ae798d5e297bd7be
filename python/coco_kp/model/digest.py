"""Content digests: the names of blobs and manifests (OCI image specification, descriptor.md)."""

from __future__ import annotations

import hashlib
import re
from typing import Final, Protocol

from coco_kp.errors import InputError
from coco_kp.redact import shown
from coco_kp.values import dataclass

HEX_LENGTHS: Final = {"sha256": 64, "sha512": 128}
"""Digits of a digest by its algorithm (descriptor.md)."""


class Hasher(Protocol):
    """What :mod:`hashlib` gives: a digest that grows with the data."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take more of the data."""

    def hexdigest(self) -> str:
        """Return the digest of all data so far."""


@dataclass(frozen=True, slots=True)
class Digest:
    """The name of content (OCI image specification, descriptor.md).

    Attributes:
        algorithm: ``sha256`` or ``sha512``.
        hex: The value, in lower-case hex.
    """

    algorithm: str
    hex: str

    def __str__(self) -> str:
        """Return ``algorithm:hex``, as it stands in descriptors."""
        return f"{self.algorithm}:{self.hex}"

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """Return the SHA-256 digest of ``data``."""
        return cls("sha256", hashlib.sha256(data).hexdigest())

    def matches(self, data: bytes) -> bool:
        """Return whether this is the digest of ``data``."""
        return hashlib.new(self.algorithm, data).hexdigest() == self.hex


def hasher_like(digest: Digest) -> Hasher:
    """Start a computation with the digest's algorithm."""
    return hashlib.new(digest.algorithm)


def parse_digest(text: str) -> Digest:
    """Read ``algorithm:hex``. The value is safe as a file name: it holds nothing but hex.

    Raises:
        InputError: The algorithm is neither ``sha256`` nor ``sha512``, or the hex not lower-case
            or of another length.
    """
    algorithm, colon, value = text.partition(":")
    length = HEX_LENGTHS.get(algorithm)
    if not colon or length is None:
        raise InputError(
            f"{shown(text)} is not a digest", "expected 'sha256:' or 'sha512:' with lower-case hex"
        )
    if not re.fullmatch(f"[0-9a-f]{{{length}}}", value):
        raise InputError(f"a {algorithm} digest has {length} lower-case hex digits")
    return Digest(algorithm, value)
