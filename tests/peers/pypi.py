"""Programs in Python that would burden the tests' own environment, each in a folder of its own."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .cache import cached, is_cached, run

LOCKS: Final = Path(__file__).parents[2] / "requirements"


@dataclass(frozen=True)
class PythonProgram:
    """A program of the package index, with all it needs from a lock file of its own."""

    name: str
    """Its package, and its lock file's."""
    module: str
    """What ``python -m`` runs."""
    megabytes: int
    """The download, about."""

    @property
    def lock(self) -> Path:
        """The file that pins it, made by `make lock`."""
        return LOCKS / f"{self.name}.txt"

    @property
    def recipe(self) -> str:
        """What the entry is made from; extension modules are for one version of Python."""
        return f"{sys.implementation.cache_tag}\n{self.lock.read_text()}"

    @property
    def cached(self) -> bool:
        """Whether it was had already."""
        return is_cached(self.name, self.recipe)

    @property
    def effort(self) -> str:
        """What is done to have it, and how long that may take."""
        return f"installing {self.title} with pip: {self.megabytes} MB, seconds to a minute"

    @property
    def title(self) -> str:
        """What it is, and its version."""
        found = re.search(rf"^{self.name}(?:\[.*?\])?==(\S+)", self.lock.read_text(), re.MULTILINE)
        assert found
        return f"{self.name} {found[1]}"

    def have(self) -> Path:
        """Return the folder of its packages. Raises `PeerUnavailableError`."""
        return cached(self.name, self.recipe, self._install)

    def command(self) -> tuple[str, ...]:
        """Return the start of a command line: without ``site``, nothing else is importable."""
        return (sys.executable, "-S", "-m", self.module)

    def environment(self) -> dict[str, str]:
        """Return the environment in which the command finds the packages."""
        return os.environ | {"PYTHONPATH": str(self.have())}

    def _install(self, folder: Path) -> None:
        pip: list[str | Path] = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        # What is never imported need not be compiled; what is, Python compiles then.
        pip += ["--no-compile", "--target", folder]
        run([*pip, "--only-binary=:all:", "--require-hashes", "-r", self.lock])


MOTO: Final = PythonProgram("moto", "moto.server", 30)
