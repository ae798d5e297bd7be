"""Waiting without depending on how busy the machine is.

What must end by itself is given `PATIENCE`, which no load exhausts; what it is not to wait for
goes on for ever, so that a test that depends on giving up cannot pass by chance.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE: Final = 60.0
"""Seconds in which whatever ends by itself has ended."""


@contextmanager
def ends(*, after: float = 0.0) -> Iterator[None]:
    """Fail if the block takes longer than `PATIENCE`, or less than ``after`` seconds."""
    began = time.monotonic()
    yield
    assert after <= time.monotonic() - began < PATIENCE


def wait_until(condition: Callable[[], object]) -> None:
    """Return as soon as ``condition`` holds; fail if it does not within `PATIENCE`."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
