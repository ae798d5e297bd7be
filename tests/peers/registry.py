"""A real registry on loopback, its storage in a temporary folder."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .daemon import daemon
from .debian import debian_bin
from .distribution import distribution_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .daemon import Daemon

REGISTRIES: dict[str, Callable[[], Path]] = {
    "distribution-2.8.3": lambda: debian_bin() / "docker-registry",
    "distribution-3.1.2": distribution_registry,
}
"""Each registry with the function that finds its program."""


@contextmanager
def registry(program: Path, folder: Path) -> Iterator[str]:
    """Run a registry that keeps its data in ``folder`` and give its ``host:port``; plain HTTP."""
    with registry_daemon(program, folder) as running:
        yield running.address()


@contextmanager
def registry_daemon(program: Path, folder: Path, **sections: object) -> Iterator[Daemon]:
    """Run a registry; ``sections`` are added to its configuration, or replace what is in it."""
    config = folder / "config.yml"
    settings = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}},
        "http": {"addr": "127.0.0.1:0"},
    }
    config.write_text(json.dumps(settings | sections))  # JSON is YAML
    env = {"OTEL_TRACES_EXPORTER": "none"}  # or version 3 looks for a collector on localhost
    with daemon([program, "serve", config], folder / "registry.log", env) as running:
        yield running
