"""KBCs whose keys are in a file of the test."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from coco_kp.kbc import offline_fs
from coco_kp.kbc.kbcs import Kbcs

if TYPE_CHECKING:
    from pathlib import Path


def kbcs_with(keys_file: Path) -> Kbcs:
    """Return KBCs of which ``offline_fs`` looks for keys in this file alone; it has no connections
    to be closed.
    """
    return Kbcs({"offline_fs": partial(offline_fs.offline_fs_kbc, keys_file=keys_file)})
