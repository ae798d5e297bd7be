"""A wrapping key in this process, for tests of those who use one."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from coco_kp.keys.stores.interface import CiphertextError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class LocalKey:
    """AES-256-GCM with the context as associated data: IV, ciphertext and tag."""

    master: bytes

    def encrypt(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        iv = os.urandom(12)
        return iv + AESGCM(self.master).encrypt(iv, plaintext, self.associated(context))

    def decrypt(self, ciphertext: bytes, context: Mapping[str, str]) -> bytes:
        try:
            iv, rest = ciphertext[:12], ciphertext[12:]
            return AESGCM(self.master).decrypt(iv, rest, self.associated(context))
        except (InvalidTag, ValueError):
            raise CiphertextError("this key did not encrypt this") from None

    def check(self) -> str:
        return "a key of a test"

    def close(self) -> None:
        """No-op: it has no connection."""

    def associated(self, context: Mapping[str, str]) -> bytes:
        return json.dumps(dict(context), sort_keys=True).encode()
