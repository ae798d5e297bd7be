"""moto, an emulator of AWS in Python, on loopback: KMS and Secrets Manager.

It takes seconds to start, so that tests follow one another on one, each with an empty AWS.

What it cannot show: it encrypts under disabled keys, and wants no algorithm for an RSA key.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import urllib3

from .aws import RunningAws, with_keys
from .daemon import daemon
from .pypi import MOTO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def moto(folder: Path) -> Iterator[RunningAws]:
    """Run it, without keys; all it knows is in its memory."""
    folder.mkdir()
    command = [*MOTO.command(), "--host", "127.0.0.1", "--port", "0"]
    with daemon(command, folder / "moto.log", MOTO.environment()) as running:
        yield RunningAws(f"http://{running.address()}")


def emptied(running: RunningAws) -> RunningAws:
    """Have it forget all, and make the keys."""
    # docs.getmoto.org, "Moto server mode", Reset API
    with urllib3.PoolManager() as pool:
        assert pool.request("POST", f"{running.endpoint}/moto-api/reset").status == 200
    return with_keys(running.endpoint)
