"""Recipients that misbehave."""

from __future__ import annotations

from dataclasses import dataclass, replace

from coco_kp.image.recipient import KekRecipient
from coco_kp.model.layer_encryption import LayerPacket
from coco_kp.model.layer_options import PrivateOptions


@dataclass(frozen=True)
class Careless:
    """A recipient that wraps something else than it was given, as broken hardware may."""

    recipient: KekRecipient
    name: str = "careless"

    def wrap(self, options: PrivateOptions) -> LayerPacket:
        return self.recipient.wrap(replace(options, symkey=bytes(32)))

    def open(self, packet: LayerPacket) -> PrivateOptions:
        return self.recipient.open(packet)

    def confirms(self, packet: LayerPacket, options: PrivateOptions) -> bool:
        return self.recipient.confirms(packet, options)

    def wrote(self, packet: LayerPacket) -> bool:
        return self.recipient.wrote(packet)
