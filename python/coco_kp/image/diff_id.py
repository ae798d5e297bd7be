"""The digest of a layer uncompressed, computed while the layer passes by.

A layer that decompresses to more than memory holds costs no more memory than any other.
"""

from __future__ import annotations

import contextlib
import hashlib
from queue import Queue
from threading import Thread
from typing import Final, Self

from coco_kp.errors import IntegrityError
from coco_kp.image.compression import decompressor
from coco_kp.image.guest_tar import GuestTar
from coco_kp.model.digest import Digest
from coco_kp.unpacking import Unpacking

_AHEAD: Final = 4  # pieces that may wait for the thread of a check


def check_diff_id(content: Digest, diff_id: Digest) -> None:
    """Raise ``IntegrityError`` unless a layer's content has the digest that the config names."""
    if content != diff_id:
        raise IntegrityError(
            f"the layer's content is not the one that the config names {diff_id}",
            "the image is damaged: a guest would refuse it",
        )


class DiffIdCheck:
    """Compares a layer's content with the diff_id that the image's config has for it.

    ``guest``, if any, judges the same content; its verdict is not raised here.
    """

    def __init__(
        self,
        media_type: str,
        diff_id: Digest,
        unpacking: Unpacking | None = None,
        guest: GuestTar | None = None,
    ) -> None:
        self._decompressor = decompressor(media_type, unpacking)
        self._diff_id = diff_id
        self._hasher = hashlib.new(diff_id.algorithm)
        self._guest = guest

    def update(self, data: memoryview) -> None:
        """Take the next piece of the layer."""
        for piece in self._decompressor.pieces(data):
            self._hasher.update(piece)
            if self._guest:
                self._guest.update(piece)

    def finish(self) -> None:
        """End the layer. Raises ``IntegrityError`` if its content is not the config's."""
        self._decompressor.finish()
        check_diff_id(Digest(self._diff_id.algorithm, self._hasher.hexdigest()), self._diff_id)
        if self._guest:
            self._guest.finish(self._decompressor.gzip_flags)


class DiffIdCheckAside:
    """The same on a thread of its own, while the caller goes on. A context manager."""

    def __init__(
        self,
        media_type: str,
        diff_id: Digest,
        unpacking: Unpacking | None = None,
        guest: GuestTar | None = None,
    ) -> None:
        self._check = DiffIdCheck(media_type, diff_id, unpacking, guest)
        self._pieces: Queue[bytes | None] = Queue(_AHEAD)
        self._failure: Exception | None = None
        self._thread = Thread(target=self._run, name="diff_id")
        with contextlib.suppress(RuntimeError):  # no thread is to be had: the caller's does it
            self._thread.start()

    def update(self, data: memoryview) -> None:
        """Take the next piece of the layer; ``data`` may be overwritten afterwards."""
        if self._thread.is_alive():
            self._pieces.put(bytes(data))
        else:
            self._take(data)

    def finish(self) -> None:
        """End the layer. Raises ``IntegrityError`` if its content is not the config's."""
        self._join()
        if self._failure:
            raise self._failure
        self._check.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._join()

    def _join(self) -> None:
        if self._thread.is_alive():
            self._pieces.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (piece := self._pieces.get()) is not None:
            self._take(memoryview(piece))

    def _take(self, piece: memoryview) -> None:
        if self._failure is None:
            try:
                self._check.update(piece)
            except Exception as failure:  # noqa: BLE001 (raised to the caller by finish)
                self._failure = failure
