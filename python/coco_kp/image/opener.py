"""Who opens the packets of encrypted layers: a KEK, a KBC, or another key provider."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from coco_kp.crypto import Kek
from coco_kp.errors import CocoKpError, InputError, KekError, shown
from coco_kp.kbc import KbcSettings, open_kbc
from coco_kp.model.kbc_spec import KbcSpec
from coco_kp.model.layer_encryption import PROVIDER_SCHEME, LayerPacket
from coco_kp.model.layer_options import PrivateOptions
from coco_kp.model.packet import parse_packet, read_packet
from coco_kp.provider import check_opened


class Opener(Protocol):
    """Gets layers' keys out of packets."""

    def open(self, packet: LayerPacket) -> PrivateOptions:
        """Open a packet. Raises ``CocoKpError`` if it cannot."""


@dataclass(frozen=True, slots=True)
class KekOpener:
    """A KEK at hand: it opens its packets whatever their kid says, even one no guest can read."""

    kek: Kek
    name: str = "the key"

    def open(self, packet: LayerPacket) -> PrivateOptions:
        """Open a packet with the KEK. Raises ``KekError`` or ``InputError``."""
        _check_scheme(packet)
        key = read_packet(packet.data).wrapped_key
        if key is None:
            parse_packet(packet.data)  # says that no KBS holds the key
            raise KekError("the packet holds no wrapped key")
        try:
            opened = self.kek.unwrap(key.wrap_type, key.iv, key.wrapped_data)
        except KekError as error:
            raise KekError(f"{self.name} does not open the packet", error.hint) from None
        return check_opened(opened, self.name, key.wrap_type)


@dataclass(frozen=True, slots=True)
class KbcOpener:
    """A KBC, which finds the KEK by the packet's kid."""

    spec: KbcSpec
    settings: KbcSettings

    def open(self, packet: LayerPacket) -> PrivateOptions:
        """Open a packet as a guest does. Raises ``CocoKpError``."""
        _check_scheme(packet)
        parsed = parse_packet(packet.data)
        opened = open_kbc(self.spec, self.settings).unwrap(parsed)
        return check_opened(opened, str(parsed.kid), parsed.wrap_type)


class Opened(NamedTuple):
    """A layer's key, and the packet that held it."""

    options: PrivateOptions
    packet: LayerPacket


def open_one(packets: Sequence[LayerPacket], openers: Sequence[Opener]) -> Opened:
    """Open the first packet that opens. Raises the error that there was, or lists them all."""
    failures: list[CocoKpError] = []
    for packet in packets:
        for opener in openers:
            try:
                return Opened(opener.open(packet), packet)
            except CocoKpError as failure:
                failures.append(failure)
    if len(failures) == 1:
        raise failures[0]
    if not failures:
        raise KekError("there is no key to open the layer with")
    reasons = "; ".join(dict.fromkeys(failure.message for failure in failures))
    raise KekError(f"no packet of the layer opens: {reasons}", failures[0].hint)


def _check_scheme(packet: LayerPacket) -> None:
    if not packet.scheme.startswith(PROVIDER_SCHEME):
        raise InputError(f"a packet of scheme {shown(packet.scheme)} is for another tool")
