"""Prove that an image is encrypted, that its packets open, and that its layers decrypt to it.

Nothing is written. What is wrong is a finding in the report; only what keeps the image from being
read at all is raised.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal

from coco_kp.errors import CocoKpError, InputError, RefusedError
from coco_kp.image.base import BaseLayers, base_layers
from coco_kp.image.facts import guest_config_findings, guest_findings, layer_facts
from coco_kp.image.layer import check_layer, open_layer
from coco_kp.image.opener import Opener, open_one
from coco_kp.image.progress import Progress, Work
from coco_kp.image.tree import ImageNode, Node, images, read_tree
from coco_kp.model.digest import Digest
from coco_kp.model.layer_encryption import parse_layer_encryption
from coco_kp.model.manifest import Descriptor
from coco_kp.model.reference import parse_image_reference
from coco_kp.transport import Access, Source, open_source

_GRAVEST_FIRST: Final = (7, 5, 4, 6, 3)  # exit codes: an unencrypted layer outweighs all else


@dataclass(frozen=True, slots=True)
class VerificationRules:
    """What may stay readable, and who has to be able to read the image.

    ``allowed_layers`` are numbers of layers in each image, negative ones from the end.
    """

    allowed_layers: tuple[int, ...] = ()
    target: Literal["coco"] | None = None


@dataclass(frozen=True, slots=True)
class LayerVerdict:
    """A layer of an image, what was checked of it, and what is wrong with it."""

    image: str
    number: int
    layer: Descriptor
    encrypted: bool
    checked: tuple[str, ...]
    findings: tuple[CocoKpError, ...]


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """All verdicts. ``with_key`` tells whether packets and HMACs could be checked at all."""

    reference: str
    digest: Digest
    with_key: bool
    layers: tuple[LayerVerdict, ...]
    findings: tuple[CocoKpError, ...] = ()

    @property
    def failure(self) -> CocoKpError | None:
        """The gravest finding; None for an image that is as it should be."""
        found = [(finding, "") for finding in self.findings]
        found += [
            (finding, f"layer {verdict.number} of {verdict.image}: ")
            for verdict in self.layers
            for finding in verdict.findings
        ]
        if not found:
            return None
        finding, where = min(found, key=lambda pair: _GRAVEST_FIRST.index(pair[0].exit_code))
        return type(finding)(f"{where}{finding.message}", finding.hint)


def verify_image(
    image: str,
    openers: Sequence[Opener] = (),
    *,
    rules: VerificationRules | None = None,
    base: str | None = None,
    jobs: int | None = None,
    access: Access | None = None,
    progress: Progress | None = None,
) -> VerificationReport:
    """Verify the image that ``image`` names as skopeo does.

    Without ``openers`` only what needs no key is checked: that all layers are encrypted, their
    digests, and the form of their packets. ``base`` names an image whose layers may be readable.
    """
    with ExitStack() as stack:

        def opened(name: str) -> Source:
            return stack.enter_context(open_source(parse_image_reference(name), access))

        source = opened(image)
        base_of = base_layers(read_tree(opened(base))) if base else BaseLayers()
        work = Work(progress or Progress(), jobs)
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
    checks = [
        _LayerCheck(source, image, number, tuple(openers), rules, base, threads)
        for image in subjects
        for number in range(len(image.manifest.layers))
    ]
    work.progress.expect(sum(check.layer.size for check in checks))
    work.run(partial(check.run, work) for check in checks)
    findings: list[CocoKpError] = [] if checks else [InputError("the image has no layer")]
    if rules.target:
        for image in subjects:
            findings += guest_config_findings(image.config, len(image.manifest.layers))
    return VerificationReport(
        source.reference,
        tree.manifest.digest,
        bool(openers),
        tuple(check.verdict for check in checks),
        tuple(findings),
    )


@dataclass(slots=True)
class _LayerCheck:
    """The checks of one layer, and what they found."""

    source: Source
    image: ImageNode
    number: int
    openers: tuple[Opener, ...]
    rules: VerificationRules
    base: BaseLayers
    threads: int
    encrypted: bool = False
    checked: list[str] = field(default_factory=list)
    findings: list[CocoKpError] = field(default_factory=list)

    @property
    def layer(self) -> Descriptor:
        return self.image.manifest.layers[self.number]

    @property
    def verdict(self) -> LayerVerdict:
        return LayerVerdict(
            str(self.image),
            self.number,
            self.layer,
            self.encrypted,
            tuple(self.checked),
            tuple(self.findings),
        )

    def run(self, work: Work) -> None:
        facts = layer_facts(self.number, self.layer)
        self.encrypted = facts.encrypted
        self.findings += facts.findings
        if self.rules.target:
            self.findings += guest_findings(facts)
        if not self.encrypted and not self._may_be_readable():
            self.findings.append(RefusedError("the layer is not encrypted"))
        if self.layer.urls:
            return  # what lies elsewhere is not this image's to prove
        try:
            self._read(work)
        except CocoKpError as finding:
            if not any(finding.message == known.message for known in self.findings):
                self.findings.append(finding)

    def _read(self, work: Work) -> None:
        diff_id = self.image.diff_id(self.number)
        if self.encrypted and self.openers:
            encryption = parse_layer_encryption(self.layer.annotations)
            opened = open_one(encryption.packets, self.openers).options
            self.checked.append("packet")
            public = encryption.public_options
            threads = self.threads
            open_layer(
                self.source, self.layer, opened, public, diff_id, None, work, threads=threads
            )
            self.checked += ["digest", "hmac", "plain digest"]
        elif self.encrypted:
            diff_id = None
            check_layer(self.source, self.layer, None, work)
            self.checked.append("digest")
        else:
            check_layer(self.source, self.layer, diff_id, work)
            self.checked.append("digest")
        if diff_id:
            self.checked.append("diff_id")

    def _may_be_readable(self) -> bool:
        count = len(self.image.manifest.layers)
        return (
            self.number in {number % count for number in self.rules.allowed_layers}
            or self.layer.digest in self.base.digests
            or self.image.diff_id(self.number) in self.base.diff_ids
        )
