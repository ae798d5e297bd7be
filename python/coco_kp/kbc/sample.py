"""``sample``: opens packets with the KEK that everybody knows, whatever their kid says.

Guests' sample KBC takes every packet for A256GCM; here one of A256CTR opens too.
"""

from __future__ import annotations

from coco_kp.crypto import SAMPLE_KEK, Kek
from coco_kp.kbc.kbcs import Kbc
from coco_kp.keys.wrapper import open_packet
from coco_kp.model.packet import AnnotationPacket


class SampleKbc:
    """The KBC of trials."""

    def unwrap(self, packet: AnnotationPacket) -> bytes:
        """Open the packet with the sample KEK. Raises ``KekError``."""
        return open_packet(Kek(SAMPLE_KEK), packet)

    def close(self) -> None:
        """No-op: it has no connections."""


def sample_kbc(_address: str = "") -> Kbc:
    """Return it; it has no address and no settings."""
    return SampleKbc()
