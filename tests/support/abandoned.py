"""Threads that a deadline left behind."""

from __future__ import annotations

import threading

from tests.support.patience import PATIENCE


def await_abandoned() -> None:
    """Wait until they end, so that none asks the next test's server."""
    for thread in threading.enumerate():
        if thread.name == "key store":
            thread.join(PATIENCE)
            assert not thread.is_alive()
