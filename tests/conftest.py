"""For every folder of tests: real peers, each started for one test alone; how to search."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.peers import peers_required
from tests.peers.cache import PeerUnavailableError
from tests.peers.registry import REGISTRIES, registry
from tests.peers.skopeo import Skopeo, find_skopeo

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path


# Time is bounded so that a hang fails, and a slow machine does not.
settings.register_profile(
    "coco-kp", deadline=timedelta(seconds=5), suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("coco-kp")


@contextmanager
def skipped_without_peers() -> Iterator[None]:
    """Skip a test whose peer cannot be had, unless peers are required: then it fails."""
    try:
        yield
    except PeerUnavailableError as error:
        if peers_required():
            raise
        pytest.skip(str(error))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, None, None]:
    with skipped_without_peers():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    with skipped_without_peers():
        yield


@pytest.fixture(scope="session")
def skopeo_program() -> Path:
    """The path of a skopeo that knows key providers."""
    return find_skopeo()


@pytest.fixture
def skopeo(skopeo_program: Path, tmp_path: Path) -> Skopeo:
    """A skopeo that nothing of the machine's own configuration reaches."""
    home = tmp_path / "skopeo"
    home.mkdir()
    return Skopeo(skopeo_program, home)


@pytest.fixture(params=REGISTRIES)
def registry_address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The ``host:port`` of an empty registry, over plain HTTP; once for each kind of registry."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with registry(REGISTRIES[request.param](), folder) as address:
        yield address
