"""A virtual environment of its own, which sees nothing of the source tree."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Environment:
    """An environment without pip: the tests' own pip installs into it."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, symlinks=True)
        self.folder = folder

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    def pip(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> None:
        """Run pip for this environment; ``env`` is added to the tests' own."""
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run(
            [*pip, "--python", self.bin / "python", *arguments],
            env={**os.environ, **(env or {})},
            check=True,
        )

    def run(self, *command: str, folder: Path) -> str:
        """Run a command in ``folder``, which is its home, too; return what it printed."""
        done = subprocess.run(
            command,
            cwd=folder,
            env={"PATH": f"{self.bin}:/usr/bin:/bin", "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=300,
            check=True,
        )
        return done.stdout
