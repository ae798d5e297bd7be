"""What a blob's maker gives, from wherever it is asked for, and how far that came."""

from __future__ import annotations

from collections.abc import Iterator

from coco_kp.transport.base import Pieces


class Outgoing:
    """A blob on its way out, which its maker gives again where it has to be sent again."""

    def __init__(self, make: Pieces) -> None:
        self._make = make
        self._made: Iterator[memoryview] | None = None
        self._left = memoryview(b"")  # of a piece that was given out in part
        self.position = 0
        """Up to where it was given out, in bytes."""
        self.furthest = 0
        """Up to where it was ever given out."""
        self.ended = False
        """Whether ``position`` is its end."""
        self.failure: BaseException | None = None
        """What its maker failed with."""

    def pieces(self, offset: int, most: int | None = None) -> Iterator[memoryview]:
        """Yield what comes from ``offset`` on, up to ``most`` bytes; valid until the next."""
        if self._made is None or offset != self.position:
            self._made, self._left = self._make(offset), memoryview(b"")
            self.position, self.ended = offset, False
        while most is None or most > 0:
            piece = self._next()
            if not piece:
                self.ended = True
                return
            piece, self._left = piece[:most], piece[len(piece) if most is None else most :]
            self.position += len(piece)
            self.furthest = max(self.furthest, self.position)
            most = most and most - len(piece)
            yield piece

    def joined(self, offset: int, most: int | None = None) -> bytes:
        """Return the same in one."""
        # Each piece lies where the next will.
        return b"".join(map(bytes, self.pieces(offset, most)))

    def ends_at(self, offset: int) -> bool:
        """Return whether all was given out, and ``offset`` is its end."""
        if offset == self.position and not self.ended:
            self._left = self._next()
            self.ended = not self._left
        return offset == self.position and self.ended

    def _next(self) -> memoryview:
        if self._left or self._made is None:
            return self._left
        try:
            return next(self._made, self._left)
        except BaseException as error:
            self.failure = error
            raise
