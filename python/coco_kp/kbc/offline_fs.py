"""``offline_fs``: opens packets with KEKs from the guest's own file system.

The files and their merging are the Confidential Data Hub's (docs/protocols.md 4): keys, resources,
then those that ``OFFLINE_FS_KBC_EXTRA_FILE_PATH`` lists; a later file wins. They are read for each
packet, so a key that was just added counts.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from coco_kp.errors import KekError
from coco_kp.files import is_there
from coco_kp.kbc import KbcSettings, open_packet
from coco_kp.keys.keys_file import find_kek, read_keys
from coco_kp.model.kbc_spec import KbcSpec
from coco_kp.model.packet import AnnotationPacket
from coco_kp.redact import shown

DEFAULT_FILES: Final = (
    Path("/etc/aa-offline_fs_kbc-keys.json"),
    Path("/etc/aa-offline_fs_kbc-resources.json"),
)
EXTRA_FILES_VARIABLE: Final = "OFFLINE_FS_KBC_EXTRA_FILE_PATH"


class OfflineFsKbc:
    """The KBC of guests that bring their keys along."""

    def __init__(self, files: tuple[Path, ...]) -> None:
        self._files = files

    def unwrap(self, packet: AnnotationPacket) -> bytes:
        """Open the packet with the key of its kid's path. Raises ``KekError``, ``InputError``."""
        keys: dict[str, str] = {}
        for file in self._files:
            keys |= read_keys(file)
        source = ", ".join(shown(str(file)) for file in self._files)
        kek = find_kek(keys, packet.kid, source)
        return open_packet(kek, packet)


def open_kbc(
    _spec: KbcSpec, settings: KbcSettings, usual: tuple[Path, ...] = DEFAULT_FILES
) -> OfflineFsKbc:
    """Make it for the files that are there. Raises ``KekError`` if none is."""
    if settings.keys_file:
        return OfflineFsKbc((Path(settings.keys_file),))
    extra = os.environ.get(EXTRA_FILES_VARIABLE, "")
    candidates = (*usual, *(Path(name) for name in extra.split(",") if name))
    files = tuple(file for file in candidates if is_there(file))
    if not files:
        raise KekError(
            f"there is no keys file: none of {', '.join(map(str, candidates))} exists",
            code="keys-file-missing",
        )
    return OfflineFsKbc(files)
