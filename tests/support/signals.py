"""Signals that whoever started the tests may have ignored, as nohup and shells do."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heeding(number: signal.Signals) -> Iterator[None]:
    """Heed a signal while the block runs, here and in programs that it starts.

    It raises ``KeyboardInterrupt`` in this process, and does what it does by default in others.
    """
    before = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(number, before)
