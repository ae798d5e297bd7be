"""The current registry, which no Debian release has: built by the machine's own Go."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from .cache import PeerUnavailableError, cached, run

if TYPE_CHECKING:
    from pathlib import Path

VERSION = "v3.1.2"
PACKAGE = f"github.com/distribution/distribution/v3/cmd/registry@{VERSION}"


def distribution_registry() -> Path:
    """Return the program ``registry`` of `VERSION`."""
    return cached(f"distribution-{VERSION}", _make) / "registry"


def _make(folder: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise PeerUnavailableError(
            f"the registry {VERSION} is built with Go, and there is none on PATH"
        )
    build = folder / "build"
    places = {"GOPATH": build / "path", "GOCACHE": build / "cache", "GOBIN": folder}
    # Own folders: a gigabyte of sources goes with them, and the user's own stay as they are.
    env = os.environ | {name: str(place) for name, place in places.items()}
    env.pop("GOMODCACHE", None)
    run([go, "install", "-modcacherw", "-trimpath", "-ldflags=-s -w", PACKAGE], env)
    shutil.rmtree(build)
