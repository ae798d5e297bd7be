"""Decrypt an image: its layers and config are as they were before.

A layer takes its name only after its HMAC and the digest that was recorded when it was encrypted
agree, or where none was its diff_id; the image only after all layers. What a guest would refuse
comes out all the same, if that is what went in: to judge an image is the part of :mod:`.verify`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from coco_kp.errors import InputError, IntegrityError, KekError
from coco_kp.image.cancellation import Cancellation, begin_naming, heeding
from coco_kp.image.destination import check_blobs, read_in_place, writing
from coco_kp.image.layer import copy_layer, open_layer, recognised_layer
from coco_kp.image.opener import open_one
from coco_kp.image.progress import Progress
from coco_kp.image.restored import LayerKey, layer_key, restored_tree
from coco_kp.image.tree import ImageNode, Node, images, layer_names, read_tree
from coco_kp.image.tree_writer import put_manifests
from coco_kp.image.work import Work
from coco_kp.keys.wrapper import Opener
from coco_kp.model.digest import Digest
from coco_kp.model.layer_encryption import (
    parse_layer_encryption,
    parse_packets,
)
from coco_kp.model.manifest import Descriptor
from coco_kp.model.media_type import is_encrypted
from coco_kp.model.reference import ImageReference, RegistryReference, parse_image_reference
from coco_kp.transport import (
    PLAIN,
    Access,
    Sink,
    Source,
    check_destination,
    check_source,
    open_source,
)
from coco_kp.values import dataclass


@dataclass(frozen=True, slots=True)
class DecryptionResult:
    """What was made, or would be made where ``digest`` is None.

    Attributes:
        destination: The image's name.
        digest: Of its manifest or index; None after a dry run.
        decrypted: How many layers were decrypted.
        copied: How many layers were readable before, and copied.
    """

    destination: str
    digest: Digest | None
    decrypted: int
    copied: int

    def to_json(self) -> dict[str, object]:
        """Return the document that ``schemas/decrypt.schema.json`` describes."""
        return {
            "destination": self.destination,
            "digest": str(self.digest) if self.digest else None,
            "dry_run": self.digest is None,
            "decrypted": self.decrypted,
            "copied": self.copied,
        }


def decrypt_image(
    source: str,
    destination: str,
    openers: Sequence[Opener],
    *,
    jobs: int | None = None,
    source_access: Access | None = None,
    destination_access: Access | None = None,
    progress: Progress | None = None,
    cancel: Cancellation | None = None,
    keep_replaced: bool = False,
    dry_run: bool = False,
) -> DecryptionResult:
    """Decrypt an image into another, whose layers and config are as they were before encryption.

    ```python
    import coco_kp

    key = coco_kp.KekOpener(coco_kp.read_kek("app.key").kek)
    coco_kp.decrypt_image("oci:app-encrypted", "oci:app-decrypted", [key])
    ```

    A layer gets its name only after its HMAC and digest agree, the image only after all layers.

    Args:
        source: The image, named as skopeo names it.
        destination: The image to make, named in the same way.
        openers: What opens the packets. Of each layer the packets are tried in their order, each
            with all openers in theirs. At least one.
        jobs: How many layers are worked on at once, by default one a processor, and
            six or more to or from a registry.
        source_access: How the source's registry is reached.
        destination_access: How the destination's registry is reached.
        progress: Who is told of the work, and can end it.
        cancel: What another thread ends the call with, which then raises ``CancelledError``.
        keep_replaced: Whether what the image replaces in its layout stays there.
        dry_run: Only try what opens each layer.

    Raises:
        KekError: No packet of a layer opens.
        IntegrityError: A layer is not what was encrypted.
        InputError: The image, or its name, is not what it must be, or nothing is encrypted.
        RefusedError: ``policy.json`` rejects the source.
        RemoteError: A registry, KBS or KMS failed.
        ValueError: There is no opener.
    """
    if not openers:
        raise ValueError("without an opener nothing can be decrypted")
    reference, target = map(parse_image_reference, (source, destination))
    work = Work(progress or Progress(), jobs, source_access, (reference, target))
    check_destination(target, encrypted=False)
    check_source(reference)
    with heeding(cancel), open_source(reference, source_access) as opened:
        tree = read_tree(opened)
        if not any(is_encrypted(layer.media_type) for layer in _layers(tree)):
            raise InputError(f"{opened.reference} has no encrypted layer", "copy it with skopeo")
        if not isinstance(target, RegistryReference) and target.transport in PLAIN:
            tree = _only_image(tree, target)
        layers = _layers(tree)
        encrypted = list(_encrypted_layers(tree))
        copied = len(layers) - len(encrypted)
        if dry_run:
            for where, layer in encrypted:
                with _naming(where, work):
                    open_one(parse_layer_encryption(layer.annotations).packets, openers)
            return DecryptionResult(str(target), None, len(encrypted), copied)
        with writing(target, destination_access, keep_replaced=keep_replaced) as sink:
            plain = _move_blobs(opened, sink, tree, openers, work)
            top = put_manifests(sink, restored_tree(tree, plain))
            check_blobs(sink, read_tree(sink.read_back(), top.descriptor()), work)
            begin_naming(work.progress)
            sink.set_reference(top, replacing=read_in_place(reference, target, tree))
    return DecryptionResult(str(target), top.digest, len(encrypted), copied)


def _only_image(tree: Node, target: ImageReference) -> ImageNode:
    """Return the one image of an index, for a place that holds none."""
    found = list(images(tree))
    if len(found) != 1:
        raise InputError(
            f"{target} can hold one image, not the {len(found)} of an index",
            "decrypt into oci-archive:, which holds indexes",
        )
    return found[0]


def _move_blobs(
    source: Source, sink: Sink, tree: Node, openers: Sequence[Opener], work: Work
) -> dict[LayerKey, Digest]:
    """Bring all blobs to the destination; return the digests of those that were decrypted."""
    plain: dict[LayerKey, Digest] = {}

    def decrypt(key: LayerKey, layer: Descriptor, where: str) -> None:
        encryption = parse_layer_encryption(layer.annotations)
        public, diff_id = encryption.public_options, key[-1]
        with _naming(where, work):
            options = open_one(encryption.packets, openers).options
            plain[key] = open_layer(
                source, layer, options, public, diff_id, sink, work, carry=True, threads=threads
            )

    def copy(layer: Descriptor, diff_id: Digest | None) -> None:
        # Ciphertext that poses as a plain layer shows by its content.
        if diff_id and recognised_layer(source, layer) is not None:
            diff_id = None
        copy_layer(source, sink, layer, work, diff_id)

    encrypted: dict[LayerKey, Descriptor] = {}
    places: dict[LayerKey, str] = {}
    others: dict[tuple[Digest, Digest | None], Descriptor] = {}
    for image in images(tree):
        others[image.manifest.config.digest, None] = image.manifest.config
        for number, layer in enumerate(image.manifest.layers):
            if is_encrypted(layer.media_type):
                key = layer_key(image, number)
                encrypted[key], places[key] = layer, f"layer {number} of {image}"
            elif not layer.elsewhere:
                _refuse_packets(layer, f"layer {number} of {image}")
                others[layer.digest, image.diff_id(number)] = layer
    size = sum(blob.size for blob in (*encrypted.values(), *others.values()))
    work.progress.expect(size, "decrypting", layer_names(tree), sink.finishing)
    threads = work.threads_for(len(encrypted))
    # The largest first, so that no job is left alone with it at the end.
    largest_first = sorted(encrypted.items(), key=lambda item: -item[1].size)
    work.run(
        [
            *(partial(decrypt, key, layer, places[key]) for key, layer in largest_first),
            *(partial(copy, blob, diff_id) for (_, diff_id), blob in others.items()),
        ]
    )
    return {key: plain[key] for key in encrypted}  # one that is missing would stay encrypted


@contextmanager
def _naming(where: str, work: Work) -> Iterator[None]:
    """Have errors of a layer say which it is."""
    try:
        yield
    except (KekError, IntegrityError) as error:
        if not work.is_fault(error):
            raise
        raise error.within(where) from None


def _refuse_packets(layer: Descriptor, where: str) -> None:
    if parse_packets(layer.annotations):
        raise InputError(
            f"{where} has wrapped keys, but its media type says that it is not encrypted",
            "the image was damaged when it was copied, or altered",
        )


def _layers(tree: Node) -> list[Descriptor]:
    return [layer for image in images(tree) for layer in image.manifest.layers]


def _encrypted_layers(tree: Node) -> Iterator[tuple[str, Descriptor]]:
    """Yield each layer that is encrypted, behind what it is called."""
    for image in images(tree):
        for number, layer in enumerate(image.manifest.layers):
            if is_encrypted(layer.media_type):
                yield f"layer {number} of {image}", layer
