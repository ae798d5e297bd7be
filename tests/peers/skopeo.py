"""The real skopeo, and what copies images as it does: found, and run without anything of the
machine's own configuration."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from .debian import SID, debian_bin
from .golang import CIMAGE_CLIENT

TIMEOUT: Final = 120
"""Seconds after which a call of skopeo is taken for hung."""

PROVIDER: Final = "provider:attestation-agent"


class SkopeoError(Exception):
    """skopeo exited with an error; the text is what it printed."""


def find_skopeo() -> Path:
    """Return Debian 13's skopeo, whatever ``PATH`` has: tests say the same everywhere.

    That of Debian 12 (1.9.3) is built without key providers.
    """
    return debian_bin() / "skopeo"


CLIENTS: Final[dict[str, Callable[[], Path]]] = {
    "skopeo": find_skopeo,
    "skopeo-sid": lambda: debian_bin(SID) / "skopeo",
    CIMAGE_CLIENT.name: CIMAGE_CLIENT.have,
}
"""Each client that copies images as ``skopeo copy`` does, with the function that finds it."""

with_each_client = pytest.mark.parametrize(
    "skopeo",
    # the oldest and the newest every time, what lies between them in `make test-all`
    ["skopeo", pytest.param("skopeo-sid", marks=pytest.mark.full), CIMAGE_CLIENT.name],
    indirect=True,
)
"""For a test that uses the fixture ``skopeo``: run it with each of `CLIENTS`."""


@dataclass(frozen=True)
class Skopeo:
    """A skopeo with a home of its own: no registry, policy or login of the machine reaches it.

    Images are named as skopeo names them. ``config`` is the file that tells skopeo of its key
    provider. Registries are spoken to over plain HTTP.
    """

    program: Path
    home: Path

    def encrypt(self, source: str, target: str, parameters: str, config: Path, *more: str) -> None:
        """Copy an image and encrypt it with these parameters, ``k=v::k=v``."""
        self.copy(
            source, target, "--encryption-key", f"{PROVIDER}:{parameters}", *more, config=config
        )

    def decrypt(self, source: str, target: str, kbc: str, config: Path) -> None:
        """Copy an image and decrypt it with this KBC, ``name::uri``."""
        self.copy(source, target, "--decryption-key", f"{PROVIDER}:{kbc}", config=config)

    def copy(self, source: str, target: str, *flags: str, config: Path | None = None) -> None:
        """Copy an image. Raises `SkopeoError`."""
        done = subprocess.run(
            self.copy_command(source, target, *flags),
            env=self.environment(config),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        if done.returncode != 0:
            raise SkopeoError(done.stderr)

    def copy_command(self, source: str, target: str, *flags: str) -> list[str]:
        """Return the command that copies an image."""
        plain_http = ["--src-tls-verify=false", "--dest-tls-verify=false"]
        options = ["--insecure-policy", "--tmpdir", str(self.home), *plain_http, *flags]
        return [str(self.program), "copy", *options, source, target]

    def environment(self, config: Path | None) -> dict[str, str]:
        """Return the environment in which skopeo is to run."""
        registries = self.home / "registries.conf"
        registries.touch()  # newer ones insist that a file that is named be there
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.home),
            "CONTAINERS_REGISTRIES_CONF": str(registries),
        }
        if config is not None:
            env["OCICRYPT_KEYPROVIDER_CONFIG"] = str(config)
        return env
