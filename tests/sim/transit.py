"""The keys of Vault's transit engine: aes256-gcm96, with versions, contexts and associated data.

Errors are those of Vault 1.21.4 (sdk/helper/keysutil, builtin/logical/transit).
"""

from __future__ import annotations

import binascii
import os
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PREFIX: Final = "vault:v"
NO_CONTEXT: Final = (
    "missing 'context' for key derivation; the key was created using a derived key, which means "
    "additional, per-request information must be included in order to perform operations with the "
    "key"
)


class RequestError(Exception):
    """Vault answers 400 with this text."""


def _new_version() -> bytes:
    return AESGCM.generate_key(256)


@dataclass
class TransitKey:
    """A key with its versions, the oldest first."""

    derived: bool = False
    """Whether a context is needed; without, one that is given does nothing at all."""
    versions: list[bytes] = field(default_factory=lambda: [_new_version()])
    oldest: int = 1
    """``min_decryption_version``."""

    def rotate(self) -> None:
        self.versions.append(_new_version())

    def described(self, name: str) -> dict[str, Any]:
        """Return what reading the key shows, as far as clients look at it."""
        return {
            "name": name,
            "type": "aes256-gcm96",
            "derived": self.derived,
            "latest_version": len(self.versions),
            "min_available_version": 0,
            "min_decryption_version": self.oldest,
            "min_encryption_version": 0,
            "exportable": False,
            "deletion_allowed": False,
            "supports_encryption": True,
            "supports_decryption": True,
            "supports_derivation": True,
            "supports_signing": False,
            "keys": {str(number): 1764130000 for number in range(1, len(self.versions) + 1)},
        }

    def encrypt(self, plain: bytes, context: bytes, associated: bytes) -> dict[str, Any]:
        number, nonce = len(self.versions), os.urandom(12)
        sealed = nonce + self._cipher(number, context).encrypt(nonce, plain, associated)
        return {
            "ciphertext": f"{PREFIX}{number}:{b64encode(sealed).decode()}",
            "key_version": number,
        }

    def decrypt(self, text: str, context: bytes, associated: bytes) -> bytes:
        if not text.startswith(PREFIX):
            raise RequestError("invalid ciphertext: no prefix")
        version, colon, encoded = text.removeprefix(PREFIX).partition(":")
        if not colon:
            raise RequestError("invalid ciphertext: wrong number of fields")
        if not version.isdecimal():
            raise RequestError("invalid ciphertext: version number could not be decoded")
        if int(version) > len(self.versions):
            raise RequestError("invalid ciphertext: version is too new")
        if int(version) < self.oldest:
            raise RequestError("ciphertext or signature version is disallowed by policy (too old)")
        try:
            sealed = b64decode(encoded, validate=True)
        except binascii.Error:
            raise RequestError("invalid ciphertext: could not decode base64") from None
        if len(sealed) < 12:
            raise RequestError("invalid ciphertext length")
        try:
            return self._cipher(int(version), context).decrypt(sealed[:12], sealed[12:], associated)
        except InvalidTag:
            raise RequestError("cipher: message authentication failed") from None

    def _cipher(self, number: int, context: bytes) -> AESGCM:
        key = self.versions[number - 1]
        if not self.derived:
            return AESGCM(key)
        if not context:
            raise RequestError(NO_CONTEXT)
        return AESGCM(HKDF(SHA256(), 32, None, context).derive(key))


@dataclass
class Transit:
    """The engine's keys by name."""

    keys: dict[str, TransitKey] = field(default_factory=dict)
    may_create: bool = True
    """Whether the caller's policy lets ``encrypt`` make a key that is not there, as root's does."""

    def answer(self, method: str, path: list[str], body: dict[str, Any]) -> dict[str, Any] | None:
        """Return the data of an answer; None for what is not there.

        Raises `RequestError`, and `PermissionError` for a key that the caller may not make.
        """
        match method, *path:
            case "GET", "keys", name:
                return self.keys[name].described(name) if name in self.keys else None
            case "POST" | "PUT", "keys", name:
                key = self.keys.setdefault(name, TransitKey(derived=body.get("derived", False)))
                return key.described(name)
            case "POST" | "PUT", "keys", name, "rotate":
                if name not in self.keys:
                    raise RequestError("key not found")
                self.keys[name].rotate()
                return self.keys[name].described(name)
            case "POST" | "PUT", "encrypt", name:
                return self._encrypt(name, body)
            case "POST" | "PUT", "decrypt", name:
                plain = self._decrypt(name, body, _bytes(body, "associated_data"))
                return {"plaintext": b64encode(plain).decode()}
            case "POST" | "PUT", "rewrap", name:
                # It knows no associated data, so that what was bound to some is not rewrapped.
                plain = self._decrypt(name, body, b"")
                return self.keys[name].encrypt(plain, _bytes(body, "context"), b"")
        return None

    def _encrypt(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        if "plaintext" not in body:
            raise RequestError("missing plaintext to encrypt")
        plain, context = _bytes(body, "plaintext"), _bytes(body, "context")
        if name not in self.keys:
            if not self.may_create:
                raise PermissionError(name)
            self.keys[name] = TransitKey(derived=bool(context))
        return self.keys[name].encrypt(plain, context, _bytes(body, "associated_data"))

    def _decrypt(self, name: str, body: dict[str, Any], associated: bytes) -> bytes:
        if not body.get("ciphertext"):
            raise RequestError("missing ciphertext to decrypt")
        context = _bytes(body, "context")
        if name not in self.keys:
            raise RequestError("encryption key not found")
        return self.keys[name].decrypt(body["ciphertext"], context, associated)


def _bytes(body: dict[str, Any], name: str) -> bytes:
    try:
        return b64decode(body.get(name, ""), validate=True)
    except binascii.Error:
        raise RequestError("illegal base64 data at input byte 0") from None
