"""The real buildah and podman, run with nothing of the machine's own configuration or images."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .daemon import daemon
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

    def images(self) -> set[str]:
        """Return the names of all images in the storage."""
        return set(self._run(None, "images", "--format", "{{.Repository}}:{{.Tag}}").split())

    @contextmanager
    def service(self) -> Iterator[str]:
        """Answer as a docker daemon does while the block runs (podman only), and give the URL."""
        socket = self.home / "docker.sock"
        arguments = ("system", "service", "--time", "0", f"unix://{socket}")
        log = self.home / "service.log"
        with daemon([self._program, *arguments], log, self.environment()) as running:
            running.wait_until(socket.exists, "make its socket")
            yield f"unix://{socket}"

    @property
    def _program(self) -> Path:
        return TRIXIE.have() / "bin" / self.name

    def _run(self, config: Path | None, verb: str, *arguments: str) -> str:
        trusting = ["--signature-policy", str(self._policy())] if verb in {"pull", "push"} else []
        done = subprocess.run(
            [self._program, verb, *trusting, *arguments],
            env=self.environment(config),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        if done.returncode != 0:
            raise BuilderError(done.stderr)
        return done.stdout

    def environment(self, config: Path | None = None) -> dict[str, str]:
        """Return the environment in which programs find this storage."""
        helpers = [str(TRIXIE.have() / "root/usr/lib/podman")]
        # JSON's strings and lists are TOML's
        engine = f"[engine]\nhelper_binaries_dir = {json.dumps(helpers)}\n"
        self._policy()
        folders = {name: json.dumps(str(self.home / name)) for name in ("storage", "run")}
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.home),
            "TMPDIR": str(self.home),
            "CONTAINERS_CONF": str(self._write("containers.conf", engine)),
            "CONTAINERS_REGISTRIES_CONF": str(self._write("registries.conf", "")),
            "CONTAINERS_STORAGE_CONF": str(
                self._write(
                    "storage.conf",
                    f'[storage]\ndriver = "vfs"\ngraphroot = {folders["storage"]}\n'
                    f"runroot = {folders['run']}\n",
                )
            ),
        }
        if config is not None:
            env["OCICRYPT_KEYPROVIDER_CONFIG"] = str(config)
        return env

    def _policy(self) -> Path:
        """Write the policy that lets everything in, where skopeo looks for its user's."""
        (self.home / ".config/containers").mkdir(parents=True, exist_ok=True)
        text = '{"default": [{"type": "insecureAcceptAnything"}]}'
        return self._write(".config/containers/policy.json", text)

    def _write(self, name: str, text: str) -> Path:
        self.home.mkdir(exist_ok=True)
        (self.home / name).write_text(text)
        return self.home / name
