"""What a store and a wrapping key can do, wherever they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol, runtime_checkable

from coco_kp.errors import KekError
from coco_kp.keys.reference import AwsKmsReference

TIMEOUT: Final = 30.0
"""Seconds that one use of a store or wrapping key may take, repeats included."""


class Store(Protocol):
    """A place that keeps one KEK."""

    def fetch(self) -> bytes:
        """Return what it holds, 32 bytes if it is a KEK.

        Raises ``KekError`` where there is none or it is not to be had, ``RemoteError`` for a
        server.
        """

    def keep(self, kek: bytes) -> None:
        """Put a new KEK (32 raw bytes) there, and make sure of it.

        Raises ``RefusedError`` if there is one already: it is never replaced. Raises ``InputError``
        where this kind of store is only read.
        """

    def check(self) -> str:
        """Say what was found there, without a secret. Raises as ``fetch`` does."""

    def close(self) -> None:
        """Close its connections; a later use opens new ones."""


class CiphertextError(KekError):
    """The key is at work, and this is nothing that it encrypted under this context, unaltered."""

    code = "ciphertext-refused"


class WrappingKey(Protocol):
    """A key that never leaves its KMS or HSM."""

    def encrypt(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        """Encrypt up to 4 KiB, bound to ``context``: authenticated, not secret.

        Raises ``KekError`` where the key cannot be used, ``RemoteError`` for a server.
        """

    def decrypt(self, ciphertext: bytes, context: Mapping[str, str]) -> bytes:
        """Decrypt what ``encrypt`` made with an equal context.

        Raises ``CiphertextError`` for anything else, and what ``encrypt`` raises.
        """

    def check(self) -> str:
        """Say what kind of key was found, without a secret. Raises as ``encrypt`` does."""

    def close(self) -> None:
        """Close its connections; a later use opens new ones."""


@runtime_checkable
class GcmKey(WrappingKey, Protocol):
    """A wrapping key of AES-256 that takes the IV from us: its packets are A256GCM ones."""

    def encrypt_gcm(self, iv: bytes, plaintext: bytes) -> bytes:
        """Return ciphertext and 16-byte tag, for a 12-byte IV and no further data."""

    def decrypt_gcm(self, iv: bytes, ciphertext: bytes) -> bytes:
        """Undo ``encrypt_gcm``. Raises ``CiphertextError`` where the tag disagrees."""


@runtime_checkable
class CloudKey(WrappingKey, Protocol):
    """A wrapping key of AWS KMS, to whose own packets guests have access."""

    @property
    def region(self) -> str:
        """The region whose KMS has the key. Raises ``InputError`` where none is set."""

    def re_encrypt(self, ciphertext: bytes, source: AwsKmsReference) -> bytes:
        """Return it under this key and context; KMS decrypts it with those of ``source``.

        The plaintext does not leave KMS.
        """
