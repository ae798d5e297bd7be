"""What is left to do for an image, proven from two manifests and the owner's keys.

A tag, an annotation or a database can say anything. The packet of a layer cannot be made without
the key, and records which layer it is of: a destination is done if its config is the source's,
every packet opens and records the digest of the source's layer, and those for whom it is are those
that are wanted. No layer is read for that, but one that was compressed anew, of which the packet
records what that came to. No I/O but that, and a KMS that opens packets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from coco_kp.errors import CocoKpError, InputError, RefusedError
from coco_kp.fleet.lines import LayerCounts
from coco_kp.image.facts import is_sample, layer_facts
from coco_kp.image.layer import open_layer
from coco_kp.image.opener import open_each
from coco_kp.image.plan import EncryptionPlan, LayerAction, LayerPlan
from coco_kp.image.reuse import EarlierLayer
from coco_kp.image.tree import ImageNode, Node, images
from coco_kp.image.work import Work
from coco_kp.keys.wrapper import KeyWrapper, Opener, has_name, opens
from coco_kp.model.digest import Digest, parse_digest
from coco_kp.model.layer_encryption import LayerPacket, parse_layer_encryption
from coco_kp.model.manifest import ImageManifest
from coco_kp.model.media_type import is_encrypted
from coco_kp.transport import Source
from coco_kp.values import dataclass, field


@dataclass(frozen=True, slots=True)
class Look:
    """What is left to do, and what was seen.

    ``earlier`` are encrypted layers that are there already, by the digests of what they hold.
    ``remove`` are the names of recipients that a rewrap has to take away, beside those whose
    packets the old keys open.
    """

    todo: Literal["nothing", "rewrap", "encrypt"]
    earlier: Mapping[Digest, EarlierLayer] = field(default_factory=dict)
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenedImage:
    """The images under a name, and their encrypted layers, each opened.

    Layers are named by the digest of their manifest and their number in it. ``public``: there is
    one, and not among these, that everybody can read: by the key of trials, or because its blob is
    that which its packet says it was encrypted from.
    """

    source: Source
    tree: Node
    layers: Mapping[tuple[Digest, int], EarlierLayer]
    public: bool

    def layer(self, image: ImageNode, number: int) -> EarlierLayer | None:
        """Return a layer that is encrypted, or None."""
        return self.layers.get((image.manifest.digest, number))

    @property
    def earlier(self) -> dict[Digest, EarlierLayer]:
        """The layers by what they hold; none if everybody knows their keys."""
        found = () if self.public else self.layers.values()
        return {
            parse_digest(layer.options.digest): layer for layer in found if layer.options.digest
        }

    @property
    def recipients(self) -> tuple[str, ...]:
        """All that have a packet in a layer, each once, as ``inspect`` names them."""
        names = (
            packet.name
            for image, number, _ in _encrypted(self.tree)
            for packet in layer_facts(number, image.manifest.layers[number]).packets
        )
        return tuple(dict.fromkeys(names))

    @property
    def counts(self) -> LayerCounts:
        """How many layers are encrypted, and how many readable."""
        all_layers = sum(len(image.manifest.layers) for image in images(self.tree))
        encrypted = sum(1 for _ in _encrypted(self.tree))
        return LayerCounts(0, encrypted, all_layers - encrypted)


def open_image(
    source: Source, tree: Node, openers: Sequence[Opener], keys: Sequence[KeyWrapper]
) -> OpenedImage:
    """Open every encrypted layer's packets.

    Raises ``CocoKpError`` where one does not open: somebody else's image is not written over, nor
    one whose KMS is not to be had now.
    """
    found: dict[tuple[Digest, int], EarlierLayer] = {}
    public = False
    for image, number, where in _encrypted(tree):
        layer = image.manifest.layers[number]
        try:
            encryption = parse_layer_encryption(layer.annotations)
            if _is_public(encryption.packets, keys):
                public = True
                continue
            options, _ = open_each(encryption.packets, openers)
            if options.digest == str(layer.digest):
                public = True
                continue
        except CocoKpError as error:
            raise error.within(
                f"{where} of {source.reference}",
                "name the key that opens it as an old key, or choose another destination",
            ) from None
        found[image.manifest.digest, number] = EarlierLayer(source, layer, encryption, options)
    return OpenedImage(source, tree, found, public)


def look_to_encrypt(
    plan: EncryptionPlan, there: OpenedImage | None, keys: Sequence[KeyWrapper], work: Work
) -> Look:
    """Return what is left to do so that what is ``there`` is the plan's image, for ``keys``."""
    if there is None:
        return Look("encrypt")
    if there.public or not _is_image(plan, there, work):
        return Look("encrypt", there.earlier)
    return look_at_recipients(there, keys)


def look_to_rewrap(before: Node, there: OpenedImage | None, keys: Sequence[KeyWrapper]) -> Look:
    """Return what is left to do so that what is ``there`` is the image ``before``, for ``keys``."""
    if there is None or there.public or not _same_layers(before, there.tree):
        return Look("rewrap")
    return look_at_recipients(there, keys)


def check_encrypted(image: OpenedImage) -> None:
    """Raise an error for what new packets would not protect.

    That is ``InputError`` where no layer is encrypted, ``RefusedError`` where everybody reads one.
    """
    if image.public:
        raise RefusedError(
            f"everybody can open {image.source.reference}: a packet is wrapped with the public "
            "sample key, or a layer is not what it is called",
            "encrypt the original",
        )
    if not image.layers:
        raise InputError(f"{image.source.reference} has no encrypted layer")


def look_at_recipients(there: OpenedImage, keys: Sequence[KeyWrapper]) -> Look:
    """Return what is left to do so that each layer has a packet for each key, and no other."""
    right, others = True, dict[str, None]()
    for image, number, _ in _encrypted(there.tree):
        layer = there.layers[image.manifest.digest, number]
        packets = layer.encryption.packets
        wanted = [key.beside(packets) for key in keys]
        theirs = {packet: [key.wrote(packet) for key in wanted] for packet in packets}
        right = right and all(map(any, zip(*theirs.values(), strict=True)))
        for packet, written in theirs.items():
            if not any(written):
                right = False
                others |= dict.fromkeys(_unopened(packet, image, number, there, keys))
    return Look("nothing") if right else Look("rewrap", there.earlier, tuple(others))


def _encrypted(tree: Node) -> Iterator[tuple[ImageNode, int, str]]:
    for image in images(tree):
        for number, layer in enumerate(image.manifest.layers):
            if is_encrypted(layer.media_type):
                yield image, number, f"layer {number} of {image}"


def _is_public(packets: Sequence[LayerPacket], keys: Sequence[KeyWrapper]) -> bool:
    sample = [packet for packet in packets if is_sample(packet)]
    return bool(sample) and not any(opens(key, sample[0]) for key in keys)


def _is_image(plan: EncryptionPlan, there: OpenedImage, work: Work) -> bool:
    """Return whether the images that are there are those of the plan, encrypted as it says."""
    planned = {image.image.manifest.digest: image.layers for image in plan.images}
    wanted, found = list(images(plan.tree)), list(images(there.tree))
    if not _same_list(plan.tree, there.tree) or len(wanted) != len(found):
        return False
    for old, new in zip(wanted, found, strict=True):
        layers = planned.get(old.manifest.digest)
        if layers is None:  # an attestation, which is kept as it is
            if old.manifest.digest != new.manifest.digest:
                return False
        elif not _describes(old, new) or not all(_holds(new, x, there, work) for x in layers):
            return False
    return True


def _same_list(old: Node, new: Node) -> bool:
    return type(old) is type(new) and _annotations(old) == _annotations(new)


def _annotations(node: Node) -> object:
    return node.manifest.document.get("annotations")


def _describes(old: ImageNode, new: ImageNode) -> bool:
    """Return whether all but the layers is the same."""
    platforms = [node.entry.platform for node in (old, new) if node.entry and new.entry]
    return (
        old.manifest.config.digest == new.manifest.config.digest
        and len(old.manifest.layers) == len(new.manifest.layers)
        and _annotations(old) == _annotations(new)
        and platforms[:1] == platforms[1:]
    )


def _holds(image: ImageNode, plan: LayerPlan, there: OpenedImage, work: Work) -> bool:
    """Return whether a layer that is there holds the planned one, and is encrypted if that is."""
    layer, opened = image.manifest.layers[plan.number], there.layer(image, plan.number)
    if plan.action.readable or plan.action is LayerAction.KEEP:
        return layer.digest == plan.layer.digest
    if opened is None:
        return False
    if opened.options.digest == str(plan.layer.digest):
        return True
    return plan.transcode and plan.diff_id is not None and _yields(opened, plan.diff_id, work)


def _yields(layer: EarlierLayer, diff_id: Digest, work: Work) -> bool:
    """Return whether a layer decrypts and unpacks to what has this digest, by reading it."""
    public = layer.encryption.public_options
    try:
        open_layer(layer.source, layer.layer, layer.options, public, diff_id, None, work)
    except CocoKpError as error:
        if not work.is_fault(error):
            raise
        return False
    return True


def _same_layers(before: Node, there: Node) -> bool:
    """Return whether two trees differ in nothing but the packets of layers."""
    wanted, found = list(images(before)), list(images(there))
    return (
        _same_list(before, there)
        and len(wanted) == len(found)
        and all(
            _describes(old, new) and _layers(old.manifest) == _layers(new.manifest)
            for old, new in zip(wanted, found, strict=True)
        )
    )


def _layers(manifest: ImageManifest) -> list[tuple[Digest, int, str]]:
    return [(layer.digest, layer.size, layer.media_type) for layer in manifest.layers]


def _unopened(
    packet: LayerPacket,
    image: ImageNode,
    number: int,
    there: OpenedImage,
    keys: Sequence[KeyWrapper],
) -> Iterator[str]:
    """Yield the name of a packet which the keys that are wanted do not have."""
    names = [found.name for found in layer_facts(number, image.manifest.layers[number]).packets]
    packets = there.layers[image.manifest.digest, number].encryption.packets
    name = names[packets.index(packet)]
    if not any(has_name(packet, key.name) for key in keys):
        yield name
