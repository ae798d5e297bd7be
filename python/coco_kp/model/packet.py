"""CoCo annotation packets: a layer's wrapped key and where its KEK is (docs/protocols.md 3).

Version 1 is what every upstream provider wrote and every guest reads; version 2 is what the
Confidential Data Hub reads besides. Both are read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from coco_kp.errors import InputError, KekError
from coco_kp.model.algorithm import Algorithm, parse_algorithm
from coco_kp.model.encoding import (
    check_one_reading,
    decode_base64,
    encode_base64,
    member,
    parse_json_object,
    write_json,
)
from coco_kp.model.resource_uri import ResourceUri, parse_resource_uri
from coco_kp.redact import shown

PacketVersion = Literal["v1", "v2"]

MAX_PACKET: Final = 256 * 1024
"""Bytes of a packet at the most; real ones have 400."""

_MEMBERS: Final = (
    *("kid", "wrapped_data", "iv", "wrap_type"),
    *("version", "provider", "provider_settings", "annotations"),
)
_GCM_COUNTERS: Final = 1024
"""GCM is counter mode from ``IV || 2`` on: cut its tag off, and A256CTR opens it with that IV.

Whoever knows the plaintext has the keystream from any of its blocks on. An honest IV, drawn at
random, ends in so small a number once in four million times, and is then drawn again.
"""

AWS: Final = "aws"
"""``provider`` of packets that AWS KMS decrypts."""

_V2: Final = "0.1.0"  # the only value of 'version' that guests accept for provider kbs


class AnnotationPacket(NamedTuple):
    """A wrapped private-options document (docs/protocols.md 3.1).

    Attributes:
        kid: By which guests find the KEK.
        wrapped_data: Raw bytes; with ``A256GCM`` the 16-byte tag ends them, with ``A256CTR`` there
            is none.
        iv: Raw bytes, 12 for ``A256GCM`` and 16 for ``A256CTR``.
        wrap_type: What wrapped it.
    """

    kid: ResourceUri
    wrapped_data: bytes
    iv: bytes
    wrap_type: Algorithm

    def to_json(self, version: PacketVersion = "v1") -> bytes:
        """Write the packet with upstream's members in upstream's order."""
        kid, wrapped = str(self.kid), encode_base64(self.wrapped_data)
        iv, wrap_type = encode_base64(self.iv), self.wrap_type.value
        if version == "v1":
            return write_json(
                {"kid": kid, "wrapped_data": wrapped, "iv": iv, "wrap_type": wrap_type}
            )
        return write_json(
            {
                "version": _V2,
                "kid": kid,
                "wrapped_data": wrapped,
                "provider": "kbs",
                "iv": iv,
                "wrap_type": wrap_type,
                "provider_settings": {},
                "annotations": {},
            }
        )


class WrappedKey(NamedTuple):
    """What a KEK opens: the wrapped data, its IV, and how it was wrapped."""

    wrapped_data: bytes
    iv: bytes
    wrap_type: Algorithm


class KmsPacket(NamedTuple):
    """Private options that AWS KMS encrypted; a guest's CDH built with ``aws`` has it decrypt them.

    ``key`` is a key ID, an alias or an ARN; ``context`` the encryption context, which KMS demands
    again. Its members are those of CDH's ``annotation_packet/v2.rs`` and ``kms/plugins/aws``.
    """

    key: str
    wrapped_data: bytes
    region: str
    context: Mapping[str, str]

    def to_json(self) -> bytes:
        """Write the packet as the Confidential Data Hub reads it."""
        return write_json(
            {
                "version": _V2,
                "kid": self.key,
                "wrapped_data": encode_base64(self.wrapped_data),
                "provider": AWS,
                "provider_settings": {"region": self.region},
                "annotations": {"encryption_context": dict(self.context)} if self.context else {},
            }
        )


class UncheckedPacket(NamedTuple):
    """A packet as it stands in an image, whoever wrote it: its kid may be one that no guest reads.

    ``wrapped_key`` is None where ``provider`` is not a KBS, but a cloud's key management service;
    ``kms`` is there for that of AWS.
    """

    version: PacketVersion
    kid: str
    provider: str
    wrapped_key: WrappedKey | None
    kms: KmsPacket | None = None


def parse_packet(data: bytes) -> AnnotationPacket:
    """Read a packet of either version; unknown members are ignored, as all readers do.

    Raises ``InputError`` for a malformed packet and ``KekError`` for one whose key a cloud's key
    management service holds, not a KBS.
    """
    packet = read_packet(data)
    key = packet.wrapped_key
    if key is None:
        raise KekError(
            f"the packet's key is held by {shown(packet.provider)}, which is not a KBS",
            "name the key that does: awskms:///KEY",
            code="key-held-by-kms",
        )
    kid = parse_resource_uri(packet.kid)
    return AnnotationPacket(kid, key.wrapped_data, key.iv, key.wrap_type)


def read_packet(data: bytes) -> UncheckedPacket:
    """Read a packet without judging its kid and provider, to show it or to mend it.

    Raises ``InputError`` for a malformed one.
    """
    what = "the annotation packet"
    document = parse_json_object(data, what, MAX_PACKET)
    check_one_reading(document, _MEMBERS, what)
    provider = member(document, "provider", str, what) if "provider" in document else "kbs"
    version: PacketVersion = "v2" if {"version", "provider"} & document.keys() else "v1"
    key = None
    if provider == "kbs":
        _check_v2_members(document, what)
        key = _wrapped_key(document, what)
    kid = member(document, "kid", str, what)
    kms = _kms_packet(document, kid, what) if provider == AWS else None
    return UncheckedPacket(version, kid, provider, key, kms)


def wrap_type_of(data: bytes) -> Algorithm | None:
    """Return how a packet was wrapped that another provider opens; None if it is of another form.

    Raises ``InputError`` for a packet of this form that is malformed or was rewritten.
    """
    try:
        document = parse_json_object(data, "the packet", MAX_PACKET)
    except InputError:
        return None
    key = read_packet(data).wrapped_key if "wrap_type" in document else None
    return key.wrap_type if key else None


def _wrapped_key(document: dict[str, object], what: str) -> WrappedKey:
    wrap_type = parse_algorithm(member(document, "wrap_type", str, what), "wrap_type")
    iv = decode_base64(member(document, "iv", str, what), f"'iv' of {what}")
    wrapped = decode_base64(
        member(document, "wrapped_data", str, what), f"'wrapped_data' of {what}"
    )
    if len(iv) != wrap_type.iv_size:
        raise InputError(
            f"'iv' of {what} has {len(iv)} bytes; {wrap_type} needs {wrap_type.iv_size}"
        )
    if wrap_type is Algorithm.A256CTR and int.from_bytes(iv[-4:]) < _GCM_COUNTERS:
        raise InputError(
            "the packet was made with A256GCM and rewritten as A256CTR, which cannot show changes",
            "the image was altered: do not use it",
        )
    if len(wrapped) < wrap_type.tag_size:
        raise InputError(f"'wrapped_data' of {what} has {len(wrapped)} bytes, less than a tag")
    return WrappedKey(wrapped, iv, wrap_type)


def _kms_packet(document: dict[str, object], kid: str, what: str) -> KmsPacket | None:
    """Return what KMS decrypts; None where a guest would not find what it needs."""
    try:
        wrapped = decode_base64(member(document, "wrapped_data", str, what), what)
        settings = member(document, "provider_settings", dict, what)
        region = member(settings, "region", str, what)
        annotations = document.get("annotations", {})
        context = annotations.get("encryption_context", {}) if isinstance(annotations, dict) else 0
    except InputError:
        return None
    if not isinstance(context, dict) or not all(isinstance(v, str) for v in context.values()):
        return None
    return KmsPacket(kid, wrapped, region, context)


def _check_v2_members(document: dict[str, object], what: str) -> None:
    version = member(document, "version", str, what) if "version" in document else _V2
    if version != _V2:
        raise InputError(f"'version' of {what} is {shown(version)}", f"guests read only {_V2}")
    for name in ("provider_settings", "annotations"):
        if name in document:
            member(document, name, dict, what)
