"""How an operation on an image tells what it is doing, and learns that it shall stop."""

from __future__ import annotations

from collections.abc import Mapping


class Progress:
    """Told of what happens, by several threads at once; this one tells nobody.

    What ``begin``, ``advance`` or ``end`` raise ends the work.
    """

    def expect(self, size: int, verb: str, names: Mapping[str, str], then: str = "") -> None:
        """Learn how many more bytes there are to move, what is done to them (``encrypting``).

        ``names`` has what users call the layers, by the name that ``begin`` is given. ``then`` is
        what goes on after that with those of which the work has ended (``uploading``).
        """

    def begin(self, name: str, size: int) -> None:
        """Learn that the work on something of ``size`` bytes begins."""

    def advance(self, name: str, count: int) -> None:
        """Learn that ``count`` more bytes of it were moved."""

    def end(self, name: str) -> None:
        """Learn that it is done."""

    def naming(self) -> None:
        """Learn that the image gets its name from now on: all before left the old one there.

        What this raises keeps it so.
        """

    def notice(self, text: str) -> None:
        """Learn something that the user should know."""
