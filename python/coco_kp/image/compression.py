"""How layers are compressed: what their label says, and what their first bytes say.

A label is a media type, and may be wrong: copying a Docker archive, for example, makes plain tar
archives that are called gzip (containers/image#1270).
"""

from __future__ import annotations

from typing import Literal

from coco_kp.errors import IntegrityError, RefusedError
from coco_kp.image.content import content_kind
from coco_kp.model.media_type import GZIP, NONE, ZSTD, compression_of
from coco_kp.redact import shown

ZstdRule = Literal["gzip", "keep", "refuse"]
"""What is done with layers that are compressed in a way that guests do not read once encrypted."""


def readable_compression(media_type: str) -> str:
    """Return how layers of this type are compressed, of which the content can be read here.

    Raises ``RefusedError`` for an unknown compression.
    """
    found = compression_of(media_type)
    if found not in {NONE, GZIP, ZSTD}:
        raise RefusedError(f"layers of type {shown(media_type)} cannot be decompressed here")
    return found


def is_compressed(media_type: str) -> bool:
    """Return whether a layer of this type, encrypted or not, has other bytes than its content."""
    return compression_of(media_type) != NONE


def recognised(head: bytes) -> str | None:
    """Return how the layer that begins with ``head`` is compressed, ``NONE`` for a plain tar.

    None for what nobody unpacks, such as an encrypted layer.
    """
    kind = content_kind(head)
    return NONE if kind == "tar" else kind


def compression_of_bytes(head: bytes, media_type: str) -> str:
    """Return how a layer is compressed that begins with ``head``, whatever its type says.

    Raises ``IntegrityError`` where it is none of the forms that are known although its type names
    one, ``RefusedError`` where it is one that nobody could open once it is encrypted.
    """
    found, label = recognised(head), compression_of(media_type)
    if found is None:
        if label == NONE:
            return NONE  # there is nothing to recognise an odd or empty archive by
        raise IntegrityError(f"the layer is called {shown(label)}, and is neither that nor a tar")
    if found not in {NONE, GZIP, ZSTD}:
        raise RefusedError(
            f"the layer is compressed with {found}, which nobody can open once it is encrypted",
            "compress it with gzip, or do not compress it at all",
        )
    return found
