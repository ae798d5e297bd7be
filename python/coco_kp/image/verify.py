"""Prove that an image is encrypted, that its packets open, and that its layers decrypt to it.

Nothing is written. What is wrong is a finding in the report; only what keeps the image from being
read at all is raised.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from itertools import compress
from typing import TYPE_CHECKING, Literal

from coco_kp.errors import CocoKpError, InputError, IntegrityError, RefusedError
from coco_kp.image.base import BaseLayers, SharedLayer, base_layers
from coco_kp.image.cancellation import Cancellation, heeding
from coco_kp.image.content import content_kind
from coco_kp.image.facts import (
    LayerFacts,
    PacketFacts,
    ctr_findings,
    guest_config_findings,
    guest_findings,
    guest_packet_findings,
    layer_facts,
    nitro_findings,
    sample_findings,
    seen_by_guests,
)
from coco_kp.image.layer import check_layer, check_statement, open_layer
from coco_kp.image.opener import open_each
from coco_kp.image.progress import Progress
from coco_kp.image.tree import ImageNode, Node, images, layer_names, read_tree
from coco_kp.image.verdicts import LayerVerdict, RecipientVerdict, VerificationReport
from coco_kp.image.work import Work
from coco_kp.keys.wrapper import Opener
from coco_kp.model.digest import Digest
from coco_kp.model.encoding import write_json
from coco_kp.model.layer_encryption import parse_layer_encryption
from coco_kp.model.manifest import Descriptor
from coco_kp.model.packet import AWS
from coco_kp.model.reference import parse_image_reference
from coco_kp.model.resource_uri import ResourceUri, parse_key_id, without_ciphertext
from coco_kp.model.words import check_word
from coco_kp.redact import shown
from coco_kp.transport import Access, Source, access_beside, open_source
from coco_kp.values import dataclass, replace

if TYPE_CHECKING:
    from coco_kp.keys.reference import WrappingReference
    from coco_kp.transport.registry.session import Session


Target = Literal["coco", "nitro"]


@dataclass(frozen=True, slots=True)
class VerificationRules:
    """What may stay readable, and for whom the rest is encrypted.

    Attributes:
        allowed_layers: Numbers of layers that may be readable in each image, negative ones from the
            end; a number that an image has not allows nothing there.
        allow_sample: Allow packets of the sample key, which everybody knows.
        allow_ctr: Allow packets of A256CTR, which can be altered unnoticed.
        expected_keys: Where not empty, the keys for which each encrypted layer must be encrypted:
            for all of them, and for nobody else. Of a wrapped KEK's key ID only the name counts.
        target: Who is to read the image: ``"coco"``, a guest of Confidential Containers, or
            ``"nitro"``, an AWS Nitro sandbox, which takes no image with a readable layer. What that
            reader would refuse is a finding.
        allow_attestations: Allow attestations, which describe the plaintext and can be read.

    Raises:
        ValueError: The target is unknown.
    """

    allowed_layers: tuple[int, ...] = ()
    allow_sample: bool = False
    allow_ctr: bool = False
    expected_keys: tuple[ResourceUri | WrappingReference, ...] = ()
    target: Target | None = None
    allow_attestations: bool = False

    def __post_init__(self) -> None:
        if self.target is not None:
            check_word("target", self.target, Target)
        for key in self.expected_keys:
            _expected(key)


def verify_image(
    image: str,
    openers: Sequence[Opener] = (),
    *,
    rules: VerificationRules | None = None,
    base: str | None = None,
    jobs: int | None = None,
    access: Access | None = None,
    session: Session | None = None,
    progress: Progress | None = None,
    cancel: Cancellation | None = None,
) -> VerificationReport:
    """Verify that an image is encrypted, that its packets open, and that its layers decrypt to it.

    What is wrong with the image is in the report, and nothing is raised for it: look at its
    ``failure``. Nothing is written.

    Args:
        image: The image, named as skopeo names it. Of an index all images are verified.
        openers: What opens the packets. Without any only that is checked which needs no key: that
            all layers are encrypted, their digests, and the form of their packets.
        rules: What may be otherwise; by default every layer must be encrypted.
        base: An image whose layers may be readable.
        jobs: How many layers are worked on at once, by default one a processor.
        access: How the image's registry is reached.
        session: What many images share on their way to registries.
        progress: Who is told of the work, and can end it.
        cancel: What another thread ends the call with, which then raises ``CancelledError``.

    Raises:
        InputError: The name is not one, or leads to no image that can be read.
        IntegrityError: A manifest has another digest than it should.
        RemoteError: A registry failed.
    """
    with heeding(cancel), ExitStack() as stack:
        reference = parse_image_reference(image)
        source = stack.enter_context(open_source(reference, access, session))
        base_of = BaseLayers()
        if base:
            beside = parse_image_reference(base)
            its_access = access_beside(beside, (reference, access))
            base_of = base_layers(stack.enter_context(open_source(beside, its_access, session)))
        work = Work(progress or Progress(), jobs, access)
        tree = read_tree(source)
        return verify_tree(source, tree, openers, work, rules or VerificationRules(), base_of)


def verify_tree(
    source: Source,
    tree: Node,
    openers: Sequence[Opener],
    work: Work,
    rules: VerificationRules | None = None,
    base: BaseLayers | None = None,
) -> VerificationReport:
    """Verify an image whose manifests were read already."""
    rules, base = rules or VerificationRules(), base or BaseLayers()
    subjects = [image for image in images(tree) if not image.describes_another]
    threads = work.threads_for(sum(len(image.manifest.layers) for image in subjects))
    rows = [
        _LayerCheck(
            source, image, number, tuple(openers), rules, base.source, shared.get(number), threads
        )
        for image in images(tree)
        for shared in [base.shared(image)]
        for number in range(len(image.manifest.layers))
    ]
    checks = {check.key: check for check in rows}
    size = sum(check.layer.size for check in checks.values())
    work.progress.expect(size, "verifying", layer_names(tree))
    work.run(partial(check.run, work) for check in checks.values())
    findings: list[CocoKpError] = []
    if not any(image.manifest.layers for image in subjects):
        findings.append(InputError("the image has no layer"))
    if rules.expected_keys and rows and not any(row.encrypted for row in rows):
        findings.append(RefusedError("no layer is encrypted, for the expected keys or any other"))
    if rules.target == "coco":
        for image in subjects:
            findings += guest_config_findings(image.config, len(image.manifest.layers))
    return VerificationReport(
        source.reference,
        tree.manifest.digest,
        bool(openers),
        tuple(
            replace(checks[row.key].verdict, image=_name(row.image), number=row.number)
            for row in rows
        ),
        tuple(findings),
    )


def _name(image: ImageNode) -> str:
    return f"attestation {image.manifest.digest}" if image.describes_another else str(image)


class _LayerCheck:
    """The checks of one layer, and what they found."""

    def __init__(
        self,
        source: Source,
        image: ImageNode,
        number: int,
        openers: tuple[Opener, ...],
        rules: VerificationRules,
        base: Source | None,
        shared: SharedLayer | None,
        threads: int,
    ) -> None:
        self.source, self.image, self.number = source, image, number
        self.openers, self.rules, self.base = openers, rules, base
        self.shared, self.threads = shared, threads
        self.facts: LayerFacts = layer_facts(number, self.layer)
        self.opened: list[bool] | None = None
        self.checked: list[str] = []
        self.findings: list[CocoKpError] = []
        self.remarks: list[str] = []

    @property
    def layer(self) -> Descriptor:
        return self.image.manifest.layers[self.number]

    @property
    def encrypted(self) -> bool:
        return self.facts.encrypted

    @property
    def key(self) -> tuple[object, ...]:
        """All that the verdict follows from: a layer that stands in many places is read once."""
        return (
            write_json(self.layer.document),
            self.image.diff_id(self.number),
            self.image.describes_another,
            self._may_be_readable(),
        )

    @property
    def verdict(self) -> LayerVerdict:
        packets = self.facts.packets
        opened: Sequence[bool | None] = self.opened or [False if self.openers else None] * len(
            packets
        )
        return LayerVerdict(
            str(self.image),
            self.number,
            self.layer.digest,
            self.encrypted,
            tuple(map(RecipientVerdict, packets, opened)),
            tuple(self.checked),
            tuple(self.findings),
            tuple(self.remarks),
        )

    def run(self, work: Work) -> None:
        self.findings += self.facts.findings
        if not self.rules.allow_sample:
            self.findings += sample_findings(self.facts)
        if not self.rules.allow_ctr:
            self.findings += ctr_findings(self.facts)
        if self.encrypted and self.rules.expected_keys:
            self.findings += self._recipient_findings()
        if self.rules.target == "coco" and not self.image.describes_another:  # no guest pulls it
            self.findings += guest_findings(self.facts)
        if self.rules.target == "nitro" and self.encrypted:
            self.findings += nitro_findings(self.facts)
        if not self.encrypted and not self._may_be_readable():
            self.findings.append(self._readable())
        if self.layer.elsewhere:
            self.remarks.append("its content lies elsewhere: nothing was checked")
            return
        self._look_inside(work)

    def _look_inside(self, work: Work) -> None:
        """Read the layer, and take what is wrong with it for a finding."""
        try:
            self._read(work)
        except CocoKpError as finding:
            if not work.is_fault(finding):
                raise
            if not any(finding.message == known.message for known in self.findings):
                self.findings.append(finding.at_rest())

    def _read(self, work: Work) -> None:
        diff_id = self.image.diff_id(self.number)
        refusals = self._refusals()
        if self.encrypted and self.openers:
            encryption = parse_layer_encryption(self.layer.annotations)
            keys, self.opened = open_each(encryption.packets, self.openers)
            self.checked.append("packet")
            if self.rules.target == "coco":
                self.findings += guest_packet_findings(self.facts, self.opened)
            public = encryption.public_options
            threads = self.threads
            open_layer(
                self.source,
                self.layer,
                keys,
                public,
                diff_id,
                None,
                work,
                threads=threads,
                refusals=refusals,
            )
            self.checked += ["digest", "hmac"]
            if keys.digest:
                self.checked.append("plain digest")
            elif diff_id:
                self.remarks.append("the packet records no digest: the diff_id was checked alone")
            else:
                # The HMAC covers the ciphertext, not the nonce.
                raise IntegrityError(
                    "nothing tells what the layer should decrypt to: its packet records no digest, "
                    "and the config no diff_id"
                )
        elif self.encrypted:
            diff_id = None
            kind = content_kind(check_layer(self.source, self.layer, None, work))
            self.checked.append("digest")
            if kind:
                raise RefusedError(
                    f"the layer is called encrypted, but its content is plain {kind}",
                    "whoever wrote the image did not encrypt it: everybody can read the layer",
                )
        else:
            self._read_readable(diff_id, refusals, work)
            self.checked.append("digest")
        if diff_id:
            self.checked.append("diff_id")
            if refusals is not None:
                self.checked.append("tar")
                self.findings += refusals

    def _read_readable(
        self, diff_id: Digest | None, refusals: list[InputError] | None, work: Work
    ) -> None:
        if self.shared and self.shared.claimed and self.base:
            shared = self.shared
            check_layer(self.base, shared.layer, shared.content, work, threads=self.threads)
        if self.image.describes_another:
            check_statement(self.source, self.layer, work)
        else:
            check_layer(
                self.source, self.layer, diff_id, work, threads=self.threads, refusals=refusals
            )

    def _refusals(self) -> list[InputError] | None:
        """Return what gets why a guest would refuse the content; None where nobody asks."""
        return [] if self.rules.target and not self.image.describes_another else None

    def _recipient_findings(self) -> list[CocoKpError]:
        expected = {_expected(key) for key in self.rules.expected_keys}
        found = [_key_id(packet) for packet in self.facts.packets]
        coco = self.rules.target == "coco"
        seen = seen_by_guests(self.facts) if coco else [True] * len(found)
        there = [key for key in compress(found, seen) if key]
        missing = [key for key in expected if key not in there]
        others = [
            packet.name
            for packet, key in zip(self.facts.packets, found, strict=True)
            if key not in expected
        ]
        return [
            *(
                RefusedError(f"the layer is not encrypted for {shown(name)}")
                for name in sorted(missing)
            ),
            *(
                RefusedError(f"the layer is also encrypted for {shown(name)}: it is not expected")
                for name in dict.fromkeys(others)
            ),
        ]

    def _readable(self) -> RefusedError:
        if self.image.describes_another:
            return RefusedError(
                "an attestation is readable: it describes the plaintext",
                "encryption leaves it out by default",
                code="attestation-readable",
            )
        return RefusedError("the layer is not encrypted")

    def _may_be_readable(self) -> bool:
        if self.image.describes_another:
            return self.rules.allow_attestations
        if self.rules.target == "nitro":
            return False
        count = len(self.image.manifest.layers)
        return (
            not {self.number, self.number - count}.isdisjoint(self.rules.allowed_layers)
            or self.shared is not None
        )


def _expected(key: ResourceUri | WrappingReference) -> str:
    """Return the canonical name of a key: what differs from image to image is left out."""
    if isinstance(key, ResourceUri):
        return str(without_ciphertext(key))
    from coco_kp.keys.reference import AwsKmsReference, name_of  # noqa: PLC0415 (loads all kinds)

    if not isinstance(key, AwsKmsReference):
        raise TypeError(f"no packet names the key {name_of(key)}")
    return str(AwsKmsReference("", key.key))


def _key_id(packet: PacketFacts) -> str | None:
    """Return the canonical name of a packet's key; None where it cannot be expected."""
    if packet.provider == AWS:
        from coco_kp.keys.reference import AwsKmsReference  # noqa: PLC0415 (as above)

        return str(AwsKmsReference("", packet.kid))
    if packet.provider != "kbs":
        return None
    try:
        return _expected(parse_key_id(packet.kid))
    except InputError:
        return None
