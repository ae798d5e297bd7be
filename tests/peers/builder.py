"""The real buildah and podman, run with nothing of the machine's own configuration or images."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .debian import TRIXIE
from .skopeo import PROVIDER

TIMEOUT: Final = 120
"""Seconds after which a call is taken for hung."""

BUILDERS: Final = ("buildah", "podman")


class BuilderError(Exception):
    """It exited with an error; the text is what it printed."""


@dataclass(frozen=True)
class Builder:
    """One of `BUILDERS`, with a storage of its own in ``home``: whole copies of each layer, so that
    it needs no file system that only root may mount."""

    name: str
    home: Path

    def pull(self, source: str, config: Path | None = None, kbc: str | None = None) -> str:
        """Take an image into the storage, decrypted where a KBC is given, and return its ID."""
        opening = ["--decryption-key", f"{PROVIDER}:{kbc}"] if kbc else []
        return self._run(config, "pull", "--quiet", *opening, source).strip()

    def push(
        self, image: str, target: str, config: Path | None = None, parameters: str | None = None
    ) -> None:
        """Copy an image out of the storage, encrypted where parameters are given."""
        wrapping = ["--encryption-key", f"{PROVIDER}:{parameters}"] if parameters else []
        self._run(config, "push", "--quiet", *wrapping, image, target)

    def _run(self, config: Path | None, verb: str, *arguments: str) -> str:
        storage = [
            *("--root", str(self.home / "storage"), "--runroot", str(self.home / "run")),
            *("--storage-driver", "vfs"),
        ]
        policy = self._write("policy.json", '{"default": [{"type": "insecureAcceptAnything"}]}')
        program = TRIXIE.have() / "bin" / self.name
        done = subprocess.run(
            [program, *storage, verb, "--signature-policy", policy, *arguments],
            env=self._environment(config),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        if done.returncode != 0:
            raise BuilderError(done.stderr)
        return done.stdout

    def _environment(self, config: Path | None) -> dict[str, str]:
        helpers = [str(TRIXIE.have() / "root/usr/lib/podman")]
        # JSON's strings and lists are TOML's
        engine = f"[engine]\nhelper_binaries_dir = {json.dumps(helpers)}\n"
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.home),
            "TMPDIR": str(self.home),
            "CONTAINERS_CONF": str(self._write("containers.conf", engine)),
            "CONTAINERS_REGISTRIES_CONF": str(self._write("registries.conf", "")),
            "CONTAINERS_STORAGE_CONF": str(
                self._write("storage.conf", '[storage]\ndriver = "vfs"\n')
            ),
        }
        if config is not None:
            env["OCICRYPT_KEYPROVIDER_CONFIG"] = str(config)
        return env

    def _write(self, name: str, text: str) -> Path:
        self.home.mkdir(exist_ok=True)
        (self.home / name).write_text(text)
        return self.home / name
