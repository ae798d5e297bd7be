"""The digest of a layer uncompressed, computed while the layer passes by.

A layer that decompresses to more than memory holds costs no more memory than any other.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from coco_kp.errors import InputError, IntegrityError
from coco_kp.image.compression import readable_compression
from coco_kp.model.digest import Digest
from coco_kp.unpacking import ContentCheck, Unpacking


def check_diff_id(content: Digest, diff_id: Digest) -> None:
    """Raise ``IntegrityError`` unless a layer's content has the digest that the config names."""
    if content != diff_id:
        raise IntegrityError(
            f"the layer's content is not the one that the config names {diff_id}",
            "the image is damaged: a guest would refuse it",
        )


class DiffIdCheck:
    """Compares a layer's content with the diff_id that the image's config has for it.

    A context manager, which ends its thread. ``refusals``, where it is given, gets why a guest
    would refuse the content, if it would. ``aside``: on a thread of its own, while the caller goes
    on.
    """

    def __init__(
        self,
        media_type: str,
        diff_id: Digest,
        unpacking: Unpacking,
        *,
        refusals: list[InputError] | None = None,
        aside: bool = False,
    ) -> None:
        self._diff_id = diff_id
        self._refusals = refusals
        self._content = ContentCheck(
            readable_compression(media_type),
            diff_id.algorithm,
            unpacking,
            guest=refusals is not None,
            aside=aside,
        )
        self.update = self._content.update  # nothing stands between each piece and the core

    def finish(self) -> None:
        """End the layer. Raises ``IntegrityError`` if its content is not the config's.

        ``InputError`` where it unpacks to too much.
        """
        digest, refusal = self._content.finish()
        check_diff_id(Digest(self._diff_id.algorithm, digest.hex()), self._diff_id)
        if refusal and self._refusals is not None:
            self._refusals.append(refusal)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._content.close()
