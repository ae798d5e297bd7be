"""Linters of what runs elsewhere: actionlint, which is built, and shellcheck of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.peers.cache import PeerUnavailableError, cached, run

if TYPE_CHECKING:
    from pathlib import Path

VERSION = "v1.7.12"
PACKAGE = f"github.com/rhysd/actionlint/cmd/actionlint@{VERSION}"


def actionlint(repository: Path) -> str:
    """Return what actionlint, with shellcheck, has against the workflows of a repository."""
    program = cached(f"actionlint-{VERSION}", _make) / "actionlint"
    return _findings([program, "-no-color", "-shellcheck", _shellcheck()], repository)


def shellcheck(script: Path) -> str:
    """Return what shellcheck has against a script for bash."""
    return _findings([_shellcheck(), "--shell=bash", script.name], script.parent)


def _findings(command: list[str | Path], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stderr
    assert bool(done.stdout) == bool(done.returncode)
    return done.stdout


def _shellcheck() -> str:
    program = shutil.which("shellcheck")
    if program is None:
        raise PeerUnavailableError("shellcheck is missing: apt-get install shellcheck")
    return program


def _make(folder: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise PeerUnavailableError("actionlint is built with Go, and there is none on PATH")
    build = folder / "build"
    places = {"GOPATH": build / "path", "GOCACHE": build / "cache", "GOBIN": folder}
    env = os.environ | {name: str(place) for name, place in places.items()}
    env.pop("GOMODCACHE", None)
    run([go, "install", "-modcacherw", "-trimpath", PACKAGE], env)
    shutil.rmtree(build)
