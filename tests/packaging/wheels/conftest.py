"""What ``make wheels`` builds: built once for all tests, whichever workers run them."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.packaging.tree import building
from tests.support.markdown import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The folder with both wheels and the sdist; what cargo has built in the tree is used again."""
    own = tmp_path_factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent
    built = shared / "dist"
    with building():
        if not built.exists():
            unfinished = shared / "dist.unfinished"
            subprocess.run(["make", "wheels", f"DIST={unfinished}"], cwd=ROOT, check=True)
            unfinished.rename(built)
    return built


@pytest.fixture(scope="session")
def x86_64_wheel(dist: Path) -> Path:
    return only(dist, "*_x86_64.whl")


@pytest.fixture(scope="session")
def aarch64_wheel(dist: Path) -> Path:
    return only(dist, "*_aarch64.whl")


@pytest.fixture(scope="session")
def sdist(dist: Path) -> Path:
    return only(dist, "*.tar.gz")


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found
