"""What compressed bytes unpack to, within bounds: no small image costs hours, or fills a disk.

The native core's part in that, for the rest of coco-kp. An archive, and the layers that one command
reads in sum, may have 100 times their compressed bytes and ``Unpacking.FREE`` bytes on top, and
1 TiB at the most.
"""

from __future__ import annotations

from coco_kp._native import ContentCheck, Decompressor, Unpacking

__all__ = ["ContentCheck", "Decompressor", "Unpacking"]
