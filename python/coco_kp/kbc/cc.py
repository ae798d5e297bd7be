"""``cc``: fetches the KEK from a Trustee KBS, as the guests of today do.

Sessions are kept: an image's layers, and the next image, need no new handshake while the KBS knows
the old one. Source: docs/protocols.md 3.3 and 5.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from coco_kp.crypto import Kek
from coco_kp.errors import InputError, KekError
from coco_kp.kbc import open_packet
from coco_kp.kbs.attester import Agent, load
from coco_kp.kbs.client import Kbs
from coco_kp.kbs.rcar import Handshake
from coco_kp.kbs.session import Reader
from coco_kp.model.kbs_url import KbsUrl

if TYPE_CHECKING:
    from coco_kp.kbc import KbcSettings
    from coco_kp.model.kbc_spec import KbcSpec
    from coco_kp.model.packet import AnnotationPacket


class CcKbc:
    """The KBC of guests whose KBS hands the KEK to whom it has attested."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def unwrap(self, packet: AnnotationPacket) -> bytes:
        """Open the packet with the key that the KBS has under its kid.

        Raises ``KekError``, ``RemoteError``, ``IntegrityError``, and ``InputError`` for a kid
        that names another KBS.
        """
        url = self._reader.kbs.url
        if not url.names(packet.kid.address):
            raise InputError(
                f"the packet's key '{packet.kid}' is kept by another KBS than {url}",
                f"name that one: cc_kbc::https://{packet.kid.address}",
            )
        raw = self._reader.fetch(packet.kid)
        try:
            kek = Kek(raw)
        except KekError as error:
            raise KekError(
                f"what the KBS {url} keeps as '{packet.kid}' is not a key: {error.message}",
                "register the raw 32 bytes",
                code="kbs-resource-no-key",
            ) from None
        return open_packet(kek, packet)


@lru_cache(maxsize=16)
def open_kbc(spec: KbcSpec, settings: KbcSettings) -> CcKbc:
    """Make it, once for each address and settings. Raises ``InputError``."""
    if not spec.uri:
        raise InputError("KBC 'cc' needs the address of the KBS", "write cc_kbc::https://host:port")
    kbs = Kbs(
        KbsUrl.parse(spec.uri),
        ca_file=Path(settings.kbs_ca) if settings.kbs_ca else None,
        insecure_http=settings.kbs_insecure_http,
    )
    if settings.attester == "aa-token":
        return CcKbc(Reader(kbs, Agent(settings.agent).session))
    return CcKbc(Reader(kbs, Handshake(kbs, load(settings.attester, settings.agent))))
