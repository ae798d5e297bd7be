"""What encrypting an image will do, decided from its manifests before a byte is written.

No I/O. The rule behind all others: a layer that stays readable does so because the user said so,
and the plan names it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final, Literal

from coco_kp.errors import InputError, RefusedError
from coco_kp.image.base import BaseLayers, SharedLayer
from coco_kp.image.compression import ZstdRule
from coco_kp.image.tree import (
    DESCRIBED,
    ImageNode,
    IndexNode,
    Node,
    images,
    is_no_platform,
    pruned,
)
from coco_kp.image.tree_writer import check_size
from coco_kp.model.digest import Digest
from coco_kp.model.layer_encryption import (
    PROVIDER_SCHEME,
    LayerPacket,
    parse_layer_encryption,
    parse_packets,
    with_encryption,
)
from coco_kp.model.layer_options import PublicOptions
from coco_kp.model.lazy_pull import without_positions
from coco_kp.model.manifest import Descriptor, Platform
from coco_kp.model.media_type import (
    GZIP,
    ZSTD,
    compressed_as,
    compression_of,
    encrypted_form,
    is_encryptable,
    is_encrypted,
    oci_equivalent,
    plain_form,
)
from coco_kp.model.packet import wrap_type_of
from coco_kp.model.words import check_word
from coco_kp.redact import shown
from coco_kp.values import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """What `encrypt_image` encrypts; the defaults leave nothing readable.

    Attributes:
        platforms: Which images of an index are taken; without any, all are.
        layers: Which layers are encrypted, by number from 0, negative ones from the end; None for
            all. The others stay readable.
        keep_encrypted: Keep layers that are encrypted already, rather than refuse the image.
        allow_foreign: Leave layers readable that have URLs of their own, rather than refuse them.
        keep_attestations: Keep attestations, which stay readable; by default they are left out.
        drop_attestations: Leave out SOCI indexes, too, which are refused otherwise.
        zstd: What becomes of layers that are compressed in a way that guests cannot read once they
            are encrypted: ``"gzip"`` compresses them anew, ``"keep"`` leaves them so, ``"refuse"``
            raises ``RefusedError``.

    Raises:
        ValueError: A word is unknown, or rules contradict each other.
    """

    platforms: tuple[Platform, ...] = ()
    layers: tuple[int, ...] | None = None
    keep_encrypted: bool = False
    allow_foreign: bool = False
    keep_attestations: bool = False
    drop_attestations: bool = False
    zstd: ZstdRule = "gzip"

    def __post_init__(self) -> None:
        check_word("zstd", self.zstd, ZstdRule)
        if self.keep_attestations and self.drop_attestations:
            raise ValueError("keep_attestations and drop_attestations exclude each other")


class LayerAction(StrEnum):
    """What an encryption does with a layer."""

    ENCRYPT = "encrypt"
    """It is readable in the source, and encrypted now."""
    REUSE = "reuse"
    """An earlier image has it encrypted with our key: taken over."""
    KEEP = "keep encrypted"
    """It is encrypted in the source, and stays so."""
    UNSELECTED = "leave readable"
    """The caller did not pick it."""
    BASE = "leave readable: base image"
    """It is the base image's."""
    FOREIGN = "leave readable: foreign"
    """It has URLs of its own, where everybody can read it."""

    @property
    def readable(self) -> bool:
        """Whether everybody can read the layer afterwards."""
        return self in {LayerAction.UNSELECTED, LayerAction.BASE, LayerAction.FOREIGN}


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """A layer and the action on it. ``media_type`` is what it is afterwards, before ``+encrypted``.

    That holds if it is what its type says now, which shows when it is read. ``base`` is the layer
    of the base image because of which this one is left readable.
    """

    number: int
    layer: Descriptor
    action: LayerAction
    media_type: str
    diff_id: Digest | None
    base: SharedLayer | None = None

    @property
    def transcode(self) -> bool:
        """Whether it is compressed anew, with gzip."""
        before, after = compression_of(self.layer.media_type), compression_of(self.media_type)
        return (before, after) == (ZSTD, GZIP)


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """An image whose layers are dealt with one by one."""

    image: ImageNode
    layers: tuple[LayerPlan, ...]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An entry of an index that is not written.

    Attributes:
        digest: Its manifest's.
        platform: What it runs on, where it says so.
        what: What it is. A ``"variant"`` is a form of a wanted image that needs more of a host than
            the one that is taken.
    """

    digest: Digest
    platform: Platform | None
    what: Literal["attestation", "SOCI index", "variant", "image"]

    def __str__(self) -> str:
        """Return what a user knows it by."""
        return f"{self.what} {self.digest}{f' for {self.platform}' if self.platform else ''}"


@dataclass(frozen=True, slots=True)
class EncryptionPlan:
    """The images to write, what happens to each layer, and what the user should know.

    ``attestations`` are kept as they are, and readable: they describe the plaintext.
    """

    tree: Node
    images: tuple[ImagePlan, ...]
    attestations: tuple[ImageNode, ...]
    left_out: tuple[LeftOut, ...]
    notices: tuple[str, ...]

    def layers(self, *actions: LayerAction) -> list[LayerPlan]:
        """Return the layers of these actions, each content once."""
        found = {
            (layer.layer.digest, layer.transcode): layer
            for image in self.images
            for layer in image.layers
            if layer.action in actions
        }
        return list(found.values())


def plan_encryption(
    tree: Node,
    rules: Rules,
    base: BaseLayers | None = None,
    reusable: Collection[Digest] = (),
) -> EncryptionPlan:
    """Decide what is done with each image and layer of ``tree``.

    ``reusable`` are the digests of plain layers that an earlier image holds encrypted. Raises
    ``RefusedError`` where something would stay readable that the user did not name, ``InputError``
    for an image that cannot be encrypted, ``ValueError`` for layers picked beside a base.
    """
    if base and rules.layers is not None:
        raise ValueError("a base image and rules.layers exclude each other")
    chosen = _chosen(tree, rules)
    subjects = [image for image in images(chosen) if not image.describes_another]
    attestations = tuple(image for image in images(chosen) if image.describes_another)
    planned = {image.manifest.digest: _image(image, rules, base, reusable) for image in subjects}
    notices = [
        f"layer {layer.number} of {image.image} is compressed anew with gzip: guests cannot read "
        "zstd layers once they are encrypted"
        for image in planned.values()
        for layer in image.layers
        if layer.transcode
    ]
    plan = EncryptionPlan(
        chosen,
        tuple(planned.values()),
        attestations,
        _left_out(tree, chosen, rules),
        tuple(notices),
    )
    _check_base(plan, base)
    _check_nothing_leaks(plan)
    return plan


_CIPHERTEXT: Final = Digest("sha256", 64 * "0")
"""A digest as long as that of each blob which is encrypted, or compressed anew."""


def check_sizes(plan: EncryptionPlan, packets: Mapping[str, Sequence[LayerPacket]]) -> None:
    """Raise ``InputError`` where a manifest would grow too large, with such packets a layer.

    They are given by the algorithm of the digest that they record: that of what is encrypted.
    It is measured layer by layer and never there as a whole: of one of 4 MiB, packets for all its
    layers could make gigabytes.
    """
    public = PublicOptions(bytes(32))
    for image in plan.images:
        size = len(image.image.manifest.to_oci().replaced(layers=[]).raw)
        for layer in image.layers:
            media_type, annotations = layer.media_type, layer.layer.annotations
            digest = layer.layer.digest
            if layer.transcode:
                annotations = without_positions(annotations)
            if not layer.action.readable:
                media_type = encrypted_form(media_type)
            if layer.action in {LayerAction.ENCRYPT, LayerAction.REUSE}:
                recorded = _CIPHERTEXT.algorithm if layer.transcode else digest.algorithm
                annotations = with_encryption(annotations, packets[recorded], public)
                digest = _CIPHERTEXT
            written = layer.layer.replaced(
                media_type=media_type, digest=digest, annotations=annotations
            )
            size += len(written.to_json()) + (layer.number > 0)  # a comma between two
            check_size(size, str(image.image))


def entries_to_read(entries: Sequence[Descriptor], rules: Rules) -> Sequence[bool]:
    """Say of each entry of an index whether the plan needs its manifest.

    An entry without a platform, or with half of one, may be for any. Where a platform has several
    images, those are meant that need nothing else of a host, as with skopeo: nydus's form of an
    image names what it needs in ``os.features`` (image-index.md).
    """
    if not rules.platforms:
        return [True] * len(entries)
    needed = [
        entry.platform is None
        or not entry.platform.whole
        or (rules.keep_attestations and is_no_platform(entry.platform))
        for entry in entries
    ]
    for platform in rules.platforms:
        fitting = [n for n, entry in enumerate(entries) if _runs_on(entry.platform, platform)]
        for number in [n for n in fitting if not _needs_features(entries[n])] or fitting:
            needed[number] = True
    return needed


def _needs_features(entry: Descriptor) -> bool:
    platform = entry.document.get("platform")
    return isinstance(platform, dict) and bool(platform.get("os.features"))


def _chosen(tree: Node, rules: Rules) -> Node:
    """Return the tree that is to be written."""
    found = [image for image in images(tree) if _is_image(image)]
    for platform in rules.platforms:
        if not any(_runs_on(image.platform, platform) for image in found):
            there = {image.platform for image in found} | {e.platform for e in _unread(tree)}
            names = sorted(str(p) for p in there if not is_no_platform(p))
            raise InputError(
                f"the image has no platform {platform}", f"it has {', '.join(names) or 'none'}"
            )

    def fits(image: ImageNode) -> bool:
        return not rules.platforms or any(_runs_on(image.platform, p) for p in rules.platforms)

    subjects = {str(image.manifest.digest) for image in found if fits(image)}

    def wanted(image: ImageNode) -> bool:
        if image.describes_another:
            described = image.entry.annotations.get(DESCRIBED) if image.entry else None
            return rules.keep_attestations and (not rules.platforms or described in subjects)
        return fits(image) and not (image.is_soci_index and rules.drop_attestations)

    chosen = pruned(tree, wanted)
    if chosen is None:
        raise RefusedError("the image has nothing to encrypt")
    for image in images(chosen):
        if image.is_soci_index:
            raise RefusedError(
                f"{image.manifest.digest} is a SOCI index, which holds parts of the plaintext",
                "leave it out",
                code="soci-index",
            )
    left = list(images(chosen))
    # One platform of an index is no index, as with skopeo and crane.
    return left[0] if rules.platforms and len(left) == 1 else chosen


def _is_image(image: ImageNode) -> bool:
    return not image.describes_another and not image.is_soci_index


def _unread(node: Node) -> Iterator[Descriptor]:
    if isinstance(node, IndexNode):
        yield from node.unread
        for child in node.children:
            yield from _unread(child)


def _left_out(tree: Node, chosen: Node, rules: Rules) -> tuple[LeftOut, ...]:
    """Return what stands in the indexes of ``tree`` but not in those of ``chosen``."""
    kept = {(image.manifest.digest, image.platform) for image in images(chosen)}
    found = [
        LeftOut(image.manifest.digest, image.platform, _kind(image))
        for image in images(tree)
        if (image.manifest.digest, image.platform) not in kept
    ]
    for entry in _unread(tree):  # of which only the index tells what it is
        if is_no_platform(entry.platform):
            found.append(LeftOut(entry.digest, entry.platform, "attestation"))
        elif any(_runs_on(entry.platform, wanted) for wanted in rules.platforms):
            found.append(LeftOut(entry.digest, entry.platform, "variant"))
        else:
            found.append(LeftOut(entry.digest, entry.platform, "image"))
    return tuple(dict.fromkeys(found))


def _kind(image: ImageNode) -> Literal["attestation", "SOCI index", "image"]:
    if image.describes_another:
        return "attestation"
    return "SOCI index" if image.is_soci_index else "image"


def _runs_on(have: Platform | None, wanted: Platform) -> bool:
    return (
        have is not None
        and (have.os, have.architecture) == (wanted.os, wanted.architecture)
        and wanted.variant in {None, have.variant}
    )


def _image(
    image: ImageNode, rules: Rules, base: BaseLayers | None, reusable: Collection[Digest]
) -> ImagePlan:
    selected = _selected(image, rules.layers)
    shared = base.shared(image) if base else {}
    layers = []
    for number, layer in enumerate(image.manifest.layers):
        where = f"layer {number} of {image}"
        diff_id = image.diff_id(number)
        media_type = _plain_type(layer, where)
        action = LayerAction.UNSELECTED
        if is_encrypted(layer.media_type):
            action = _action_on_encrypted(layer, where, rules)
        elif number in shared:
            action = LayerAction.BASE
        elif number in selected:
            action = _action_on_plain(layer, media_type, where, rules)
        if action is LayerAction.ENCRYPT:
            guests_type = _readable_by_guests(media_type, where, rules)
            if layer.digest in reusable and guests_type == media_type:
                action = LayerAction.REUSE
            media_type = guests_type
        layers.append(LayerPlan(number, layer, action, media_type, diff_id, shared.get(number)))
    return ImagePlan(image, tuple(layers))


def _selected(image: ImageNode, numbers: tuple[int, ...] | None) -> set[int]:
    count = len(image.manifest.layers)
    if numbers is None:
        return set(range(count))
    for number in numbers:
        if not -count <= number < count:
            raise InputError(
                f"there is no layer {number} in {image}",
                f"it has {count} layers: 0 to {count - 1}, or -{count} to -1 from the end",
            )
    return {number % count for number in numbers}


def _plain_type(layer: Descriptor, where: str) -> str:
    if is_encrypted(layer.media_type):
        return plain_form(layer.media_type)
    if parse_packets(layer.annotations):
        raise InputError(
            f"{where} has wrapped keys, but its media type says that it is not encrypted",
            "the image was damaged when it was copied: encrypt the original",
        )
    return oci_equivalent(layer.media_type)


def _action_on_encrypted(layer: Descriptor, where: str, rules: Rules) -> LayerAction:
    if rules.keep_encrypted:
        try:
            for packet in parse_layer_encryption(layer.annotations).packets:
                if packet.scheme.startswith(PROVIDER_SCHEME):
                    wrap_type_of(packet.data)
        except InputError as error:
            raise error.within(f"{where} cannot stay as it is") from None
        return LayerAction.KEEP
    raise RefusedError(
        f"{where} is encrypted already",
        "rewrapping gives an encrypted image another key",
        code="encrypted-already",
    )


def _action_on_plain(layer: Descriptor, media_type: str, where: str, rules: Rules) -> LayerAction:
    if layer.urls:
        if rules.allow_foreign:
            return LayerAction.FOREIGN
        raise RefusedError(
            f"{where} is foreign: it can be read elsewhere, whatever happens here",
            code="foreign-layer",
        )
    if not is_encryptable(media_type):
        raise RefusedError(
            f"{where} is {shown(layer.media_type)}, which cannot be encrypted",
            "name the layers to encrypt, or the images",
            code="layer-not-encryptable",
        )
    return LayerAction.ENCRYPT


def _readable_by_guests(media_type: str, where: str, rules: Rules) -> str:
    if compression_of(media_type) != ZSTD or rules.zstd == "keep":
        return media_type
    if rules.zstd == "gzip":
        return compressed_as(media_type, GZIP)
    raise RefusedError(
        f"{where} is compressed with zstd, which guests cannot read once it is encrypted",
        "have it compressed anew, as gzip",
        code="zstd-layer",
    )


def _check_base(plan: EncryptionPlan, base: BaseLayers | None) -> None:
    if base and not plan.layers(LayerAction.BASE):
        raise InputError(
            "the base image shares no layer with the image",
            "name the image that this one was built from",
            code="base-unrelated",
        )


def _check_nothing_leaks(plan: EncryptionPlan) -> None:
    layers = [layer for image in plan.images for layer in image.layers]
    secret = [layer for layer in layers if not layer.action.readable]
    if not secret:
        raise RefusedError("the image has no layer to encrypt")
    # What a secret layer has in common with the base is readable there anyway.
    readable = [
        layer for layer in layers if layer.action in {LayerAction.UNSELECTED, LayerAction.FOREIGN}
    ]
    by_digest = {layer.layer.digest: layer for layer in readable}
    by_content = {layer.diff_id: layer for layer in readable if layer.diff_id}
    stated = {layer.digest for a in plan.attestations for layer in a.manifest.layers}
    for layer in secret:
        if layer.layer.digest in stated:
            raise RefusedError(
                f"layer {layer.number} would be encrypted, but an attestation holds the same and "
                "would stay readable",
                "leave attestations out",
                code="attestation-holds-layer",
            )
        same = by_content.get(layer.diff_id) if layer.diff_id else None
        other = by_digest.get(layer.layer.digest) or same
        if other:
            raise RefusedError(
                f"layer {layer.number} would be encrypted, but layer {other.number} is the same "
                "and would stay readable",
                "select both, or none",
            )
