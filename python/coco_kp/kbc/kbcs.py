"""The KBCs that are open, and whoever opened them closes them."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import MappingProxyType
from typing import Final, Protocol, Self, cast

from coco_kp.errors import CocoKpError, RemoteError
from coco_kp.model.kbc_spec import KBC_NAMES, KbcSpec
from coco_kp.model.packet import AnnotationPacket
from coco_kp.observe import event
from coco_kp.plugins import PluginGroup

PLUGINS: Final = PluginGroup(
    "coco_kp.kbcs",
    kind="KBC",
    code="kbc-unknown",
    builtin=KBC_NAMES,
    methods=("unwrap", "close"),
)
"""KBCs that other packages bring: functions that take the address and return a `Kbc`."""

MOST_OPEN: Final = 16
"""KBCs that stay open, with their connections and sessions: callers may name any address."""


class Kbc(Protocol):
    """Opens packets; threads may share it."""

    def unwrap(self, packet: AnnotationPacket) -> bytes:
        """Return the private options that the packet holds, as JSON. Raises ``CocoKpError``."""

    def close(self) -> None:
        """Close its connections."""


KbcFactory = Callable[[str], Kbc]
"""Makes a KBC for an address, empty where none was given. Raises ``CocoKpError``."""


class Kbcs:
    """KBCs, each made when it is first named, and kept while others are not used more.

    A context manager, which closes them; threads may share it.

    Args:
        settings: By name, what makes a KBC for an address (empty where none is given), of those
            that are not to be as they are by default: ``{"cc": partial(cc_kbc, attester="aa")}``.
    """

    def __init__(self, settings: Mapping[str, KbcFactory] = MappingProxyType({})) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._kept = OrderedDict[KbcSpec, _Kept]()  # the least recently used first
        self._closed = False

    def unwrap(self, spec: KbcSpec, packet: AnnotationPacket) -> bytes:
        """Return the private options that the KBC ``spec`` finds in a packet, as JSON.

        Raises ``CocoKpError``, and ``ValueError`` once this is closed.
        """
        with self._used(spec) as kbc:
            opened: object = kbc.unwrap(packet)
        if not isinstance(opened, bytes):
            raise RemoteError(f"KBC '{spec.name}' returned no bytes", code="plugin-failed")
        return opened

    def close(self) -> None:
        """Close all that nobody uses now; whoever still uses one, closes it when done."""
        with self._lock:
            self._closed = True
            idle = self._dropped(0)
        for kbc in idle:
            _close(kbc)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _used(self, spec: KbcSpec) -> Iterator[Kbc]:
        # Made outside the lock: what takes its time there must not keep others waiting.
        kept = self._found(spec) or self._added(spec, self._made(spec))
        try:
            yield kept.kbc
        finally:
            with self._lock:
                kept.users -= 1
                over = kept.dropped and not kept.users
            if over:
                _close(kept.kbc)

    def _found(self, spec: KbcSpec) -> _Kept | None:
        with self._lock:
            if self._closed:
                raise ValueError("these KBCs are closed")
            kept = self._kept.get(spec)
            if kept:
                kept.users += 1
                self._kept.move_to_end(spec)
            return kept

    def _added(self, spec: KbcSpec, made: Kbc) -> _Kept:
        idle: list[Kbc] = []
        with self._lock:
            kept = self._kept.get(spec)
            if kept is None:
                kept = self._kept[spec] = _Kept(made)
            else:  # another thread was faster
                idle.append(made)
            kept.users += 1
            idle += self._dropped(0 if self._closed else MOST_OPEN)
        for kbc in idle:
            _close(kbc)
        return kept

    def _dropped(self, most: int) -> list[Kbc]:
        """Keep so many; return those of the others that nobody uses, to be closed."""
        idle = []
        while len(self._kept) > most:
            _, kept = self._kept.popitem(last=False)
            kept.dropped = True
            if not kept.users:
                idle.append(kept.kbc)
        return idle

    def _made(self, spec: KbcSpec) -> Kbc:
        if factory := self._settings.get(spec.name):
            return factory(spec.uri)
        if spec.name in KBC_NAMES:
            module = import_module(f"coco_kp.kbc.{spec.name}")
            return cast("Kbc", getattr(module, f"{spec.name}_kbc")(spec.uri))
        return cast("Kbc", PLUGINS.open(spec.name, spec.uri))


def _close(kbc: Kbc) -> None:
    """Close it; that it fails is nothing to whoever had others opened, or has what it opened."""
    try:
        kbc.close()
    except CocoKpError as error:
        event(logging.WARNING, "warning", message=str(error))


class _Kept:
    """A KBC, how many use it now, and whether the last of them closes it."""

    def __init__(self, kbc: Kbc) -> None:
        self.kbc, self.users, self.dropped = kbc, 0, False
