"""How an operation on an image tells what it is doing, and learns that it shall stop."""

from __future__ import annotations

from collections.abc import Mapping


class Progress:
    """Told of what happens, by several threads at once; this one tells nobody.

    Make a class of it that tells somebody:

    ```python
    import coco_kp

    class Printed(coco_kp.Progress):
        def begin(self, name: str, size: int) -> None:
            print(f"{name}: {size} bytes")

    coco_kp.verify_image("oci:app-encrypted", progress=Printed())
    ```

    What ``begin``, ``advance`` or ``end`` raise ends the work.
    """

    def expect(self, size: int, verb: str, names: Mapping[str, str], then: str = "") -> None:
        """Learn what there is to do.

        Args:
            size: How many more bytes there are to move.
            verb: What is done to them (``encrypting``).
            names: What users call the layers, by the names that ``begin`` is given.
            then: What goes on with those of which the work has ended (``uploading``).
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
