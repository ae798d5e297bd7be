"""The tree, in which several builds would write the same files at the same time."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support.markdown import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def building() -> Iterator[None]:
    """Wait until no other process of these tests builds in the tree, and let none begin."""
    (ROOT / ".cache").mkdir(exist_ok=True)
    with (ROOT / ".cache" / "building.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
