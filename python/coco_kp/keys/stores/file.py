"""``file:PATH``: a KEK in a file of 32 raw bytes."""

from __future__ import annotations

import contextlib
from pathlib import Path

from coco_kp.errors import RefusedError
from coco_kp.files import check_directory, exists, is_there, write_file
from coco_kp.keys.file_reference import FileReference
from coco_kp.keys.kek_file import read_kek
from coco_kp.redact import shown
from coco_kp.values import dataclass


@dataclass(frozen=True, slots=True)
class FileStore:
    """One file."""

    path: Path

    def fetch(self) -> bytes:
        """Return the key. Raises ``KekError``."""
        return read_kek(self.path).kek.raw()

    def check_free(self) -> None:
        """Raise what ``keep`` would, without writing."""
        if exists(self.path):
            raise RefusedError(
                f"{shown(str(self.path))} exists, and a key file is never overwritten",
                "name another file for the new key, or use the key that is there",
                code="key-file-exists",
            )
        check_directory(self.path)

    def keep(self, kek: bytes) -> None:
        """Write the file (0600). Raises ``RefusedError`` if it exists."""
        write_file(self.path, kek, replace=False)

    def remove(self) -> bool:
        """Remove a file that ``keep`` wrote; return whether it is gone."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        return not is_there(self.path)

    def check(self) -> str:
        """Say that it holds a key."""
        return f"a key, {read_kek(self.path).kek.fingerprint}"

    def close(self) -> None:
        """No-op: the file is open only while it is read or written."""


def open_store(reference: FileReference) -> FileStore:
    """Return the store."""
    return FileStore(Path(reference.path))
