"""What an encrypted layer's descriptor says: packets by scheme, and public options.

They stand in the annotations ``org.opencontainers.image.enc.*`` of the layer's descriptor and
nowhere else (docs/protocols.md 1.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from coco_kp.errors import InputError
from coco_kp.model.encoding import decode_base64, encode_base64, parse_json_object
from coco_kp.model.layer_options import PublicOptions, parse_public_options
from coco_kp.model.packet import MAX_PACKET
from coco_kp.redact import shown

MAX_PACKETS: Final = 64
"""Packets of a layer at the most: each recipient has one."""

PROVIDER_SCHEME: Final = "provider."
"""Key providers' packets have the scheme ``provider.<name>``; ocicrypt's own are jwe, pgp, …"""

DEFAULT_PROVIDER_NAME: Final = "attestation-agent"
"""The name that the CoCo guide gives the provider in ocicrypt's configuration."""

DEFAULT_SCHEME: Final = f"{PROVIDER_SCHEME}{DEFAULT_PROVIDER_NAME}"

_PREFIX: Final = "org.opencontainers.image.enc."
_KEYS: Final = f"{_PREFIX}keys."
_PUBLIC_OPTIONS: Final = f"{_PREFIX}pubopts"


_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


def provider_scheme(name: str) -> str:
    """Return the scheme of the key provider ``name``. Raises ``InputError``."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"the provider's name {shown(name)} cannot be used",
            "write letters, digits, '.', '_' and '-': it becomes a part of an annotation's key",
        )
    return f"{PROVIDER_SCHEME}{name}"


class LayerPacket(NamedTuple):
    """A layer's wrapped key, as it stands in an annotation.

    Attributes:
        scheme: The key wrapper's: ``provider.<name>`` of a key provider, ``jwe``, ``pkcs7``, …
        data: What it wrote, decoded; a CoCo key provider writes an annotation packet, JSON.
    """

    scheme: str
    data: bytes


class LayerEncryption(NamedTuple):
    """All that a descriptor says of its layer's encryption: at least one packet, and the HMAC."""

    packets: tuple[LayerPacket, ...]
    public_options: PublicOptions


def parse_layer_encryption(annotations: Mapping[str, str]) -> LayerEncryption:
    """Read the annotations of an encrypted layer. Raises ``InputError``."""
    packets = parse_packets(annotations)
    if not packets:
        raise InputError(
            "the layer is encrypted, but holds nobody's key",
            "whoever wrote the image dropped its annotations: encrypt the original again",
        )
    public = annotations.get(_PUBLIC_OPTIONS)
    if not public:
        raise InputError("the layer's public options are missing")
    return LayerEncryption(
        packets, parse_public_options(decode_base64(public, "the layer's public options"))
    )


def parse_packets(annotations: Mapping[str, str]) -> tuple[LayerPacket, ...]:
    """Read the packets alone; none where the layer is not encrypted. Raises ``InputError``."""
    packets: list[LayerPacket] = []
    for name, value in annotations.items():
        if name.startswith(_KEYS) and value:  # ocicrypt takes an empty value for none
            scheme = name.removeprefix(_KEYS)
            packets += (_packet(scheme, element) for element in value.split(","))
        if len(packets) > MAX_PACKETS:
            raise InputError(f"the layer has more than {MAX_PACKETS} packets")
    return tuple(packets)


def first_provider_value(annotations: Mapping[str, str]) -> str | None:
    """Return the packets that guests look at: of the first key provider by name, None without one.

    Guests ignore all other providers (tests/recordings/guest.json, "keys annotation").
    """
    scheme = first_provider_scheme(annotations)
    return None if scheme is None else annotations[f"{_KEYS}{scheme}"]


def first_provider_scheme(annotations: Mapping[str, str]) -> str | None:
    """Return the scheme of the packets that guests look at, None without a key provider's."""
    schemes = (name.removeprefix(_KEYS) for name in annotations if name.startswith(_KEYS))
    return min((each for each in schemes if each.startswith(PROVIDER_SCHEME)), default=None)


def has_cipher_options(annotations: Mapping[str, str]) -> bool:
    """Return whether the public options have an object ``cipheroptions``, as guests demand.

    Go's reader takes a missing one and null for empty. Raises nothing: malformed options are for
    `parse_layer_encryption` to find.
    """
    try:
        public = decode_base64(annotations.get(_PUBLIC_OPTIONS, ""), "the layer's public options")
        return isinstance(parse_json_object(public, "them").get("cipheroptions"), dict)
    except InputError:
        return True


def with_encryption(
    annotations: Mapping[str, str], packets: Iterable[LayerPacket], public_options: PublicOptions
) -> dict[str, str]:
    """Return a descriptor's annotations with these of encryption instead of any others."""
    public = encode_base64(public_options.to_json())
    return with_packets({**without_encryption(annotations), _PUBLIC_OPTIONS: public}, packets)


def with_packets(annotations: Mapping[str, str], packets: Iterable[LayerPacket]) -> dict[str, str]:
    """Return a descriptor's annotations with these packets instead of all others.

    Raises ``InputError`` for more than anybody reads.
    """
    kept = {name: value for name, value in annotations.items() if not name.startswith(_KEYS)}
    by_scheme: dict[str, list[str]] = {}
    for count, packet in enumerate(packets, 1):
        if count > MAX_PACKETS:
            raise InputError(
                f"the layer would have more than {MAX_PACKETS} packets", "name fewer recipients"
            )
        by_scheme.setdefault(packet.scheme, []).append(encode_base64(packet.data))
    return kept | {f"{_KEYS}{scheme}": ",".join(values) for scheme, values in by_scheme.items()}


def without_encryption(annotations: Mapping[str, str]) -> dict[str, str]:
    """Return a descriptor's annotations without those of encryption."""
    return {name: value for name, value in annotations.items() if not name.startswith(_PREFIX)}


def _packet(scheme: str, element: str) -> LayerPacket:
    if not element:
        raise InputError(f"a packet of scheme {shown(scheme)} is empty")
    if len(element) > 2 * MAX_PACKET:
        raise InputError(f"a packet of scheme {shown(scheme)} has {len(element)} characters")
    return LayerPacket(scheme, decode_base64(element, f"a packet of scheme {shown(scheme)}"))
