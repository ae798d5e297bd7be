"""What a layer's descriptor alone tells: is it encrypted, for whom, and what is odd about it.

No I/O, and no key but the public one of trials. Nothing that somebody wrote into an image raises an
error here: it becomes a finding, an error that is not raised.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from coco_kp.crypto import SAMPLE_KEK, Kek
from coco_kp.errors import CocoKpError, InputError, RefusedError
from coco_kp.keys.wrapper import KekOpener, opens
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.image_config import ImageConfig
from coco_kp.model.layer_encryption import (
    PROVIDER_SCHEME,
    LayerPacket,
    first_provider_scheme,
    first_provider_value,
    has_cipher_options,
    parse_layer_encryption,
    parse_packets,
)
from coco_kp.model.layer_options import CIPHER
from coco_kp.model.manifest import Descriptor
from coco_kp.model.media_type import (
    DOCKER_LAYER,
    OCI_FOREIGN_LAYER,
    OCI_LAYER,
    encrypted_form,
    is_encrypted,
)
from coco_kp.model.packet import read_packet
from coco_kp.model.resource_uri import parse_resource_uri
from coco_kp.redact import shown
from coco_kp.values import dataclass

GUESTS_READ: Final = tuple(
    encrypted_form(f"{kind}{compression}")
    for kind in (OCI_LAYER, OCI_FOREIGN_LAYER)
    for compression in ("", "+gzip")
)
"""The media types of encrypted layers that a guest knows (docs/protocols.md 1.1)."""

GUESTS_READ_PLAIN: Final = (
    *(
        f"{kind}{compression}"
        for kind in (OCI_LAYER, OCI_FOREIGN_LAYER)
        for compression in ("", "+gzip", "+zstd")
    ),
    f"{DOCKER_LAYER}.gzip",
)
"""Those of readable layers (tests/recordings/guest.json, "media type, readable")."""


@dataclass(frozen=True, slots=True)
class PacketFacts:
    """A packet's form, as everybody can read it. Of another tool's all but ``scheme`` is empty.

    Attributes:
        scheme: Who opens it: ``provider.<name>`` for a key provider, ``jwe``, ``pkcs7``, …
        version: ``v1`` or ``v2``, upstream's two forms.
        kid: The key ID; of AWS's KMS the key.
        provider: ``kbs``, or the name of a cloud's key management service.
        wrap_type: ``A256GCM`` or ``A256CTR``.
        sample: Whether the key of trials opens it, which everybody knows.
        region: AWS's.
    """

    scheme: str
    version: str = ""
    kid: str = ""
    provider: str = ""
    wrap_type: str = ""
    sample: bool = False
    region: str = ""

    @property
    def name(self) -> str:
        """What a user knows the recipient by: its key ID, or else the scheme."""
        return self.kid or self.scheme

    def to_json(self) -> dict[str, object]:
        """Return it as the document of ``inspect`` has it."""
        return {
            "scheme": self.scheme,
            "packet_version": self.version or None,
            "kid": self.kid or None,
            "provider": self.provider or None,
            "region": self.region or None,
            "wrap_type": self.wrap_type or None,
        }


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """A layer as its descriptor shows it; ``cipher`` is empty where none is known."""

    number: int
    layer: Descriptor
    encrypted: bool
    cipher: str
    packets: tuple[PacketFacts, ...]
    findings: tuple[CocoKpError, ...]


def layer_facts(number: int, layer: Descriptor) -> LayerFacts:
    """Examine a descriptor. Never raises."""
    findings: list[CocoKpError] = []
    encrypted, cipher = is_encrypted(layer.media_type), ""
    packets: tuple[LayerPacket, ...] = ()
    try:
        packets = parse_packets(layer.annotations)
        if encrypted:
            parse_layer_encryption(layer.annotations)
            cipher = CIPHER
        elif packets:
            raise InputError(
                "the layer has wrapped keys, but its media type says that it is not encrypted",
                "the image was damaged when it was copied",
            )
    except CocoKpError as finding:
        findings.append(finding)
    facts = []
    for packet in packets:
        found, problem = _packet_facts(packet)
        facts.append(found)
        findings += [problem] if problem else []
    return LayerFacts(number, layer, encrypted, cipher, tuple(facts), tuple(findings))


def sample_findings(facts: LayerFacts) -> list[CocoKpError]:
    """Say that everybody can open the layer, if so."""
    if not any(packet.sample for packet in facts.packets):
        return []
    return [
        RefusedError(
            "everybody can open the layer: a packet is wrapped with the public sample key",
            "encrypt the original for a key of your own",
        )
    ]


def ctr_findings(facts: LayerFacts) -> list[CocoKpError]:
    """Say that a packet can be altered unnoticed, if so."""
    if not any(packet.wrap_type == Algorithm.A256CTR for packet in facts.packets):
        return []
    return [
        RefusedError(
            "a packet is wrapped with A256CTR, which does not detect tampering",
            "rewrapping wraps the layer's key with A256GCM",
            code="packet-malleable",
        )
    ]


def guest_findings(facts: LayerFacts) -> list[CocoKpError]:
    """Say why a Confidential Containers guest would refuse the layer, beside its other findings."""
    findings: list[CocoKpError] = []
    media_type = shown(facts.layer.media_type)
    if facts.encrypted and facts.layer.media_type not in GUESTS_READ:
        findings.append(
            InputError(
                f"guests cannot read encrypted layers of type {media_type}",
                "encrypt the original with coco-kp, which writes what guests read",
            )
        )
    if not facts.encrypted and facts.layer.media_type not in GUESTS_READ_PLAIN:
        findings.append(InputError(f"guests cannot read layers of type {media_type}"))
    if facts.encrypted and not any(packet.provider for packet in facts.packets):
        findings.append(InputError("the layer has no packet that a guest can read"))
    if facts.encrypted:
        findings += _annotation_findings(facts.layer.annotations)
        findings += _provider_findings(facts)
    if facts.layer.elsewhere:
        findings.append(InputError("guests do not fetch foreign layers"))
    return findings


def _annotation_findings(annotations: Mapping[str, str]) -> list[CocoKpError]:
    """Say what a guest misses in a layer's annotations, whose readers others are lenient for."""
    findings: list[CocoKpError] = []
    first = first_provider_value(annotations)
    if first == "":
        findings.append(
            InputError("guests take the first provider's packets by name, and it has none")
        )
    if not has_cipher_options(annotations):
        findings.append(
            InputError("guests want 'cipheroptions' in the layer's public options, even if empty")
        )
    return findings


def _provider_findings(facts: LayerFacts) -> list[CocoKpError]:
    """Say which guests open the layer, where those of the default build do not."""
    pairs = zip(facts.packets, seen_by_guests(facts), strict=True)
    seen = {packet.provider for packet, sees in pairs if sees and packet.provider}
    if not seen or "kbs" in seen:
        return []
    return [
        InputError(
            "only guests whose Confidential Data Hub was built with the provider "
            f"{' or '.join(map(shown, sorted(seen)))} open the layer",
            "for AWS KMS that is 0.21 or newer with KMS_PROVIDER=aws, which no default build is",
            code="guest-lacks-provider",
        )
    ]


def seen_by_guests(facts: LayerFacts) -> list[bool]:
    """Return of each packet whether guests look at it: they do at the first provider's alone."""
    first = first_provider_scheme(facts.layer.annotations)
    return [packet.scheme == first for packet in facts.packets]


def guest_packet_findings(facts: LayerFacts, opened: Sequence[bool]) -> list[CocoKpError]:
    """Say why a guest that has the key finds another packet than those that it ``opened``."""
    seen = [
        (packet, ours)
        for packet, sees, ours in zip(facts.packets, seen_by_guests(facts), opened, strict=True)
        if sees
    ]
    kids = {packet.kid for packet, ours in seen if ours}
    if not kids:
        return [
            InputError(
                "guests look at the first provider's packets by name alone, and the key opens none",
                code="guest-reads-other-provider",
            )
        ]
    for packet, ours in seen:
        if ours:
            break
        if packet.kid in kids and packet.wrap_type == Algorithm.A256CTR:
            # It has no tag: a guest takes what it decrypts to for the layer's options.
            return [
                InputError(
                    "guests take an A256CTR packet for theirs that has their key ID, but another "
                    "key",
                    "encrypt the original again, or rewrap it to another key ID",
                    code="guest-takes-other-packet",
                )
            ]
    return []


def nitro_findings(facts: LayerFacts) -> list[CocoKpError]:
    """Say why an AWS Nitro sandbox would refuse an encrypted layer, as far as that is public.

    It wants the packet of a key provider; what is in one is not public.
    """
    if any(packet.scheme.startswith(PROVIDER_SCHEME) for packet in facts.packets):
        return []
    return [InputError("the layer has no packet of a key provider")]


def guest_config_findings(config: ImageConfig | None, layers: int) -> list[CocoKpError]:
    """Say why a guest would refuse the config of an image with so many layers."""
    if config is None:
        return []
    fault = config.guest_fault
    if not fault and len(config.diff_ids) < layers:
        fault = "has no diff_id for each layer"
    return [InputError(f"guests refuse the image's config: it {fault}")] if fault else []


def _packet_facts(packet: LayerPacket) -> tuple[PacketFacts, CocoKpError | None]:
    if not packet.scheme.startswith(PROVIDER_SCHEME):
        return PacketFacts(packet.scheme), None
    try:
        read = read_packet(packet.data)
    except CocoKpError as problem:
        return PacketFacts(packet.scheme), problem
    wrap_type = str(read.wrapped_key.wrap_type) if read.wrapped_key else ""
    facts = PacketFacts(
        packet.scheme,
        read.version,
        read.kid,
        read.provider,
        wrap_type,
        is_sample(packet),
        read.kms.region if read.kms else "",
    )
    return facts, _kid_problem(facts, packet.data)


def is_sample(packet: LayerPacket) -> bool:
    """Return whether the sample key, which everybody knows, opens the packet."""
    return opens(KekOpener(Kek(SAMPLE_KEK)), packet)


def _kid_problem(facts: PacketFacts, data: bytes) -> CocoKpError | None:
    if facts.provider != "kbs":
        return None
    try:
        parse_resource_uri(facts.kid)
    except InputError:
        return InputError(
            f"not every guest finds a key by the key ID {shown(facts.kid)}",
            "rewrapping mends it",
            code="key-id-not-canonical",
        )
    plain = re.search(rb'"kid"\s*:\s*"' + re.escape(facts.kid.encode()) + b'"', data)
    if facts.version == "v1" and not plain:
        # Older readers borrow the text from the JSON, where an escape is not part of it (3.1).
        return InputError("older guests cannot read the packet: its key ID has an escape sequence")
    return None
