"""Debian 13's Python for arm64 and coco-kp's dependencies, run by qemu-user, not installed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Final

from .cache import PeerUnavailableError, cached, run
from .debian import TRIXIE, _download, _require_debian

PYTHON_VERSION: Final = "3.13"
"""Debian 13's."""

LOCK: Final = Path(__file__).parents[2] / "requirements" / "runtime.txt"

# What wheels for Debian 13's glibc 2.41 may be built for; pip takes none but those named.
PLATFORMS: Final = [
    f"--platform=manylinux_2_{minor}_aarch64" for minor in (39, 34, 31, 28, 24, 17)
] + ["--platform=manylinux2014_aarch64"]


def arm64_python() -> list[str]:
    """Return the command that runs the arm64 Python; arguments may follow."""
    qemu = shutil.which("qemu-aarch64")
    if qemu is None:
        raise PeerUnavailableError("qemu-aarch64 is missing: apt-get install qemu-user")
    root = cached(f"{TRIXIE.name}-arm64-python", "python3\n", _unpack_python)
    return [qemu, "-L", str(root), str(root / f"usr/bin/python{PYTHON_VERSION}")]


def arm64_packages() -> Path:
    """Return the folder with the locked dependencies for the arm64 Python, for ``PYTHONPATH``."""
    return cached("python-packages-arm64", LOCK.read_text(), _install_packages)


def _unpack_python(folder: Path) -> None:
    _require_debian()
    apt = folder / "apt"
    for package in _download(TRIXIE.codename, ["python3"], apt, architecture="arm64"):
        run(["dpkg-deb", "--extract", package, folder])
    shutil.rmtree(apt)
    (folder / "lib").symlink_to("usr/lib")  # as base-files has it, which is not among them


def _install_packages(folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
    python = ["--implementation", "cp", "--python-version", PYTHON_VERSION, *PLATFORMS]
    locked = ["--only-binary=:all:", "--require-hashes", "--requirement", str(LOCK)]
    run([*pip, "--no-compile", "--target", str(folder), *python, *locked])
