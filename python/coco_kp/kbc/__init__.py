"""KBCs: who gets a layer's key out of its packet. Each is loaded only when it is named."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Final, NamedTuple, Protocol, cast

from coco_kp.crypto import Kek
from coco_kp.errors import KekError
from coco_kp.files import StrPath
from coco_kp.keys.wrapper import wrong_kek
from coco_kp.model.kbc_spec import KbcSpec
from coco_kp.model.packet import AnnotationPacket

SEV_SECRETS: Final = Path("/sys/kernel/security/secrets/coco")
"""Where a SEV guest's kernel shows the secrets that the guest was launched with."""


class KbcSettings(NamedTuple):
    """What the owner of this machine set for KBCs; a caller of the provider cannot change it.

    Attributes:
        keys_file: The file in place of those in which a KBC looks for keys: of ``offline_fs`` and
            ``offline_sev`` a keys file, of ``online_sev`` the connection. It is only read.
        sev_secrets: Where a SEV guest's kernel shows injected secrets. They are deleted once they
            were read.
        keep_secret: Do not delete them.
        kbs_ca: Certificates (PEM) that are trusted beside the system's roots.
        kbs_insecure_http: Allow plain http beyond loopback.
        attester: How ``cc`` proves what this machine is: ``sample``, ``aa`` (by the guest's
            Attestation Agent), ``aa-token`` (a token that the agent has ready), or the name of an
            attester that a package brings.
        agent: The address of the guest's Attestation Agent, empty for its usual one.
        eaa_allow_unverified: Let ``eaa`` talk to a Verdictd beyond loopback, though nothing proves
            who answers there.
    """

    keys_file: StrPath | None = None
    sev_secrets: StrPath = SEV_SECRETS
    keep_secret: bool = False
    kbs_ca: StrPath | None = None
    kbs_insecure_http: bool = False
    attester: str = "sample"
    agent: str = ""
    eaa_allow_unverified: bool = False


class Kbc(Protocol):
    """Opens packets. Made anew for each call, since each call may name another address."""

    def unwrap(self, packet: AnnotationPacket) -> bytes:
        """Return the private options that the packet holds. Raises ``CocoKpError``."""


def open_kbc(spec: KbcSpec, settings: KbcSettings) -> Kbc:
    """Make the KBC that ``spec`` names. Raises ``CocoKpError`` where it lacks what it needs."""
    module = import_module(f"coco_kp.kbc.{spec.name}")
    return cast("Kbc", module.open_kbc(spec, settings))


def open_packet(kek: Kek, packet: AnnotationPacket) -> bytes:
    """Unwrap a packet with its KEK. Raises ``KekError`` if that is another one."""
    try:
        return kek.unwrap(packet.wrap_type, packet.iv, packet.wrapped_data)
    except KekError:
        raise wrong_kek(str(packet.kid)) from None
