"""A KEK, and packets that it opens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from coco_kp.crypto import Kek
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.packet import AnnotationPacket
from coco_kp.model.resource_uri import parse_key_id

KID: Final = "kbs:///default/key/key_id1"
PATH: Final = "default/key/key_id1"
SECRET: Final = b'{"symkey":"a layer\'s private options"}'


@dataclass(frozen=True)
class Wrapping:
    """A raw KEK, and what it wraps."""

    raw: bytes

    def packet(self, algorithm: Algorithm = Algorithm.A256GCM, kid: str = KID) -> AnnotationPacket:
        """Wrap `SECRET`."""
        iv, wrapped = Kek(self.raw).wrap(algorithm, SECRET)
        return AnnotationPacket(parse_key_id(kid), wrapped, iv, algorithm)
