"""A real registry on loopback, its storage in a temporary folder."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .daemon import daemon
from .debian import debian_bin
from .golang import CRANE, DISTRIBUTION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from .daemon import Daemon


@contextmanager
def registry(program: Path, folder: Path) -> Iterator[str]:
    """Run a distribution with its data in ``folder`` and give its ``host:port``; plain HTTP."""
    with registry_daemon(program, folder) as running:
        yield running.address()


@contextmanager
def registry_daemon(program: Path, folder: Path, **sections: object) -> Iterator[Daemon]:
    """Run a distribution; ``sections`` are added to its configuration, or replace what is in it."""
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


@contextmanager
def crane_registry(folder: Path) -> Iterator[str]:
    """Run go-containerregistry's registry: small, strict, and written by others; plain HTTP.

    It keeps blobs in ``folder`` and manifests in memory, wants no password and mounts nothing.
    """
    serve = ["registry", "serve", "--address", "127.0.0.1:0", "--disk", str(folder)]
    with daemon([CRANE.have(), *serve], folder / "registry.log") as running:
        yield running.address()


DISTRIBUTIONS: dict[str, Callable[[], Path]] = {
    "distribution-2.8.3": lambda: debian_bin() / "docker-registry",
    # half an hour of building on a busy machine: only where somebody wanted it
    **({f"distribution-{DISTRIBUTION.version}": DISTRIBUTION.have} if DISTRIBUTION.cached else {}),
}
"""The registries that do TLS, passwords and tokens, that mount blobs and outlive a kill, each with
the function that finds its program."""


def _run_distribution(find: Callable[[], Path]) -> Callable[[Path], AbstractContextManager[str]]:
    return lambda folder: registry(find(), folder)


REGISTRIES: dict[str, Callable[[Path], AbstractContextManager[str]]] = {
    **{name: _run_distribution(find) for name, find in DISTRIBUTIONS.items()},
    f"crane-{CRANE.version}": crane_registry,
}
"""Every registry, with the function that runs it on a folder and gives its ``host:port``."""
