"""``offline_sev``: opens packets with KEKs that a SEV guest was launched with.

The secret is a keys file. Its names are paths (``default/key/key_id1``), as the agent looks them
up, or bare tags (``key_id1``), as its README has them: both are found.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from coco_kp.errors import KekError
from coco_kp.files import read_file
from coco_kp.kbc import open_packet
from coco_kp.kbc.injected_secret import MAX_SECRET, take_secret
from coco_kp.keys.keys_file import find_kek, parse_keys
from coco_kp.model.sev_secret import KEYS_GUID
from coco_kp.redact import shown

if TYPE_CHECKING:
    from coco_kp.kbc import KbcSettings
    from coco_kp.model.kbc_spec import KbcSpec
    from coco_kp.model.packet import AnnotationPacket


class OfflineSevKbc:
    """The KBC of SEV guests without a network; ``source`` names the secret in errors."""

    def __init__(self, keys: dict[str, str], source: str) -> None:
        self._keys = keys
        self._source = source

    def unwrap(self, packet: AnnotationPacket) -> bytes:
        """Open the packet with the key of its kid's path or tag. Raises ``KekError``."""
        path, tag = packet.kid.path, packet.kid.segments[-1]
        bare = {path: self._keys[tag]} if tag in self._keys else {}
        kek = find_kek(bare | self._keys, packet.kid, self._source)
        return open_packet(kek, packet)


_lock = threading.Lock()
_taken: dict[Path, dict[str, str]] = {}


def open_kbc(_spec: KbcSpec, settings: KbcSettings) -> OfflineSevKbc:
    """Make it with the keys of ``settings.keys_file``, which stays, or of the injected secret.

    The injected secret is gone once it was read: its keys then stay in this process, for all calls.
    Raises ``KekError``, ``InputError``.
    """
    file = Path(settings.keys_file or Path(settings.sev_secrets, KEYS_GUID))
    source = f"the secret {shown(str(file))}"
    if settings.keys_file:
        return OfflineSevKbc(parse_keys(read_file(file, MAX_SECRET, KekError).data, source), source)
    with _lock:
        if file not in _taken:
            secret = take_secret(KEYS_GUID, Path(settings.sev_secrets), keep=settings.keep_secret)
            _taken[file] = parse_keys(secret, source)
        return OfflineSevKbc(_taken[file], source)
