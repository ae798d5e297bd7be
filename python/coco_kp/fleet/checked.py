"""Layers that many images of a fleet take over, each read and checked once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from coco_kp.image.plan import LayerPlan
from coco_kp.image.reuse import EarlierLayer
from coco_kp.image.work import Work
from coco_kp.values import dataclass, field


class CheckedHeads:
    """What was seen of layers that were read; who wants one that is being read waits for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[object, threading.Lock] = {}
        self._heads: dict[object, bytes] = {}

    def head(self, key: object, read: Callable[[], bytes]) -> bytes:
        """Return a layer's first bytes, for which ``read`` is called unless it succeeded before."""
        with self._lock:
            own = self._locks.setdefault(key, threading.Lock())
        with own:
            if key not in self._heads:
                self._heads[key] = read()
            return self._heads[key]


@dataclass(frozen=True, slots=True)
class CheckedLayer(EarlierLayer):
    """A layer that is not read again where its like was: the same bytes, options and content."""

    checked: CheckedHeads = field(repr=False, compare=False)

    def check(self, plan: LayerPlan, work: Work) -> bytes:
        """Decrypt it, as `EarlierLayer.check` does, unless that was done."""
        public, layer = self.encryption.public_options, plan.layer
        key = (self.layer.digest, public, self.options, layer.digest, layer.media_type)
        return self.checked.head(key, partial(EarlierLayer.check, self, plan, work))
