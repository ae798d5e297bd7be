"""``cc``: fetches the KEK from a Trustee KBS, as the guests of today do.

Sessions are kept: an image's layers, and the next image, need no new handshake while the KBS knows
the old one. Source: docs/protocols.md 3.3 and 5.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from coco_kp.crypto import Kek
from coco_kp.errors import InputError, KekError
from coco_kp.kbs.attester import AGENT_URL, Agent, load
from coco_kp.kbs.client import Kbs
from coco_kp.kbs.rcar import Handshake
from coco_kp.kbs.session import Reader
from coco_kp.keys.wrapper import open_packet
from coco_kp.model.kbs_url import KbsUrl

if TYPE_CHECKING:
    from coco_kp.files import StrPath
    from coco_kp.kbc.kbcs import Kbc
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

    def close(self) -> None:
        """Close the connections to the KBS."""
        self._reader.kbs.close()


def cc_kbc(
    address: str,
    *,
    ca_file: StrPath | None = None,
    insecure_http: bool = False,
    attester: str = "sample",
    agent: str = "",
) -> Kbc:
    """Make the KBC of guests whose KBS hands the KEK to whom it has attested.

    Args:
        address: The URL of a Trustee KBS, ``https://host[:port]``.
        ca_file: Certificates (PEM) that are trusted beside the system's roots.
        insecure_http: Allow plain http beyond loopback.
        attester: How it proves what this machine is: ``sample``, ``aa`` (by the guest's
            Attestation Agent), ``aa-token`` (a token that the agent has ready), or the name of an
            attester that a package brings.
        agent: The URL of the guest's Attestation Agent, empty for its usual one.

    Raises:
        InputError: The address is malformed, or there is no such attester.
        RefusedError: It is plain http beyond loopback.
    """
    if not address:
        raise InputError("KBC 'cc' needs the address of the KBS", "write cc_kbc::https://host:port")
    kbs = Kbs(
        KbsUrl.parse(address),
        ca_file=Path(ca_file) if ca_file else None,
        insecure_http=insecure_http,
    )
    try:
        if attester == "aa-token":
            return CcKbc(Reader(kbs, Agent(agent or AGENT_URL).session))
        return CcKbc(Reader(kbs, Handshake(kbs, load(attester, agent))))
    except BaseException:
        kbs.close()
        raise
