"""What a key reference names, opened: each kind is imported only when it is named.

A *store* keeps KEKs, whose bytes pass through this process. A *wrapping key* never leaves its KMS
or HSM, which wraps and unwraps for us. Credentials come from each vendor's usual environment. All
calls have deadlines, and say in words of their own what failed: no credentials, access denied,
throttled, disabled, wrong region, sealed, expired, PIN wrong or locked.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Final, Protocol, cast, runtime_checkable

from coco_kp.errors import InputError, KekError
from coco_kp.keys.file_reference import FileReference, KekReference
from coco_kp.keys.reference import (
    AwsKmsReference,
    AwsSecretReference,
    ExecReference,
    Pkcs11Reference,
    PluginReference,
    TransitReference,
    VaultReference,
    WrappingReference,
)
from coco_kp.plugins import PluginGroup

TIMEOUT: Final = 30.0
"""Seconds that one use of a store or wrapping key may take, repeats included."""

PLUGINS: Final = PluginGroup(
    "coco_kp.key_wrappers",
    kind="key wrapper",
    code="key-wrapper-unknown",
    builtin=("awskms", "hashivault", "pkcs11"),
    methods=("encrypt", "decrypt", "check"),
)
"""By scheme, wrapping keys of other packages: functions that take the URI."""


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


_STORES: Final = {
    FileReference: "file",
    ExecReference: "exec",
    VaultReference: "vault",
    AwsSecretReference: "aws",
    Pkcs11Reference: "pkcs11",
}
_WRAPPING_KEYS: Final = {
    TransitReference: "vault",
    AwsKmsReference: "aws",
    Pkcs11Reference: "pkcs11",
}
_EXTRAS: Final = {"vault", "aws", "pkcs11"}


def open_store(reference: KekReference) -> Store:
    """Return the store that a reference names; nothing is asked yet.

    Raises ``InputError`` where the extra that it needs is not installed.
    """
    module = _module(_STORES[type(reference)])
    return cast("Store", module.open_store(reference))


def open_wrapping_key(reference: WrappingReference) -> WrappingKey:
    """Return the wrapping key that a reference names; nothing is asked yet.

    Raises ``InputError`` for an unknown scheme, or where an extra is not installed.
    """
    if isinstance(reference, PluginReference):
        return cast("WrappingKey", PLUGINS.open(reference.scheme, reference.uri))
    module = _module(_WRAPPING_KEYS[type(reference)])
    return cast("WrappingKey", module.open_wrapping_key(reference))


def _module(name: str) -> ModuleType:
    try:
        return import_module(f"coco_kp.keys.stores.{name}")
    except ModuleNotFoundError as missing:
        if name not in _EXTRAS or (missing.name or "").startswith("coco_kp"):
            raise
        raise InputError(
            f"this kind of key reference needs the Python package {missing.name}",
            f"install it with: pip install 'coco-kp[{name}]'",
        ) from None
