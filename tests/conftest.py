"""For every folder of tests: real peers, each started for one test alone; how to search."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.peers.registry import REGISTRIES
from tests.peers.skipping import pytest_runtest_call, pytest_runtest_setup
from tests.peers.skopeo import CLIENTS, Skopeo, find_skopeo
from tests.peers.sources import ON_REQUEST, SOURCES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


__all__ = ["pytest_runtest_call", "pytest_runtest_setup"]

# Time is bounded so that a hang fails, and a slow machine does not.
settings.register_profile(
    "coco-kp", deadline=timedelta(seconds=5), suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("coco-kp")


def pytest_report_header() -> list[str]:
    """Say which peers the tests talk to, in which version: not all are pinned."""
    had = [source.title for source in (*SOURCES, *ON_REQUEST) if source.cached]
    left_out = [source.name for source in ON_REQUEST if not source.cached]
    return [
        f"peers: {', '.join(had) or 'none yet'}",
        *(f"without {name}, which `make peers PEERS={name}` builds" for name in left_out),
    ]


@pytest.fixture(scope="session")
def skopeo_program() -> Path:
    """The path of a skopeo that knows key providers."""
    return find_skopeo()


@pytest.fixture
def skopeo(request: pytest.FixtureRequest, tmp_path: Path) -> Skopeo:
    """A skopeo that nothing of the machine's own configuration reaches; Debian 13's.

    Under ``with_each_client`` it is each of `CLIENTS`.
    """
    home = tmp_path / "skopeo"
    home.mkdir()
    return Skopeo(CLIENTS[getattr(request, "param", "skopeo")](), home)


@pytest.fixture(params=REGISTRIES)
def registry_address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The ``host:port`` of an empty registry, over plain HTTP; once for each kind of registry."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with REGISTRIES[request.param](folder) as address:
        yield address
