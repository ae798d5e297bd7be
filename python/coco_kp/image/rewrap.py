"""Give an encrypted image other recipients without touching a layer.

Nothing changes but packets in manifests. The old packet must open first, and one that is known to
open must remain: a mistyped key cannot make an image that nobody opens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coco_kp.errors import CocoKpError, InputError, IntegrityError, RefusedError, UsageError, shown
from coco_kp.image.destination import check_blobs, writing
from coco_kp.image.facts import layer_facts
from coco_kp.image.layer import copy_layer
from coco_kp.image.opener import Opener, open_one
from coco_kp.image.progress import Progress, Work
from coco_kp.image.recipient import KekRecipient, Recipient, has_name
from coco_kp.image.tree import Node, images, read_tree
from coco_kp.image.tree_writer import write_tree
from coco_kp.model.digest import Digest
from coco_kp.model.layer_encryption import LayerPacket, parse_layer_encryption, with_packets
from coco_kp.model.layer_options import PrivateOptions
from coco_kp.model.manifest import Descriptor, ImageManifest
from coco_kp.model.media_type import is_encrypted
from coco_kp.model.reference import parse_image_reference
from coco_kp.transport import Access, check_destination, open_source


@dataclass(frozen=True, slots=True)
class Changes:
    """What becomes of the packets of each layer.

    All packets that the old key opens give way to one for each recipient in ``replace_by``; those
    in ``add`` get one besides, unless they have it; packets go whose kid or scheme (``jwe``,
    ``pkcs7``, …) is in ``remove``.
    """

    replace_by: tuple[Recipient, ...] = ()
    add: tuple[Recipient, ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RewrapResult:
    """The image that was made, and how many of its layers have other packets than before.

    ``recipients`` are all that have a packet now: key IDs, or schemes of other tools.
    """

    destination: str
    digest: Digest
    rewrapped: int
    recipients: tuple[str, ...]


def rewrap_image(
    image: str,
    openers: Sequence[Opener],
    changes: Changes,
    *,
    destination: str | None = None,
    source_access: Access | None = None,
    destination_access: Access | None = None,
    progress: Progress | None = None,
) -> RewrapResult:
    """Change who can open ``image``, in place or into ``destination``, named as skopeo names them.

    ``openers`` open the packets that there are; each layer must have one that opens. Raises
    ``KekError`` where none does, ``RefusedError`` for a change after which none is known to,
    ``InputError`` for a kid to remove that no layer has; the destination is then as it was.
    """
    if not openers:
        raise UsageError("name what opens the image now: a KBC, a keys file or a key")
    if changes == Changes():
        raise UsageError("name a change: a recipient to replace, to add or to remove")
    target = parse_image_reference(destination or image)
    check_destination(target)
    work = Work(progress or Progress(), 1)
    with open_source(parse_image_reference(image), source_access) as source:
        tree = read_tree(source, configs=False)
        new, rewrapped = _changed(tree, openers, changes)
        if not rewrapped:
            raise InputError(f"{source.reference} has no encrypted layer")
        with writing(target, destination_access or source_access) as sink:
            for node in images(tree):
                for blob in (node.manifest.config, *node.manifest.layers):
                    if not blob.elsewhere:
                        copy_layer(source, sink, blob, work)
            top = write_tree(tree, new, sink)
            written = read_tree(sink.read_back(), top.descriptor(), configs=False)
            check_blobs(sink, written)
            _check(written, tree, openers, changes)
            sink.set_reference(top)
    return RewrapResult(str(target), top.digest, rewrapped, _recipients(written))


def _recipients(tree: Node) -> tuple[str, ...]:
    """Return everybody who has a packet in a layer, each once."""
    names = dict.fromkeys(
        packet.name
        for image in images(tree)
        for number, layer in enumerate(image.manifest.layers)
        for packet in layer_facts(number, layer).packets
    )
    return tuple(names)


def _changed(
    tree: Node, openers: Sequence[Opener], changes: Changes
) -> tuple[dict[Digest, ImageManifest], int]:
    """Give each image with its new packets, and the number of layers that have some."""
    new: dict[Digest, ImageManifest] = {}
    count, removed = 0, set[str]()
    for image in images(tree):
        if image.manifest.digest in new:
            continue  # it stands in the list more than once
        layers = []
        for number, layer in enumerate(image.manifest.layers):
            if is_encrypted(layer.media_type):
                count += 1
                try:
                    layer, gone = _rewrapped(layer, openers, changes)  # noqa: PLW2901
                except CocoKpError as error:
                    error.message = f"layer {number} of {image}: {error.message}"
                    raise
                removed |= gone
            layers.append(layer)
        new[image.manifest.digest] = image.manifest.replaced(layers=layers)
    for kid in changes.remove:
        if kid not in removed and count:
            raise InputError(f"no layer has a packet with the key id or scheme {shown(kid)}")
    return new, count


def _rewrapped(
    layer: Descriptor, openers: Sequence[Opener], changes: Changes
) -> tuple[Descriptor, set[str]]:
    """Give a layer's new descriptor, and those kids of ``changes.remove`` that it had."""
    packets = parse_layer_encryption(layer.annotations).packets
    options = open_one(packets, openers).options
    opening = {packet for packet in packets if _opens(packet, openers, options)}
    replaced = opening if changes.replace_by else set[LayerPacket]()
    gone = {kid for kid in changes.remove for packet in packets if has_name(packet, kid)}
    kept = [
        packet
        for packet in packets
        if packet not in replaced and not any(has_name(packet, kid) for kid in changes.remove)
    ]
    _check_names((*changes.replace_by, *changes.add), kept, options)
    new = [_beside(packets, recipient).wrap(options) for recipient in changes.replace_by]
    added = [
        recipient.wrap(options)
        for recipient in (_beside(packets, recipient) for recipient in changes.add)
        if not any(recipient.wrote(packet) for packet in kept)
    ]
    if not new and not added and opening.isdisjoint(kept):
        raise RefusedError(
            "no packet would remain that is known to open",
            "rewrap with the key of a recipient who stays",
        )
    annotations = with_packets(layer.annotations, (*new, *kept, *added))
    return layer.replaced(annotations=annotations), gone


def _beside(packets: Sequence[LayerPacket], recipient: Recipient) -> Recipient:
    return recipient.beside(packets) if isinstance(recipient, KekRecipient) else recipient


def _check_names(
    recipients: Sequence[Recipient], kept: Sequence[LayerPacket], options: PrivateOptions
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
                "guests find one key under a key ID: name another, or --remove the old one",
            )


def _opens(packet: LayerPacket, openers: Sequence[Opener], options: PrivateOptions) -> bool:
    """Tell whether a packet opens. Raises ``IntegrityError`` if it holds another layer's key."""
    try:
        opened = open_one([packet], openers).options
    except CocoKpError:
        return False
    if opened != options:
        raise IntegrityError("its packets hold different keys", "the image was altered")
    return True


def _check(written: Node, before: Node, openers: Sequence[Opener], changes: Changes) -> None:
    """Read the manifests back: the same layers as before, and each with packets that open."""
    for image, old in zip(images(written), images(before), strict=True):
        for layer, was in zip(image.manifest.layers, old.manifest.layers, strict=True):
            if (layer.digest, layer.size, layer.media_type) != (
                was.digest,
                was.size,
                was.media_type,
            ):
                raise IntegrityError(f"the destination has another layer than {was.digest}")
            if is_encrypted(layer.media_type):
                _check_packets(layer, was, openers, (*changes.replace_by, *changes.add))


def _check_packets(
    layer: Descriptor, was: Descriptor, openers: Sequence[Opener], new: Sequence[Recipient]
) -> None:
    """Open a layer's packets again: what they hold must be what the old ones held."""
    packets = parse_layer_encryption(layer.annotations).packets
    options = open_one(parse_layer_encryption(was.annotations).packets, openers).options
    knowing: list[Sequence[Opener]] = [[recipient] for recipient in new]
    for known in knowing or [openers]:
        if open_one(packets, known).options != options:
            raise IntegrityError(f"a new packet of the layer {layer.digest} holds another key")
