"""The sdist builds where nothing is but Rust, its crates, and maturin."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pytest

from tests.packaging.wheels.environment import Environment
from tests.support.markdown import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.full

NO_NETWORK = {
    # `make wheels` has fetched the crates; nothing else may be wanted.
    "CARGO_NET_OFFLINE": "true",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "PIP_CONFIG_FILE": "/dev/null",
    "PIP_FIND_LINKS": "",
}


def test_sdist_builds_offline_into_same_files_as_wheel(
    sdist: Path, x86_64_wheel: Path, tmp_path: Path
) -> None:
    environment = Environment(tmp_path / "venv")
    (tmp_path / "build.txt").write_text(locked("maturin"))
    environment.pip("install", "--require-hashes", "-r", tmp_path / "build.txt")
    environment.pip(
        *("wheel", "--no-index", "--no-deps", "--no-build-isolation"),
        *("--wheel-dir", tmp_path / "built", sdist),
        env={
            **NO_NETWORK,
            "PATH": f"{environment.bin}:{os.environ['PATH']}",
            "CARGO_TARGET_DIR": str(ROOT / "target"),
            "MATURIN_PEP517_ARGS": "--locked",
        },
    )
    (built,) = (tmp_path / "built").glob("*.whl")
    assert names(built) == names(x86_64_wheel)


def locked(package: str) -> str:
    """Return a package's lines of the lock file: its version and hashes."""
    lock = (ROOT / "requirements/dev.txt").read_text()
    found = re.search(rf"^{package}==.*(?:\n    --hash=.*)+", lock, flags=re.MULTILINE)
    assert found
    return found[0].rstrip("\\ ") + "\n"


def names(wheel: Path) -> set[str]:
    with ZipFile(wheel) as archive:
        return set(archive.namelist())
