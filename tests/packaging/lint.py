"""Linters of what runs elsewhere: actionlint, which is built, and shellcheck of this machine."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.peers.cache import PeerUnavailableError
from tests.peers.golang import ACTIONLINT

if TYPE_CHECKING:
    from pathlib import Path


def actionlint(repository: Path) -> str:
    """Return what actionlint, with shellcheck, has against the workflows of a repository."""
    return _findings([ACTIONLINT.have(), "-no-color", "-shellcheck", _shellcheck()], repository)


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
