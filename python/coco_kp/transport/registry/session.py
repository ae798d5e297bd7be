"""A session: what many images share on their way to registries, as callers hold it."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from coco_kp.deadline import pause

if TYPE_CHECKING:
    from coco_kp.transport.registry.registries import Registries


class Session:
    """Logins, connections, tokens and limits, for all images that are opened with it.

    The user's files are read when they are first needed and not again; credential helpers run every
    five minutes at the most. What one registry was told goes to no other. Threads may share it. A
    context manager: whoever made it closes it, after all calls that use it.

    Args:
        sleep: Waits so many seconds before a registry is asked again.
        clock: Says by seconds when a login or token is too old.
    """

    def __init__(
        self,
        *,
        sleep: Callable[[float], None] = pause,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # urllib3 changes the warnings of the process that loads it.
        from coco_kp.transport.registry.registries import Registries  # noqa: PLC0415

        self._registries = Registries(sleep=sleep, clock=clock)

    def close(self) -> None:
        """Close all connections."""
        self._registries.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def registries(session: Session) -> Registries:
    """Return what a session knows of registries, which is nobody's but this package's."""
    return session._registries  # noqa: SLF001
