"""``sample``: opens packets with the KEK that everybody knows, whatever their kid says.

Guests' sample KBC takes every packet for A256GCM; here one of A256CTR opens too.
"""

from __future__ import annotations

from coco_kp.crypto import SAMPLE_KEK, Kek
from coco_kp.kbc import KbcSettings, open_packet
from coco_kp.model.kbc_spec import KbcSpec
from coco_kp.model.packet import AnnotationPacket


class SampleKbc:
    """The KBC of trials."""

    def unwrap(self, packet: AnnotationPacket) -> bytes:
        """Open the packet with the sample KEK. Raises ``KekError``."""
        return open_packet(Kek(SAMPLE_KEK), packet)


def open_kbc(_spec: KbcSpec, _settings: KbcSettings) -> SampleKbc:
    """Make it; it has no address and no settings."""
    return SampleKbc()
