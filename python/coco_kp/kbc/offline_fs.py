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
from coco_kp.files import StrPath, is_there
from coco_kp.kbc.kbcs import Kbc
from coco_kp.keys.keys_file import find_kek, read_keys
from coco_kp.keys.wrapper import open_packet
from coco_kp.model.packet import AnnotationPacket
from coco_kp.redact import shown

DEFAULT_FILES: Final = (
    Path("/etc/aa-offline_fs_kbc-keys.json"),
    Path("/etc/aa-offline_fs_kbc-resources.json"),
)
EXTRA_FILES_VARIABLE: Final = "OFFLINE_FS_KBC_EXTRA_FILE_PATH"


class OfflineFsKbc:
    """The KBC of guests that bring their keys along.

    It looks into ``keys_file`` alone, if that is given, else into those of the guest's files that
    are there: ``usual`` ones, and what the environment adds.
    """

    def __init__(
        self, keys_file: StrPath | None = None, usual: tuple[Path, ...] = DEFAULT_FILES
    ) -> None:
        self._keys_file = keys_file
        self._usual = usual

    def unwrap(self, packet: AnnotationPacket) -> bytes:
        """Open the packet with the key of its kid's path. Raises ``KekError``, ``InputError``."""
        files = self._files()
        keys: dict[str, str] = {}
        for file in files:
            keys |= read_keys(file)
        source = ", ".join(shown(str(file)) for file in files)
        kek = find_kek(keys, packet.kid, source)
        return open_packet(kek, packet)

    def close(self) -> None:
        """No-op: files are open only while they are read."""

    def _files(self) -> tuple[Path, ...]:
        if self._keys_file:
            return (Path(self._keys_file),)
        extra = os.environ.get(EXTRA_FILES_VARIABLE, "")
        candidates = (*self._usual, *(Path(name) for name in extra.split(",") if name))
        files = tuple(file for file in candidates if is_there(file))
        if not files:
            raise KekError(
                f"there is no keys file: none of {', '.join(map(str, candidates))} exists",
                "put the keys into one of these, where the packet is opened, or name another",
                code="keys-file-missing",
            )
        return files


def offline_fs_kbc(_address: str = "", *, keys_file: StrPath | None = None) -> Kbc:
    """Return the KBC of guests that bring their keys along; it has no address.

    Args:
        keys_file: A keys file, which is only read, in place of the guest's own.
    """
    return OfflineFsKbc(keys_file)
