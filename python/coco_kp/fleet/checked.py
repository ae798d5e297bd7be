"""Layers that many images of a fleet take over, each read and checked once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Final

from coco_kp.image.plan import LayerPlan
from coco_kp.image.reuse import EarlierLayer
from coco_kp.image.work import Work
from coco_kp.values import dataclass, field

MOST_KEPT: Final = 256
"""Layers that are remembered; the one that was wanted the longest ago is forgotten. Each takes
64 KiB, and a fleet, or a cluster's worker that lives on after it, may take over any number."""


class CheckedHeads:
    """What was seen of layers that were read; who wants one that is being read waits for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[object, _Seen] = {}

    def head(self, key: object, read: Callable[[], bytes]) -> bytes:
        """Return a layer's first bytes, for which ``read`` is called unless it succeeded lately."""
        seen = self._find(key)
        with seen.reading:
            if seen.head is None:
                seen.head = read()
            return seen.head

    def _find(self, key: object) -> _Seen:
        with self._lock:
            seen = self._seen.pop(key, None) or _Seen()
            self._seen[key] = seen
            if len(self._seen) > MOST_KEPT:
                del self._seen[next(iter(self._seen))]
            return seen


class _Seen:
    def __init__(self) -> None:
        self.reading = threading.Lock()
        self.head: bytes | None = None


@dataclass(frozen=True, slots=True)
class CheckedLayer(EarlierLayer):
    """A layer that is not read again where its like was: the same bytes, options and content."""

    checked: CheckedHeads = field(repr=False, compare=False)

    def check(self, plan: LayerPlan, work: Work) -> bytes:
        """Decrypt it, as `EarlierLayer.check` does, unless that was done."""
        public, layer = self.encryption.public_options, plan.layer
        key = (self.layer.digest, public, self.options, layer.digest, layer.media_type)
        return self.checked.head(key, partial(EarlierLayer.check, self, plan, work))
