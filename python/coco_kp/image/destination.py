"""Where an image is written to: as it was before, unless all goes well."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from coco_kp.errors import (
    ChangedError,
    CocoKpError,
    InPlaceError,
    IntegrityError,
    RemoteError,
)
from coco_kp.image.cancellation import reason_of
from coco_kp.image.tree import ImageNode, Node, images
from coco_kp.image.work import Work
from coco_kp.keys.published import PublishedRecipient
from coco_kp.keys.wrapper import KeyWrapper
from coco_kp.model.digest import Digest
from coco_kp.model.manifest import Descriptor, Manifest
from coco_kp.model.reference import FileReference, ImageReference
from coco_kp.transport import Access, Sink, open_sink
from coco_kp.values import replace

if TYPE_CHECKING:
    from coco_kp.transport.registry.session import Session

_log = logging.getLogger(__name__)


@contextmanager
def writing(
    reference: ImageReference,
    access: Access | None,
    session: Session | None = None,
    *,
    keep_replaced: bool,
) -> Iterator[Sink]:
    """Open a place for an image; the error names whatever a failure leaves there."""
    with open_sink(reference, access, session, keep_replaced=keep_replaced) as sink:
        try:
            yield sink
        except CocoKpError as failure:
            error = reason_of(failure)
            left = ", ".join(map(str, sink.left_behind()))
            if left:
                error = error.adding(
                    f"{reference} is as it was, but keeps blobs that nothing uses: {left}"
                )
            if error is failure:
                raise
            raise error from failure


def check_blobs(sink: Sink, tree: Node, work: Work) -> None:
    """Raise ``IntegrityError`` unless the destination holds what the images in ``tree`` need."""

    def check(blob: Descriptor, image: ImageNode) -> None:
        if not sink.has_blob(blob):
            raise IntegrityError(f"the destination lacks the blob {blob.digest} of {image}")

    work.run(partial(check, *found) for found in needed_blobs(tree).items())


def needed_blobs(tree: Node) -> dict[Descriptor, ImageNode]:
    """Return the configs and layers that the images in ``tree`` need at their place, each once.

    With each comes the first image that needs it.
    """
    needed: dict[tuple[Digest, int], tuple[Descriptor, ImageNode]] = {}
    for image in images(tree):
        for blob in (image.manifest.config, *image.manifest.layers):
            if not blob.elsewhere:
                needed.setdefault((blob.digest, blob.size), (blob, image))
    return dict(needed.values())


def read_in_place(source: ImageReference, target: ImageReference, tree: Node) -> Digest | None:
    """Return the digest of what was read, where the same name is to be written, else None."""
    return tree.manifest.digest if _place(source) == _place(target) else None


def _place(reference: ImageReference) -> ImageReference:
    if isinstance(reference, FileReference):
        return replace(reference, path=os.path.realpath(reference.path))
    return reference


def publish_and_name(
    keys: Sequence[KeyWrapper], sink: Sink, top: Manifest, replacing: Digest | None
) -> None:
    """Keep and register the keys, then give the image its name: the last steps, in this order.

    ``replacing`` is as `Sink.set_reference` takes it.
    """
    try:
        for key in keys:
            key.publish()
        _name(keys, sink, top, replacing)
    except KeyboardInterrupt:
        if kept := _kept(keys):
            _log.warning("interrupted: the new key is kept in %s", kept)
        raise


def _name(keys: Sequence[KeyWrapper], sink: Sink, top: Manifest, replacing: Digest | None) -> None:
    try:
        sink.set_reference(top, replacing=replacing)
    except CocoKpError as error:
        remarks = []
        if not _may_have_its_name(error):
            remarks += [f"the new key file {file} was removed again" for file in _withdraw(keys)]
        if kept := _kept(keys):
            remarks.append(f"the new key is kept in {kept}")
        raise error.adding(*remarks) from None


def _may_have_its_name(error: CocoKpError) -> bool:
    # A registry may have done what it did not answer, or have what it should not.
    there = (InPlaceError, IntegrityError, RemoteError)
    return isinstance(error, there) and not isinstance(error, ChangedError)


def _withdraw(keys: Sequence[KeyWrapper]) -> Iterator[str]:
    for key in keys:
        if isinstance(key, PublishedRecipient):
            yield from key.publication.withdraw()


def _kept(keys: Sequence[KeyWrapper]) -> str:
    return ", ".join(place for key in keys for place in key.kept)
