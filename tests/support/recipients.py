"""Recipients that misbehave."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from coco_kp.keys.wrapper import KekRecipient
from coco_kp.model.layer_encryption import LayerPacket
from coco_kp.model.layer_options import PrivateOptions, parse_private_options


@dataclass(frozen=True)
class Careless:
    """A recipient that wraps something else than it was given, as broken hardware may."""

    recipient: KekRecipient
    name: str = "careless"

    kept: tuple[str, ...] = ()

    def prepare(self) -> Careless:
        return self

    def publish(self) -> None:
        pass

    def beside(self, packets: Iterable[LayerPacket]) -> Careless:  # noqa: ARG002
        return self

    def wrap(self, private_options: bytes) -> LayerPacket:
        options = parse_private_options(private_options)
        return self.recipient.wrap(replace(options, symkey=bytes(32)).to_json())

    def open(self, packet: LayerPacket) -> PrivateOptions:
        return self.recipient.open(packet)

    def confirms(self, packet: LayerPacket, options: PrivateOptions) -> bool:
        return self.recipient.confirms(packet, options)

    def wrote(self, packet: LayerPacket) -> bool:
        return self.recipient.wrote(packet)
