"""A key-encryption key, as users and guests have it."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

KEY_ID: Final = "default/key/key_id1"


@dataclass(frozen=True)
class Key:
    """A fresh KEK in a file of its own, and in a keys file as offline_fs_kbc reads it."""

    raw: bytes
    path: Path
    keys_file: Path

    def parameters(self, **more: str) -> str:
        """Return the encryption parameters that name this key, with others added or replaced."""
        fields = {"keypath": str(self.path), "keyid": f"kbs:///{KEY_ID}"} | more
        return "::".join(f"{name}={value}" for name, value in fields.items())


def make_key(folder: Path) -> Key:
    """Make a key under the id `KEY_ID`."""
    folder.mkdir()
    key = Key(os.urandom(32), folder / "kek", folder / "keys.json")
    key.path.write_bytes(key.raw)
    key.keys_file.write_text(json.dumps({KEY_ID: b64encode(key.raw).decode()}))
    for file in (key.path, key.keys_file):
        file.chmod(0o600)
    return key
