"""Encrypt an image: every layer, or it fails and the destination is as it was.

In this order: all decisions (:mod:`.plan`), the keys, the layers, the manifests, the check of what
was written, and only then the image's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Literal

from coco_kp.errors import InputError, IntegrityError
from coco_kp.image.base import BaseLayers, base_layers
from coco_kp.image.cancellation import Cancellation, begin_naming, heeding
from coco_kp.image.destination import check_blobs, publish_and_name, read_in_place, writing
from coco_kp.image.facts import layer_facts
from coco_kp.image.layer import (
    SealedBlob,
    check_layer,
    check_statement,
    copy_layer,
    layer_compression,
    open_layer,
    refuse_readable,
    seal_layer,
)
from coco_kp.image.plan import (
    EncryptionPlan,
    ImagePlan,
    LayerAction,
    LayerPlan,
    Rules,
    check_sizes,
    entries_to_read,
    plan_encryption,
)
from coco_kp.image.progress import Progress
from coco_kp.image.registration import refuse_to_replace
from coco_kp.image.restored import LayerKey, layer_key, restored_tree
from coco_kp.image.results import EncryptionResult, image_result
from coco_kp.image.reuse import EarlierLayer, read_earlier
from coco_kp.image.tree import ImageNode, Node, images, layer_names, read_tree
from coco_kp.image.tree_writer import write_tree
from coco_kp.image.work import Work
from coco_kp.keys.wrapper import KekRecipient, KeyWrapper, Opener, Recipient, has_name, opens
from coco_kp.model.digest import HEX_LENGTHS, Digest
from coco_kp.model.layer_encryption import (
    DEFAULT_SCHEME,
    LayerPacket,
    parse_layer_encryption,
    parse_packets,
    with_encryption,
)
from coco_kp.model.layer_options import PrivateOptions, PublicOptions
from coco_kp.model.lazy_pull import without_positions
from coco_kp.model.manifest import Descriptor, ImageManifest, Manifest
from coco_kp.model.media_type import (
    ZSTD,
    compressed_as,
    encrypted_form,
    is_encrypted,
)
from coco_kp.model.reference import ImageReference, parse_image_reference
from coco_kp.model.words import check_word
from coco_kp.redact import shown
from coco_kp.transport import (
    Access,
    Sink,
    Source,
    access_beside,
    check_destination,
    check_source,
    open_source,
)
from coco_kp.values import dataclass, replace

if TYPE_CHECKING:
    from coco_kp.transport.registry.session import Session

Verification = Literal["packets", "full"]


def encrypt_image(
    source: str,
    destination: str,
    recipients: Sequence[Recipient],
    *,
    rules: Rules | None = None,
    base: str | None = None,
    reuse: str | None = None,
    reuse_openers: Sequence[Opener] = (),
    verify: Verification = "packets",
    dry_run: bool = False,
    jobs: int | None = None,
    source_access: Access | None = None,
    destination_access: Access | None = None,
    session: Session | None = None,
    progress: Progress | None = None,
    cancel: Cancellation | None = None,
    keep_replaced: bool = False,
) -> EncryptionResult:
    """Encrypt an image into another, or fail and leave the destination as it was.

    What the recipients' keys are to be is decided, fetched or drawn first, then the layers are
    written and every packet is opened again; a new key is kept and registered, and last of all the
    image gets its name.

    Args:
        source: The image, named as skopeo names it. Of an index all images are encrypted.
        destination: The image to make, named in the same way; it may be the source.
        recipients: Who can open the image: each of them every layer. At least one.
        rules: What is encrypted, and what becomes of the rest; by default all is encrypted.
        base: An image whose layers stay readable.
        reuse: An earlier encrypted image. Its layers are taken over, not encrypted anew, where they
            hold the same and ``reuse_openers`` or ``recipients`` open them.
        reuse_openers: What opens the packets of ``reuse``.
        verify: ``"packets"`` opens each packet again. ``"full"`` also reads all layers back,
            decrypts them, and compares them with the diff_ids of the config.
        dry_run: Only plan: nothing is written, and the result has no ``digest``.
        jobs: How many layers are worked on at once, by default one a processor, and
            six or more to or from a registry.
        source_access: How the source's registry is reached.
        destination_access: How the destination's registry is reached.
        session: What many images share on their way to registries.
        progress: Who is told of the work, and can end it.
        cancel: What another thread ends the call with, which then raises ``CancelledError``.
        keep_replaced: Whether what the image replaces in its layout stays there.

    Raises:
        RefusedError: Something would stay readable that ``rules`` do not name, or a key would be
            lost or replaced.
        InputError: The image, or its name, is not what it must be.
        KekError: A key cannot be had, or is none.
        IntegrityError: The source is damaged, or what was written is not what was read.
        RemoteError: A registry, KBS, store or KMS failed.
        ValueError: There is no recipient, or a word is unknown.
    """
    with heeding(cancel):
        return encrypt_taking_over(
            {},
            source,
            destination,
            recipients,
            rules=rules,
            base=base,
            reuse=reuse,
            reuse_openers=reuse_openers,
            verify=verify,
            dry_run=dry_run,
            jobs=jobs,
            source_access=source_access,
            destination_access=destination_access,
            session=session,
            progress=progress,
            keep_replaced=keep_replaced,
        )


def encrypt_taking_over(
    earlier: Mapping[Digest, EarlierLayer],
    source: str,
    destination: str,
    recipients: Sequence[Recipient],
    *,
    rules: Rules | None = None,
    base: str | None = None,
    reuse: str | None = None,
    reuse_openers: Sequence[Opener] = (),
    verify: Verification = "packets",
    dry_run: bool = False,
    jobs: int | None = None,
    source_access: Access | None = None,
    destination_access: Access | None = None,
    session: Session | None = None,
    progress: Progress | None = None,
    keep_replaced: bool = False,
) -> EncryptionResult:
    """Encrypt an image as :func:`encrypt_image` does, and take over layers that were opened before.

    ``earlier`` has them by the digests of what they hold.
    """
    if not recipients:
        raise ValueError("without a recipient nothing can be encrypted")
    check_word("verify", verify, Verification)
    check_names(recipients)
    progress = progress or Progress()
    source_reference = parse_image_reference(source)
    target = parse_image_reference(destination)
    check_destination(target)
    check_source(source_reference)
    with ExitStack() as stack:

        def opened(name: str) -> Source:
            reference = parse_image_reference(name)
            check_source(reference)
            access = access_beside(
                reference, (target, destination_access), (source_reference, source_access)
            )
            return stack.enter_context(open_source(reference, access, session))

        image = stack.enter_context(open_source(source_reference, source_access, session))
        rules = rules or Rules()
        tree = read_tree(image, select=partial(entries_to_read, rules=rules))
        of_base = base_layers(opened(base)) if base else None
        keys, earlier = _reusable(
            recipients, earlier, opened(reuse) if reuse else None, reuse_openers
        )
        plan = plan_encryption(tree, rules, of_base, earlier)
        for notice in plan.notices:
            progress.notice(notice)
        keys = keys or [recipient.prepare() for recipient in recipients]
        _check_kept(plan, keys)
        check_sizes(
            plan,
            {
                algorithm: [_packet_to_expect(key, f"{algorithm}:{length * '0'}") for key in keys]
                for algorithm, length in HEX_LENGTHS.items()
            },
        )
        if dry_run:
            return _result(target, None, (), plan, {})
        sink = stack.enter_context(
            writing(target, destination_access, session, keep_replaced=keep_replaced)
        )
        work = Work(progress, jobs, source_access, (source_reference, target))
        sealed, reused = _move_blobs(image, sink, plan, rules, of_base, earlier, work)
        written = {key: _Written.of(blob, keys) for key, blob in sealed.items()} | {
            (digest, False): _Written.reused(earlier[digest], compression, keys)
            for digest, compression in reused.items()
        }
        plan = _as_done(plan, sealed)
        mended = _mended(plan, written)
        for notice in mended:
            progress.notice(notice)
        plan = replace(plan, notices=(*plan.notices, *mended))
        top = _write_manifests(sink, plan, written)
        there = _check(sink, top, plan, written, keys, work)
        if changed := _changed_when_decrypted(tree, there, plan, written):
            progress.notice(changed)
            plan = replace(plan, notices=(*plan.notices, changed))
        if verify == "full":
            _open_all(sink.read_back(), plan, written, work)
        begin_naming(progress)
        publish_and_name(keys, sink, top, read_in_place(source_reference, target, tree))
        new = _new_manifests(there, plan)
        return _result(target, top.digest, _names(plan, keys), plan, new)


def _reusable(
    recipients: Sequence[Recipient],
    earlier: Mapping[Digest, EarlierLayer],
    reuse: Source | None,
    openers: Sequence[Opener],
) -> tuple[list[KeyWrapper], dict[Digest, EarlierLayer]]:
    """Return the layers that can be taken over; and the keys, if they had to be asked for."""
    if not earlier and reuse is None:
        return [], {}
    keys = [recipient.prepare() for recipient in recipients]
    found = dict(earlier)
    if reuse is not None:
        found |= read_earlier(reuse, (*openers, *keys), keys)
    for layer in found.values():
        refuse_to_replace(keys, layer.encryption.packets)
    return keys, found


def check_names(recipients: Sequence[Recipient]) -> None:
    """Raise ``InputError`` for a key ID that is named twice: a guest has one key under it."""
    names = [recipient.name for recipient in recipients if recipient.name]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"two recipients have the key ID {shown(name)}",
                "guests find one key under a key ID: name another for each key",
                code="key-id-twice",
            )


def _check_kept(plan: EncryptionPlan, keys: Sequence[KeyWrapper]) -> None:
    """Refuse a key ID under which another key opens a layer that is kept as it is."""
    if not plan.layers(LayerAction.ENCRYPT, LayerAction.REUSE):
        return  # no layer gets a packet of these keys
    for image, layer, packet in _kept_packets(plan):
        for key in keys:
            if has_name(packet, key.name) and not opens(key, packet):
                raise InputError(
                    f"layer {layer.number} of {image.image} is kept encrypted with another key of "
                    f"the key ID {shown(key.name)}",
                    "guests find one key under a key ID: name another",
                )


def _kept_packets(plan: EncryptionPlan) -> Iterator[tuple[ImagePlan, LayerPlan, LayerPacket]]:
    """Yield the packets of the layers that are kept as they are."""
    for image in plan.images:
        for layer in image.layers:
            if layer.action is LayerAction.KEEP:
                for packet in parse_packets(layer.layer.annotations):
                    yield image, layer, packet


def _packet_to_expect(key: KeyWrapper, digest: str) -> LayerPacket:
    """Return a packet as large as the key's will be, or smaller where a service makes them.

    It records ``digest``, and holds at least its layer's key and its recipient's name, each written
    in base64.
    """
    options = PrivateOptions(bytes(32), bytes(16), digest).to_json()
    if isinstance(key, KekRecipient):
        return key.wrap(options)
    return LayerPacket(DEFAULT_SCHEME, bytes(4 * len(options) // 3 + len(key.name)))


def _names(plan: EncryptionPlan, keys: Sequence[KeyWrapper]) -> tuple[str, ...]:
    """Return everybody for whom a layer is encrypted now, each once."""
    new = [key.name for key in keys] if plan.layers(LayerAction.ENCRYPT, LayerAction.REUSE) else []
    kept = [
        packet.name
        for image in plan.images
        for layer in image.layers
        if layer.action is LayerAction.KEEP
        for packet in layer_facts(layer.number, layer.layer).packets
    ]
    return tuple(dict.fromkeys((*new, *kept)))


@dataclass(frozen=True, slots=True)
class _Written:
    """An encrypted layer at the destination, and what its descriptor has to say.

    ``compression`` is what its content says.
    """

    digest: Digest
    size: int
    options: PrivateOptions
    public_options: PublicOptions
    packets: tuple[LayerPacket, ...]
    compression: str
    transcoded: bool = False

    @classmethod
    def of(cls, blob: SealedBlob, keys: Sequence[KeyWrapper]) -> _Written:
        packets = tuple(key.wrap(blob.private_options.to_json()) for key in keys)
        return cls(
            blob.digest,
            blob.size,
            blob.private_options,
            blob.public_options,
            packets,
            blob.compression,
            blob.transcoded,
        )

    @classmethod
    def reused(
        cls, earlier: EarlierLayer, compression: str, keys: Sequence[KeyWrapper]
    ) -> _Written:
        public, packets = earlier.encryption.public_options, earlier.packets_for(keys)
        return cls(
            earlier.layer.digest,
            earlier.layer.size,
            earlier.options,
            public,
            tuple(packets),
            compression,
        )

    def media_type(self, planned: str) -> str:
        """Return the layer's type, not encrypted, that says what its bytes are."""
        return compressed_as(planned, self.compression)


def _key(layer: LayerPlan) -> tuple[Digest, bool]:
    """Return what two layers share that are written only once."""
    return layer.layer.digest, layer.transcode


def _move_blobs(
    source: Source,
    sink: Sink,
    plan: EncryptionPlan,
    rules: Rules,
    base: BaseLayers | None,
    earlier: Mapping[Digest, EarlierLayer],
    work: Work,
) -> tuple[dict[tuple[Digest, bool], SealedBlob], dict[Digest, str]]:
    """Bring all blobs to the destination.

    Return those that were encrypted, and how those are compressed that were taken over.
    """
    sealed: dict[tuple[Digest, bool], SealedBlob] = {}
    taken_over: dict[Digest, str] = {}

    def seal(layer: LayerPlan) -> None:
        sealed[_key(layer)] = seal_layer(
            source, sink, layer, work, zstd=rules.zstd, threads=threads
        )

    def copy(layer: LayerPlan) -> None:
        shared = layer.base
        if shared and shared.claimed and base and base.source:
            check_layer(base.source, shared.layer, shared.content, work)
        if layer.action is LayerAction.KEEP:
            refuse_readable(source, layer.layer)
        copy_layer(source, sink, layer.layer, work, shared.content if shared else None)

    def state(layer: Descriptor) -> None:
        check_statement(source, layer, work)
        copy_layer(source, sink, layer, work)

    def reuse(layer: LayerPlan) -> None:
        found = earlier[layer.layer.digest]
        compression = layer_compression(found.check(layer, work), layer, rules.zstd)
        if compression == ZSTD and rules.zstd == "gzip":
            seal(layer)
            return
        copy_layer(found.source, sink, found.layer, work)
        taken_over[layer.layer.digest] = compression

    secret, reused = plan.layers(LayerAction.ENCRYPT), plan.layers(LayerAction.REUSE)
    kept, statements, configs = _kept(plan), _statements(plan), _configs(plan)
    size = sum(layer.layer.size for layer in (*secret, *reused, *kept))
    work.progress.expect(size, "encrypting", layer_names(plan.tree), sink.finishing)
    threads = work.threads_for(len(secret) + len(reused))
    # The largest first, so that no job is left alone with it at the end.
    largest_first = sorted((*secret, *reused), key=lambda layer: -layer.layer.size)
    pieces: list[Callable[[], None]] = [
        *(partial(reuse if x.action is LayerAction.REUSE else seal, x) for x in largest_first),
        *(partial(copy, layer) for layer in kept),
        *(partial(state, layer) for layer in statements),
        *(partial(copy_layer, source, sink, config, work) for config in configs),
    ]
    work.run(pieces)
    return sealed, taken_over


def _kept(plan: EncryptionPlan) -> list[LayerPlan]:
    """Return the layers that are copied as they are."""
    actions = (*(action for action in LayerAction if action.readable), LayerAction.KEEP)
    return [layer for layer in plan.layers(*actions) if not layer.layer.elsewhere]


def _statements(plan: EncryptionPlan) -> list[Descriptor]:
    """Return the layers of attestations, which stay readable."""
    found = {layer.digest: layer for a in plan.attestations for layer in a.manifest.layers}
    return list(found.values())


def _configs(plan: EncryptionPlan) -> list[Descriptor]:
    configs = [image.manifest.config for image in images(plan.tree)]
    return list({config.digest: config for config in configs}.values())


def _as_done(
    plan: EncryptionPlan, sealed: Mapping[tuple[Digest, bool], SealedBlob]
) -> EncryptionPlan:
    """Return the plan, in which layers were to be reused that had to be compressed anew."""

    def done(layer: LayerPlan) -> LayerPlan:
        anew = layer.action is LayerAction.REUSE and _key(layer) in sealed
        return replace(layer, action=LayerAction.ENCRYPT) if anew else layer

    planned = (replace(image, layers=tuple(map(done, image.layers))) for image in plan.images)
    return replace(plan, images=tuple(planned))


def _mended(
    plan: EncryptionPlan, written: Mapping[tuple[Digest, bool], _Written]
) -> tuple[str, ...]:
    """Return a line for each layer whose media type did not say what its bytes are."""
    lines = []
    for image in plan.images:
        for layer in image.layers:
            if layer.action not in {LayerAction.ENCRYPT, LayerAction.REUSE}:
                continue
            blob = written[_key(layer)]
            there = encrypted_form(blob.media_type(layer.media_type))
            expected = (encrypted_form(layer.media_type), layer.transcode)
            if (there, blob.transcoded) != expected:
                anew = ", compressed anew with gzip" if blob.transcoded else ""
                lines.append(
                    f"layer {layer.number} of {image.image} is called "
                    f"{shown(layer.layer.media_type)}, but is not: it is written as {there}{anew}"
                )
    return tuple(lines)


def _write_manifests(
    sink: Sink, plan: EncryptionPlan, written: Mapping[tuple[Digest, bool], _Written]
) -> Manifest:
    new = {image.manifest.digest: image.manifest for image in plan.attestations}
    for image in plan.images:
        manifest = image.image.manifest.to_oci()
        layers = [_descriptor(layer, written) for layer in image.layers]
        new[image.image.manifest.digest] = manifest.replaced(layers=layers)
    return write_tree(plan.tree, new, sink)


def _descriptor(plan: LayerPlan, all_written: Mapping[tuple[Digest, bool], _Written]) -> Descriptor:
    if plan.action is LayerAction.KEEP:
        return plan.layer
    if plan.action.readable:
        return plan.layer.replaced(media_type=plan.media_type)
    written, annotations = all_written[_key(plan)], plan.layer.annotations
    if written.transcoded:
        annotations = without_positions(annotations)
    return plan.layer.replaced(
        media_type=encrypted_form(written.media_type(plan.media_type)),
        digest=written.digest,
        size=written.size,
        annotations=with_encryption(annotations, written.packets, written.public_options),
    )


def _check(
    sink: Sink,
    top: Manifest,
    plan: EncryptionPlan,
    written: Mapping[tuple[Digest, bool], _Written],
    keys: Sequence[KeyWrapper],
    work: Work,
) -> Node:
    """Read the manifests back: each layer must be what was written, each packet must open."""
    tree = read_tree(sink.read_back(), top.descriptor())
    check_blobs(sink, tree, work)
    for image, planned in _pairs(tree, plan):
        for layer, plan_ in zip(image.manifest.layers, planned.layers, strict=True):
            if plan_.action in {LayerAction.ENCRYPT, LayerAction.REUSE}:
                _check_layer(layer, written[_key(plan_)], keys)
    return tree


def _result(
    target: ImageReference,
    digest: Digest | None,
    key_ids: tuple[str, ...],
    plan: EncryptionPlan,
    written: Mapping[Digest, ImageManifest],
) -> EncryptionResult:
    return EncryptionResult(
        str(target),
        digest,
        key_ids,
        tuple(image_result(one, written.get(one.image.manifest.digest)) for one in plan.images),
        tuple(one.manifest.digest for one in plan.attestations),
        plan.left_out,
        plan.notices,
    )


def _new_manifests(there: Node, plan: EncryptionPlan) -> dict[Digest, ImageManifest]:
    """Return the manifests that were written, by the digest of what was read."""
    return {planned.image.manifest.digest: image.manifest for image, planned in _pairs(there, plan)}


def _changed_when_decrypted(
    source: Node,
    there: Node,
    plan: EncryptionPlan,
    written: Mapping[tuple[Digest, bool], _Written],
) -> str:
    """Return a line if decrypting what is ``there`` gives another manifest than the source's."""
    plain: dict[LayerKey, Digest] = {}
    anew = False
    for image, planned in _pairs(there, plan):
        for layer in planned.layers:
            if layer.action in {LayerAction.ENCRYPT, LayerAction.REUSE}:
                plain[layer_key(image, layer.number)] = layer.layer.digest
                anew = anew or written[_key(layer)].transcoded
    digest = source.manifest.digest
    if not anew and restored_tree(there, plain)[-1].digest == digest:
        return ""
    kept = "layers that were compressed anew stay so" if anew else "layers and config are as before"
    return f"decrypted, the image will have another digest than {digest}: {kept}"


def _pairs(there: Node, plan: EncryptionPlan) -> list[tuple[ImageNode, ImagePlan]]:
    """Return each image that was written once, and the plan that it follows."""
    found = [image for image in images(there) if not image.describes_another]
    pairs = zip(found, _planned(plan), strict=True)
    return list({image.manifest.digest: (image, planned) for image, planned in pairs}.values())


def _planned(plan: EncryptionPlan) -> list[ImagePlan]:
    """Return the plans in the order of the indexes; an image may stand there more than once."""
    by_digest = {image.image.manifest.digest: image for image in plan.images}
    subjects = (image for image in images(plan.tree) if not image.describes_another)
    return [by_digest[image.manifest.digest] for image in subjects]


def _check_layer(layer: Descriptor, written: _Written, keys: Sequence[KeyWrapper]) -> None:
    encryption = parse_layer_encryption(layer.annotations)
    if (
        not is_encrypted(layer.media_type)
        or (layer.digest, layer.size) != (written.digest, written.size)
        or encryption.public_options != written.public_options
        or sorted(encryption.packets, key=repr) != sorted(written.packets, key=repr)
        or any(
            not key.confirms(packet, written.options)
            for key, packet in zip(keys, written.packets, strict=True)
        )
    ):
        raise IntegrityError(f"the destination does not hold what was written as {written.digest}")


def _open_all(
    source: Source,
    plan: EncryptionPlan,
    written: Mapping[tuple[Digest, bool], _Written],
    work: Work,
) -> None:
    """Read all blobs at the destination; those that were encrypted must decrypt to the image.

    Blobs that were there before are not believed, either: their names and sizes are all that a
    layout compared.
    """

    def check(layer: LayerPlan) -> None:
        blob = written[_key(layer)]
        there = layer.layer.replaced(
            media_type=blob.media_type(layer.media_type), digest=blob.digest, size=blob.size
        )
        public, diff_id = blob.public_options, layer.diff_id
        open_layer(source, there, blob.options, public, diff_id, None, work, threads=threads)

    layers = plan.layers(LayerAction.ENCRYPT, LayerAction.REUSE)
    others = [*(layer.layer for layer in _kept(plan)), *_statements(plan), *_configs(plan)]
    threads = work.threads_for(len(layers))
    size = sum(blob.size for blob in (*(x.layer for x in layers), *others))
    work.progress.expect(size, "verifying", {})
    work.run(
        [
            *(partial(check, layer) for layer in layers),
            *(partial(check_layer, source, blob, None, work) for blob in others),
        ]
    )
