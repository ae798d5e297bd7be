"""Layers of an earlier encrypted image, taken over where they are still the same.

Nothing is believed: what a layer holds is what its packet records, and the packet must open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coco_kp.errors import CocoKpError, InputError
from coco_kp.image.opener import Opener, open_one
from coco_kp.image.recipient import Recipient
from coco_kp.image.tree import images, read_tree
from coco_kp.model.digest import Digest, parse_digest
from coco_kp.model.layer_encryption import LayerEncryption, LayerPacket, parse_layer_encryption
from coco_kp.model.layer_options import PrivateOptions
from coco_kp.model.manifest import Descriptor
from coco_kp.model.media_type import is_encrypted
from coco_kp.transport import Source


@dataclass(frozen=True, slots=True)
class EarlierLayer:
    """An encrypted layer that lies in ``source``, and what its packet holds."""

    source: Source
    layer: Descriptor
    encryption: LayerEncryption
    options: PrivateOptions

    def packets_for(self, recipients: Sequence[Recipient]) -> list[LayerPacket]:
        """Give a packet for each recipient: one that the layer has, or else a new one."""
        return [self._packet_for(recipient) for recipient in recipients]

    def _packet_for(self, recipient: Recipient) -> LayerPacket:
        for packet in self.encryption.packets:
            if recipient.wrote(packet):
                return packet
        return recipient.wrap(self.options)


def read_earlier(source: Source, openers: Sequence[Opener]) -> dict[Digest, EarlierLayer]:
    """Open all layers of an earlier image that can be opened; give them by their plain digests.

    Raises the first failure where none opens, ``InputError`` where none is encrypted.
    """
    found: dict[Digest, EarlierLayer] = {}
    failures: list[CocoKpError] = []
    for image in images(read_tree(source, configs=False)):
        for layer in image.manifest.layers:
            if not is_encrypted(layer.media_type):
                continue
            try:
                encryption = parse_layer_encryption(layer.annotations)
                options = open_one(encryption.packets, openers).options
                digest = parse_digest(options.digest)
            except CocoKpError as failure:
                failures.append(failure)
            else:
                found[digest] = EarlierLayer(source, layer, encryption, options)
    if not found:
        raise failures[0] if failures else InputError(f"{source.reference} has no encrypted layer")
    return found
