"""The real skopeo: found, and run without anything of the machine's own configuration."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .cache import PeerUnavailableError
from .debian import debian_bin

TIMEOUT: Final = 60
"""Seconds after which a call of skopeo is taken for hung."""

PROVIDER: Final = "provider:attestation-agent"


class SkopeoError(Exception):
    """skopeo exited with an error; the text is what it printed."""


def find_skopeo() -> Path:
    """Return the skopeo of ``PATH`` where it knows key providers, else Debian 13's."""
    found = shutil.which("skopeo")
    if found is not None and _knows_key_providers(found):
        return Path(found)
    try:
        return debian_bin() / "skopeo"
    except PeerUnavailableError as error:
        reason = "is built without key providers" if found else "is not there"
        raise PeerUnavailableError(f"skopeo on PATH {reason}; Debian 13's: {error}") from error


def _knows_key_providers(skopeo: str) -> bool:
    # Keys are parsed before the source is looked at; a build without key providers stops there.
    # One with them would make the folder of its destination: this one cannot be made.
    probe = [
        "copy",
        "--insecure-policy",
        "--encryption-key",
        PROVIDER,
        "dir:/dev/null/x",
        "dir:/dev/null/x",
    ]
    done = subprocess.run([skopeo, *probe], capture_output=True, text=True, check=False)
    return "protocol not recognized" not in done.stderr


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
        options = ["--insecure-policy", *plain_http, *flags]
        return [str(self.program), "--tmpdir", str(self.home), "copy", *options, source, target]

    def environment(self, config: Path | None) -> dict[str, str]:
        """Return the environment in which skopeo is to run."""
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.home),
            "CONTAINERS_REGISTRIES_CONF": str(self.home / "registries.conf"),
        }
        if config is not None:
            env["OCICRYPT_KEYPROVIDER_CONFIG"] = str(config)
        return env
