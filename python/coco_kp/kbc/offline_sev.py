"""``offline_sev``: opens packets with KEKs that a SEV guest was launched with.

The secret is a keys file. Its names are paths (``default/key/key_id1``), as the agent looks them
up, or bare tags (``key_id1``), as its README has them: both are found.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from coco_kp.kbc.injected_secret import THIS_GUESTS, InjectedSecrets
from coco_kp.keys.keys_file import find_kek, parse_keys, read_keys
from coco_kp.keys.wrapper import open_packet
from coco_kp.model.sev_secret import KEYS_GUID
from coco_kp.redact import shown

if TYPE_CHECKING:
    from coco_kp.files import StrPath
    from coco_kp.kbc.kbcs import Kbc
    from coco_kp.model.packet import AnnotationPacket


class OfflineSevKbc:
    """The KBC of SEV guests without a network.

    Its keys are those of ``keys_file``, which stays, or else of the injected secret.
    """

    def __init__(self, secrets: InjectedSecrets, keys_file: StrPath | None = None) -> None:
        self._secrets = secrets
        self._keys_file = keys_file

    def unwrap(self, packet: AnnotationPacket) -> bytes:
        """Open the packet with the key of its kid's path or tag.

        Raises ``KekError``, ``InputError``.
        """
        keys, source = self._keys()
        path, tag = packet.kid.path, packet.kid.segments[-1]
        bare = {path: keys[tag]} if tag in keys else {}
        return open_packet(find_kek(bare | keys, packet.kid, source), packet)

    def close(self) -> None:
        """No-op: it has no connections."""

    def _keys(self) -> tuple[dict[str, str], str]:
        """Return the keys, and what they are called in errors."""
        if self._keys_file:
            return read_keys(Path(self._keys_file)), f"the secret {shown(str(self._keys_file))}"
        source = f"the secret {self._secrets.name_of(KEYS_GUID)}"
        return parse_keys(self._secrets.take(KEYS_GUID), source), source


def offline_sev_kbc(
    _address: str = "",
    *,
    keys_file: StrPath | None = None,
    secrets: InjectedSecrets | None = None,
) -> Kbc:
    """Return the KBC of SEV guests without a network; it has no address.

    Args:
        keys_file: A keys file, which is only read, in place of the injected secret.
        secrets: What takes the injected secret; None for where the kernel shows it.
    """
    return OfflineSevKbc(secrets or THIS_GUESTS, keys_file)
