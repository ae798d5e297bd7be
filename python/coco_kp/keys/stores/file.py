"""``file:PATH``: a KEK in a file of 32 raw bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coco_kp.files import write_file
from coco_kp.keys.kek_file import read_kek
from coco_kp.keys.reference import FileReference


@dataclass(frozen=True, slots=True)
class FileStore:
    """One file."""

    path: Path

    def fetch(self) -> bytes:
        """Return the key. Raises ``KekError``."""
        return read_kek(self.path).kek.raw()

    def keep(self, kek: bytes) -> None:
        """Write the file (0600). Raises ``RefusedError`` if it exists."""
        write_file(self.path, kek, replace=False)

    def check(self) -> str:
        """Say that it holds a key."""
        return f"a key, {read_kek(self.path).kek.fingerprint}"


def open_store(reference: FileReference) -> FileStore:
    """Return the store."""
    return FileStore(Path(reference.path))
