"""Layers of an earlier encrypted image, taken over where they are still the same.

Nothing is believed: what a layer holds is what it decrypts to, and its packets must open to one
key. How it is compressed its plaintext tells, not its label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from coco_kp.errors import CocoKpError, InputError, RefusedError
from coco_kp.image.compression import is_compressed
from coco_kp.image.facts import is_sample
from coco_kp.image.layer import Head, open_layer
from coco_kp.image.opener import open_each
from coco_kp.image.tree import images, read_tree
from coco_kp.image.work import Work
from coco_kp.keys.wrapper import KeyWrapper, Opener, opens
from coco_kp.model.digest import Digest, parse_digest
from coco_kp.model.layer_encryption import LayerEncryption, LayerPacket, parse_layer_encryption
from coco_kp.model.layer_options import PrivateOptions
from coco_kp.model.manifest import Descriptor
from coco_kp.model.media_type import is_encrypted
from coco_kp.transport import Source
from coco_kp.values import dataclass

if TYPE_CHECKING:
    from coco_kp.image.plan import LayerPlan


@dataclass(frozen=True, slots=True)
class EarlierLayer:
    """An encrypted layer that lies in ``source``, and what its packet holds."""

    source: Source
    layer: Descriptor
    encryption: LayerEncryption
    options: PrivateOptions

    def check(self, plan: LayerPlan, work: Work) -> bytes:
        """Decrypt it, only to see whether it yields the planned layer; return its first bytes.

        Raises ``IntegrityError`` unless its digest, its HMAC and the digest that its packet records
        agree: whoever writes the earlier image can put any blob beside a packet that opens.
        """
        # A tool that compresses while it encrypts records the digest from before.
        content = None if is_compressed(plan.layer.media_type) else plan.layer.digest
        head = Head()
        public = self.encryption.public_options
        try:
            open_layer(
                *(self.source, self.layer, self.options, public, content, None, work),
                carry=True,
                head=head,
            )
        except CocoKpError as error:
            if not work.is_fault(error):
                raise
            unusable = f"{self.source.reference} cannot be reused"
            raise error.within(unusable, "encrypt without reusing layers") from None
        return head.data

    def packets_for(self, recipients: Sequence[KeyWrapper]) -> list[LayerPacket]:
        """Return a packet for each recipient: one that the layer has, or else a new one."""
        return [self._packet_for(recipient) for recipient in recipients]

    def _packet_for(self, recipient: KeyWrapper) -> LayerPacket:
        for packet in self.encryption.packets:
            if recipient.wrote(packet) and recipient.confirms(packet, self.options):
                return packet
        return recipient.wrap(self.options.to_json())


def read_earlier(
    source: Source, openers: Sequence[Opener], recipients: Sequence[KeyWrapper]
) -> dict[Digest, EarlierLayer]:
    """Open all layers of an earlier image that can be opened; return them by their plain digests.

    Left out are layers that everybody can open, unless that holds for one of ``recipients``, too.
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
                options, _ = open_each(encryption.packets, openers)
                _check_secret(encryption.packets, recipients)
                digest = parse_digest(options.digest)
            except CocoKpError as failure:
                failures.append(failure)
            else:
                found[digest] = EarlierLayer(source, layer, encryption, options)
    if not found:
        raise failures[0] if failures else InputError(f"{source.reference} has no encrypted layer")
    return found


def _check_secret(packets: Sequence[LayerPacket], recipients: Sequence[KeyWrapper]) -> None:
    """Raise ``RefusedError`` where everybody knows the layer's key already."""
    sample = [packet for packet in packets if is_sample(packet)]
    if sample and not any(opens(recipient, sample[0]) for recipient in recipients):
        raise RefusedError(
            "the layers of the earlier image are open to everybody: they have packets of the "
            "public sample key",
            "encrypt without reusing layers",
            code="reused-image-open",
        )
