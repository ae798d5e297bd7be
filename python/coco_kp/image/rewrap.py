"""Change the recipients of an encrypted image without touching a layer.

Nothing changes but packets in manifests. The old packet must open first, and one that is known to
open must remain: a mistyped key cannot make an image that nobody opens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from coco_kp.errors import (
    ChangedError,
    CocoKpError,
    InputError,
    IntegrityError,
    KekError,
    RefusedError,
)
from coco_kp.image.cancellation import Cancellation, begin_naming, heeding
from coco_kp.image.destination import (
    check_blobs,
    needed_blobs,
    publish_and_name,
    read_in_place,
    writing,
)
from coco_kp.image.facts import layer_facts
from coco_kp.image.layer import copy_layer
from coco_kp.image.opener import open_one
from coco_kp.image.progress import Progress
from coco_kp.image.registration import refuse_second_names, refuse_to_replace
from coco_kp.image.results import RewrapResult, rewrapped_images
from coco_kp.image.tree import ImageNode, Node, images, read_tree
from coco_kp.image.tree_writer import check_size, new_tree, put_manifests
from coco_kp.image.work import Work
from coco_kp.keys.reference import AwsKmsReference
from coco_kp.keys.staying import KmsRecipient, StayingOpener
from coco_kp.keys.wrapper import KeyWrapper, Opener, Recipient, has_name
from coco_kp.model.digest import Digest
from coco_kp.model.layer_encryption import LayerPacket, parse_layer_encryption, with_packets
from coco_kp.model.layer_options import PrivateOptions
from coco_kp.model.manifest import Descriptor, ImageManifest
from coco_kp.model.media_type import is_encrypted
from coco_kp.model.reference import parse_image_reference
from coco_kp.redact import shown
from coco_kp.transport import Access, check_destination, check_source, open_source
from coco_kp.values import dataclass

if TYPE_CHECKING:
    from coco_kp.transport.registry.session import Session


@dataclass(frozen=True, slots=True)
class Changes:
    """What is done with the packets of each layer.

    Attributes:
        replace_by: A packet for each of them takes the place of all packets that the openers open.
        add: Each of them gets a packet besides, if it has none.
        remove: Packets go that have one of these key IDs, or schemes (``jwe``, ``pkcs7``, …).
    """

    replace_by: tuple[Recipient, ...] = ()
    add: tuple[Recipient, ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Changes by keys that are at hand."""

    replace_by: tuple[KeyWrapper, ...]
    add: tuple[KeyWrapper, ...]
    remove: tuple[str, ...]

    @property
    def keys(self) -> tuple[KeyWrapper, ...]:
        return (*self.replace_by, *self.add)


def _prepare(changes: Changes) -> _Prepared:
    """Have the recipients' keys fetched or drawn."""
    replace_by = tuple(recipient.prepare() for recipient in changes.replace_by)
    add = tuple(recipient.prepare() for recipient in changes.add)
    refuse_second_names((*replace_by, *add))
    return _Prepared(replace_by, add, changes.remove)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A layer's packets, what they hold, and which of them are known to open."""

    packets: tuple[LayerPacket, ...]
    options: PrivateOptions
    opening: frozenset[LayerPacket]


_Place = tuple[Digest, int]
"""A layer: its image's digest, and its number in it."""

_OpenedLayers = Mapping[_Place, _Opened]
_NewPackets = Mapping[_Place, Sequence[LayerPacket]]


def rewrap_image(
    image: str,
    openers: Sequence[Opener],
    changes: Changes,
    *,
    expected: Digest | None = None,
    destination: str | None = None,
    jobs: int | None = None,
    source_access: Access | None = None,
    destination_access: Access | None = None,
    session: Session | None = None,
    progress: Progress | None = None,
    cancel: Cancellation | None = None,
    keep_replaced: bool = False,
    dry_run: bool = False,
) -> RewrapResult:
    """Change who can open an encrypted image, and touch no layer.

    ```python
    import coco_kp

    old = coco_kp.opener(coco_kp.FetchedKek(coco_kp.parse_kek_reference("file:app.key")))
    made = coco_kp.NewKek((coco_kp.parse_kek_reference("file:new.key"),))
    new = coco_kp.resolve(made, coco_kp.parse_key_id("kbs:///default/key/new"))
    changes = coco_kp.Changes(replace_by=(new,))
    coco_kp.rewrap_image("oci:app-encrypted", [old], changes, destination="oci:app-rewrapped")
    ```

    Args:
        image: The image, named as skopeo names it.
        openers: What opens the packets that there are; each layer must have one that opens.
        changes: Which packets come and go.
        expected: The digest of the manifest or index that the caller looked at before.
        destination: The image to make; by default ``image`` is changed in place.
        jobs: How many layers are copied to the destination at once, by default one a processor,
            and six or more to or from a registry.
        source_access: How the registry of ``image`` is reached.
        destination_access: How the destination's registry is reached, if that is another way.
        session: What many images share on their way to registries.
        progress: Who is told of the work, and can end it.
        cancel: What another thread ends the call with, which then raises ``CancelledError``.
        keep_replaced: Whether the old manifests stay in a layout, where the old keys still open
            them.
        dry_run: Open and wrap all, but write nothing and keep no key.

    Raises:
        KekError: No packet of a layer opens.
        RefusedError: No packet would be left that is known to open.
        InputError: The image is not encrypted, or a key ID to remove is in no layer.
        IntegrityError: The packets of a layer hold different keys.
        RemoteError: ``expected`` is not what is there; or a registry, KBS or KMS failed.
        ValueError: There is no opener, or no change.
    """
    if not openers:
        raise ValueError("without an opener nothing can be rewrapped")
    if changes == Changes():
        raise ValueError("there is no change: no recipient to replace, to add or to remove")
    reference, target = map(parse_image_reference, (image, destination or image))
    check_destination(target)
    check_source(reference)
    work = Work(progress or Progress(), jobs, places=(reference, target))
    with heeding(cancel), open_source(reference, source_access, session) as source:
        tree = read_tree(source, configs=False)
        if expected is not None and tree.manifest.digest != expected:
            raise ChangedError(source.reference)
        opened: _OpenedLayers = {}
        if move := _kms_move(openers, changes):
            packets = _moved(tree, *move)
            prepared = _Prepared((), (), ())
        else:
            # All of this before a key is made, a store asked or a KBS told.
            opened = _opened(tree, openers)
            prepared = _prepare(changes)
            packets = _changed(tree, opened, prepared)
        if not packets:
            raise InputError(f"{source.reference} has no encrypted layer")
        new = _with_packets(tree, packets)
        manifests = new_tree(tree, new)  # none of which is too large
        if dry_run:
            recipients = _recipients(new.values())
            return RewrapResult(str(target), None, len(packets), recipients, ())
        with writing(
            target, destination_access or source_access, session, keep_replaced=keep_replaced
        ) as sink:
            work.run(partial(copy_layer, source, sink, blob, work) for blob in needed_blobs(tree))
            top = put_manifests(sink, manifests)
            written = read_tree(sink.read_back(), top.descriptor(), configs=False)
            check_blobs(sink, written, work)
            _check(written, tree, opened, new, openers, prepared)
            begin_naming(work.progress)
            publish_and_name(prepared.keys, sink, top, read_in_place(reference, target, tree))
    recipients = _recipients(image.manifest for image in images(written))
    return RewrapResult(
        str(target), top.digest, len(packets), recipients, rewrapped_images(images(written))
    )


def _recipients(manifests: Iterable[ImageManifest]) -> tuple[str, ...]:
    """Return everybody who has a packet in a layer, each once."""
    names = dict.fromkeys(
        packet.name
        for manifest in manifests
        for number, layer in enumerate(manifest.layers)
        for packet in layer_facts(number, layer).packets
    )
    return tuple(names)


def _opened(tree: Node, openers: Sequence[Opener]) -> _OpenedLayers:
    """Open every encrypted layer's packets. Raises ``CocoKpError`` where none opens."""
    found: dict[_Place, _Opened] = {}
    for image, number, layer in _encrypted_layers(tree):
        with _naming(image, number):
            packets = parse_layer_encryption(layer.annotations).packets
            options = open_one(packets, openers).options
            opening = frozenset(packet for packet in packets if _opens(packet, openers, options))
            found[image.manifest.digest, number] = _Opened(packets, options, opening)
    return found


def _encrypted_layers(tree: Node) -> Iterator[tuple[ImageNode, int, Descriptor]]:
    """Yield each encrypted layer of each image once, wherever the image stands in the index."""
    seen: set[Digest] = set()
    for image in images(tree):
        if image.manifest.digest in seen:
            continue
        seen.add(image.manifest.digest)
        for number, layer in enumerate(image.manifest.layers):
            if is_encrypted(layer.media_type):
                yield image, number, layer


@contextmanager
def _naming(image: ImageNode, number: int) -> Iterator[None]:
    try:
        yield
    except CocoKpError as error:
        raise error.within(f"layer {number} of {image}") from None


def _changed(tree: Node, opened: _OpenedLayers, changes: _Prepared) -> _NewPackets:
    """Return the new packets of each encrypted layer."""
    new: dict[_Place, Sequence[LayerPacket]] = {}
    removed = set[str]()
    sizes = Counter[Digest]()
    for image, number, _ in _encrypted_layers(tree):
        digest = image.manifest.digest
        with _naming(image, number):
            there = opened[digest, number]
            refuse_to_replace(changes.keys, there.packets)
            new[digest, number], gone = _rewrapped(there, changes)
        # Of many layers, packets for many recipients could make gigabytes.
        sizes[digest] += sum(len(packet.data) for packet in new[digest, number])
        check_size(sizes[digest], str(image))
        removed |= gone
    for kid in changes.remove:
        if kid not in removed and new:
            raise InputError(
                f"no layer has a packet with the key ID or scheme {shown(kid)}",
                code="packet-missing",
            )
    return new


def _with_packets(tree: Node, packets: _NewPackets) -> dict[Digest, ImageManifest]:
    """Return each image, by its digest before, with the new packets of its layers."""
    layers = {image.manifest.digest: list(image.manifest.layers) for image in images(tree)}
    for image, number, layer in _encrypted_layers(tree):
        digest = image.manifest.digest
        with _naming(image, number):
            annotations = with_packets(layer.annotations, packets[digest, number])
        layers[digest][number] = layer.replaced(annotations=annotations)
    return {
        image.manifest.digest: image.manifest.replaced(layers=layers[image.manifest.digest])
        for image in images(tree)
    }


def _rewrapped(layer: _Opened, changes: _Prepared) -> tuple[list[LayerPacket], set[str]]:
    """Return a layer's new packets, and those kids of ``changes.remove`` that it had."""
    packets, options = layer.packets, layer.options
    replaced = layer.opening if changes.replace_by else frozenset[LayerPacket]()
    gone = {kid for kid in changes.remove for packet in packets if has_name(packet, kid)}
    kept = [
        packet
        for packet in packets
        if packet not in replaced and not any(has_name(packet, kid) for kid in changes.remove)
    ]
    _check_names(changes.keys, kept, options)
    new = [recipient.beside(packets).wrap(options.to_json()) for recipient in changes.replace_by]
    added = [
        recipient.wrap(options.to_json())
        for recipient in (recipient.beside(packets) for recipient in changes.add)
        if not any(recipient.wrote(packet) for packet in kept)
    ]
    if not new and not added and layer.opening.isdisjoint(kept):
        raise RefusedError(
            "no packet would remain that is known to open",
            "rewrap with the key of a recipient who stays",
        )
    return [*new, *kept, *added], gone


def _kms_move(
    openers: Sequence[Opener], changes: Changes
) -> tuple[AwsKmsReference, KmsRecipient] | None:
    """Return old and new key where both are AWS KMS's and nothing else changes, else None."""
    match openers, changes:
        case (
            [StayingOpener(AwsKmsReference() as old)],
            Changes((KmsRecipient() as recipient,), (), ()),
        ):
            return old, recipient
    return None


def _moved(tree: Node, old: AwsKmsReference, recipient: KmsRecipient) -> _NewPackets:
    """Have KMS itself move packets from one of its keys to another; no layer's key is seen here."""
    new: dict[_Place, Sequence[LayerPacket]] = {}
    for image, number, layer in _encrypted_layers(tree):
        with _naming(image, number):
            packets = parse_layer_encryption(layer.annotations).packets
            key, failures = recipient.beside(packets), list[CocoKpError]()
            moved = []
            for packet in packets:
                try:
                    moved.append(key.re_encrypt(packet, old) or packet)
                except KekError as failure:  # it is of another key
                    failures.append(failure)
                    moved.append(packet)
            if moved == list(packets):
                raise failures[0] if failures else KekError("no packet is one of AWS KMS")
        new[image.manifest.digest, number] = moved
    return new


def _check_names(
    recipients: Sequence[KeyWrapper], kept: Sequence[LayerPacket], options: PrivateOptions
) -> None:
    """Refuse a key ID under which another key opens the layer already: a guest has one."""
    names = [recipient.name for recipient in recipients]
    for recipient in recipients:
        others = [packet for packet in kept if has_name(packet, recipient.name)]
        if names.count(recipient.name) > 1 or any(
            not _opens(packet, [recipient], options) for packet in others
        ):
            raise InputError(
                f"another key has the key ID {shown(recipient.name)}",
                "guests find one key under a key ID: name another, or remove the old one",
                code="key-id-taken",
            )


def _opens(packet: LayerPacket, openers: Sequence[Opener], options: PrivateOptions) -> bool:
    """Return whether a packet opens.

    Raises ``IntegrityError`` if it holds another layer's key.
    """
    try:
        opened = open_one([packet], openers).options
    except CocoKpError:
        return False
    if opened != options:
        raise IntegrityError("its packets hold different keys", "the image was altered")
    return True


def _check(
    written: Node,
    before: Node,
    opened: _OpenedLayers,
    new: Mapping[Digest, ImageManifest],
    openers: Sequence[Opener],
    changes: _Prepared,
) -> None:
    """Read the manifests back: the same layers as before, and each with packets that open."""
    for image, old in zip(images(written), images(before), strict=True):
        expected = new[old.manifest.digest]
        for number, (layer, was) in enumerate(
            zip(image.manifest.layers, old.manifest.layers, strict=True)
        ):
            if (layer.digest, layer.size, layer.media_type) != (
                was.digest,
                was.size,
                was.media_type,
            ):
                raise IntegrityError(f"the destination has another layer than {was.digest}")
            if layer.annotations != expected.layers[number].annotations:
                raise IntegrityError(f"the destination has other packets for {was.digest}")
            if (old.manifest.digest, number) in opened:
                options = opened[old.manifest.digest, number].options
                _check_packets(layer, options, openers, changes.keys)


def _check_packets(
    layer: Descriptor,
    options: PrivateOptions,
    openers: Sequence[Opener],
    new: Sequence[KeyWrapper],
) -> None:
    """Open a layer's packets again: what they hold must be what the old ones held."""
    packets = parse_layer_encryption(layer.annotations).packets
    knowing: list[Sequence[Opener]] = [[recipient] for recipient in new]
    for known in knowing or [openers]:
        if open_one(packets, known).options != options:
            raise IntegrityError(f"a new packet of the layer {layer.digest} holds another key")
