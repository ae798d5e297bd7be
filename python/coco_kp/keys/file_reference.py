"""Where a KEK is kept; and ``file:PATH``, for which no other kind is loaded: most write it."""

from __future__ import annotations

from coco_kp.values import dataclass


class KekReference:
    """Where a KEK can be fetched from; its bytes pass through this process.

    As text it is a URI that holds no secret, which ``parse_kek_reference`` reads.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class FileReference(KekReference):
    """``file:PATH``: 32 raw bytes in a file."""

    path: str

    def __str__(self) -> str:
        """Return the URI."""
        return f"file:{self.path}"
