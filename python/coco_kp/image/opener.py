"""Who opens the packets of encrypted layers, beside keys: a KBC; and which packet opens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from coco_kp.errors import CocoKpError, IntegrityError, KekError
from coco_kp.keys.wrapper import Opener, check_opened, check_scheme
from coco_kp.model.layer_encryption import LayerPacket
from coco_kp.model.layer_options import PrivateOptions
from coco_kp.model.packet import parse_packet
from coco_kp.values import dataclass

if TYPE_CHECKING:
    from coco_kp.kbc.kbcs import Kbcs
    from coco_kp.model.kbc_spec import KbcSpec


@dataclass(frozen=True, slots=True)
class KbcOpener:
    """A KBC, which finds the KEK by the packet's key ID, as in a guest.

    Attributes:
        spec: Which KBC, and where.
        kbcs: What keeps it open, as the owner of this machine set it. Close it afterwards.
    """

    spec: KbcSpec
    kbcs: Kbcs

    def open(self, packet: LayerPacket) -> PrivateOptions:
        """Open a packet as a guest does. Raises ``CocoKpError``."""
        check_scheme(packet)
        parsed = parse_packet(packet.data)
        opened = self.kbcs.unwrap(self.spec, parsed)
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
    return failures[0].blaming(KekError, f"no packet of the layer opens: {reasons}")
