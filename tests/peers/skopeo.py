"""The real skopeo: found, and run without anything of the machine's own configuration."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .cache import PeerUnavailableError
from .debian import debian_bin

TIMEOUT = 60
"""Seconds after which a call of skopeo is taken for hung."""


def find_skopeo() -> Path:
    """Return the skopeo of ``PATH`` where it knows key providers, else Debian 13's."""
    found = shutil.which("skopeo")
    if found is not None and _knows_key_providers(found):
        return Path(found)
    try:
        return debian_bin() / "skopeo"
    except PeerUnavailableError as error:
        here = "is built without key providers" if found else "is not there"
        raise PeerUnavailableError(f"skopeo on PATH {here}; Debian 13's: {error}") from error


def _knows_key_providers(skopeo: str) -> bool:
    # Keys are parsed before the source is looked at; a build without key providers stops there.
    probe = [
        "copy",
        "--insecure-policy",
        "--encryption-key",
        "provider:probe",
        "dir:/none",
        "dir:/none",
    ]
    done = subprocess.run([skopeo, *probe], capture_output=True, text=True, check=False)
    return "protocol not recognized" not in done.stderr


@dataclass(frozen=True)
class Skopeo:
    """A skopeo with a home of its own: no registry, policy or login of the machine reaches it."""

    program: Path
    home: Path

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of one call."""
        return [str(self.program), "--tmpdir", str(self.home), *arguments]

    def environment(self, provider_config: Path | None = None) -> dict[str, str]:
        """Return the environment of one call, with ``OCICRYPT_KEYPROVIDER_CONFIG`` as given."""
        containers = self.home / "containers"
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.home),
            "REGISTRY_AUTH_FILE": str(containers / "auth.json"),
            "CONTAINERS_REGISTRIES_CONF": str(containers / "registries.conf"),
        }
        if provider_config is not None:
            env["OCICRYPT_KEYPROVIDER_CONFIG"] = str(provider_config)
        return env

    def run(
        self, *arguments: str, provider_config: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one call to its end; the caller looks at the exit code."""
        return subprocess.run(
            self.command(*arguments),
            env=self.environment(provider_config),
            text=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
