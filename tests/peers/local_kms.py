"""local-kms, an emulator of AWS KMS in Go, on loopback, for one test alone."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from .aws import REGION, RunningAws, with_keys
from .daemon import daemon
from .golang import LOCAL_KMS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def local_kms(folder: Path) -> Iterator[RunningAws]:
    """Run it, with its database in ``folder``; it has no Secrets Manager."""
    folder.mkdir()
    command: list[str | Path] = [LOCAL_KMS.have(), REGION, folder / "database"]
    with daemon(command, folder / "local-kms.log") as running:
        yield with_keys(f"http://{running.address()}")
