"""``file:PATH``: the key reference that most users write, which needs no other kind loaded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileReference:
    """``file:PATH``: 32 raw bytes in a file."""

    path: str

    def __str__(self) -> str:
        """Return the URI."""
        return f"file:{self.path}"
