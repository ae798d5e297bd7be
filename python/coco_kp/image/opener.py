"""Who opens the packets of encrypted layers: a KEK, a KBC, or another key provider."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from coco_kp.crypto import Kek
from coco_kp.errors import CocoKpError, InputError, IntegrityError, KekError, shown
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
        options = _open(packet, openers, failures)
        if options:
            return Opened(options, packet)
    raise _none_opens(failures)


def open_each(
    packets: Sequence[LayerPacket], openers: Sequence[Opener]
) -> tuple[PrivateOptions, list[bool]]:
    """Return the layer's key, and for each packet whether it opens.

    Raises as ``open_one`` does, and ``IntegrityError`` where packets hold different keys: each
    reader may take another one of them.
    """
    failures: list[CocoKpError] = []
    opened = [_open(packet, openers, failures) for packet in packets]
    found = [options for options in opened if options]
    if not found:
        raise _none_opens(failures)
    if any(options != found[0] for options in found):
        raise IntegrityError("the layer's packets hold different keys", "the image was altered")
    return found[0], [options is not None for options in opened]


def _open(
    packet: LayerPacket, openers: Sequence[Opener], failures: list[CocoKpError]
) -> PrivateOptions | None:
    """Open a packet with the first that can, and note why the others cannot."""
    for opener in openers:
        try:
            return opener.open(packet)
        except CocoKpError as failure:
            failures.append(failure)
    return None


def _none_opens(failures: Sequence[CocoKpError]) -> CocoKpError:
    if len(failures) == 1:
        return failures[0]
    if not failures:
        return KekError("there is no key to open the layer with")
    reasons = "; ".join(dict.fromkeys(failure.message for failure in failures))
    return KekError(f"no packet of the layer opens: {reasons}", failures[0].hint)


def _check_scheme(packet: LayerPacket) -> None:
    if not packet.scheme.startswith(PROVIDER_SCHEME):
        raise InputError(f"a packet of scheme {shown(packet.scheme)} is for another tool")
