"""Key providers as a user meets them: behind a real skopeo, that encrypts and decrypts images."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.peers.daemon import daemon
from tests.support.image import Image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.peers.daemon import Daemon
    from tests.peers.skopeo import Skopeo

COCO_KP: Final = Path(sys.executable).with_name("coco-kp")

LOG: Final = "coco-kp.log"

READY: Final = re.compile(r'(?: ready on (?:grpc://)?|"ready", "address": ")([^\s"]+)')
"""In the line that tells where our server listens, in either log format."""


@dataclass(frozen=True)
class Provider:
    """A key provider that skopeo finds through a config file; images are made in ``folder``."""

    skopeo: Skopeo
    config: Path
    folder: Path

    def encrypt(self, image: Image, parameters: str, *flags: str) -> Image:
        """Encrypt an image with these parameters, ``k=v::k=v``, and return the new one."""
        target = Image(Path(tempfile.mkdtemp(prefix="encrypted-", dir=self.folder)))
        self.skopeo.encrypt(image.reference, target.reference, parameters, self.config, *flags)
        return target

    def decrypt(self, image: Image, kbc: str) -> Image:
        """Decrypt an image with this KBC, ``name::uri``, and return the new one."""
        target = Image(Path(tempfile.mkdtemp(prefix="decrypted-", dir=self.folder)))
        self.skopeo.decrypt(image.reference, target.reference, kbc, self.config)
        return target


def grpc_config(path: Path, address: str) -> Path:
    """Write the config of a provider at ``host:port``, as a user of any provider would."""
    path.write_text(json.dumps({"key-providers": {"attestation-agent": {"grpc": address}}}))
    return path


@contextmanager
def our_provider(
    skopeo: Skopeo, folder: Path, *flags: str, socket: str = "127.0.0.1:0"
) -> Iterator[Provider]:
    """Run ``coco-kp serve`` with these flags and give it as skopeo finds it; its log in `LOG`."""
    with serving(folder, *flags, socket=socket) as running:
        config = our_config(folder / "ocicrypt.json", "--grpc", served_address(running))
        yield Provider(skopeo, config, folder)


@contextmanager
def serving(folder: Path, *flags: str, socket: str = "127.0.0.1:0") -> Iterator[Daemon]:
    """Run ``coco-kp serve``, ready, while the block runs."""
    command = [str(COCO_KP), "serve", "--socket", socket, *flags]
    with daemon(command, folder / LOG) as running:
        served_address(running)
        yield running


def served_address(running: Daemon) -> str:
    """Return where a running ``coco-kp serve`` listens, as ``coco-kp config --grpc`` takes it."""
    ready = running.wait_until(lambda: READY.search(running.output()), "say that it is ready")
    return ready.group(1)


def our_config(path: Path, *door: str) -> Path:
    """Write the config of our provider with ``coco-kp config`` and return its path."""
    subprocess.run([COCO_KP, "config", "-o", path, *door], check=True)
    return path
