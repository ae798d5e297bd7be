"""What verifying an image found: plain values, and the document of ``verify``."""

from __future__ import annotations

from typing import Literal

from coco_kp.errors import Advice, CocoKpError
from coco_kp.image.facts import PacketFacts
from coco_kp.model.digest import Digest
from coco_kp.values import dataclass


@dataclass(frozen=True, slots=True)
class RecipientVerdict:
    """A packet of a layer, and whether it opens.

    Attributes:
        packet: Its form.
        opened: Whether it opens; None where there was nothing to try it with.
    """

    packet: PacketFacts
    opened: bool | None

    def to_json(self) -> dict[str, object]:
        """Return it as the document of ``verify`` has it."""
        return {
            "scheme": self.packet.scheme,
            "kid": self.packet.kid or None,
            "wrap_type": self.packet.wrap_type or None,
            "opened": self.opened,
        }


@dataclass(frozen=True, slots=True)
class LayerVerdict:
    """A layer of an image, for whom it is encrypted, what was checked, and what is wrong with it.

    Attributes:
        image: What messages call the image: its platform, or an attestation's digest.
        number: The layer's, from 0.
        digest: The layer's, as it is stored.
        encrypted: Whether its media type says so.
        recipients: A verdict on each packet.
        checked: What was checked: ``packet``, ``digest`` (of what is stored), ``hmac``, ``plain
            digest`` (which the packet records), ``diff_id``, and ``tar`` (the content, as a guest
            unpacks it).
        findings: What is wrong, as errors that were not raised.
        remarks: Why something was not checked.
    """

    image: str
    number: int
    digest: Digest
    encrypted: bool
    recipients: tuple[RecipientVerdict, ...]
    checked: tuple[str, ...]
    findings: tuple[CocoKpError, ...]
    remarks: tuple[str, ...] = ()

    @property
    def verdict(self) -> Literal["ok", "failed", "unchecked"]:
        """``unchecked`` where nothing is known to be wrong because nothing could be read."""
        if self.findings:
            return "failed"
        return "ok" if self.checked else "unchecked"

    def to_json(self, advice: Advice | None = None) -> dict[str, object]:
        """Return it as the document of ``verify`` has it."""
        return {
            "image": self.image,
            "number": self.number,
            "digest": str(self.digest),
            "encrypted": self.encrypted,
            "verdict": self.verdict,
            "recipients": [recipient.to_json() for recipient in self.recipients],
            "checked": list(self.checked),
            "findings": [finding.to_json(advice) for finding in self.findings],
            "remarks": list(self.remarks),
        }


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """All verdicts on an image.

    Attributes:
        reference: The image's name.
        digest: Of its manifest or index.
        with_key: Whether there was anything to open packets with. Without, neither packets nor
            HMACs are checked.
        layers: A verdict on each layer of each image.
        findings: What is wrong with no single layer, as errors that were not raised.
    """

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
            (finding, f"layer {verdict.number} of {verdict.image}")
            for verdict in self.layers
            for finding in verdict.findings
        ]
        if not found:
            return None
        finding, where = max(found, key=lambda pair: pair[0].severity)
        return finding.within(where) if where else finding

    def to_json(self, advice: Advice | None = None) -> dict[str, object]:
        """Return the document that ``schemas/verify.schema.json`` describes.

        ``advice`` words the hints of findings, by default their own.
        """
        failure = self.failure
        return {
            "reference": self.reference,
            "digest": str(self.digest),
            "verified": failure is None,
            "error": None
            if failure is None
            else {"exit_code": failure.exit_code, **failure.to_json(advice)},
            "with_key": self.with_key,
            "findings": [finding.to_json(advice) for finding in self.findings],
            "layers": [layer.to_json(advice) for layer in self.layers],
        }
