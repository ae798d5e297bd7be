"""The real containerd, pulling images as Kubernetes has it do (CRI), decrypted by ctd-decoder."""

from __future__ import annotations

import os
import shlex
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import grpc

from .daemon import daemon
from .debian import CONTAINERD_2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .debian import Suite

_PULL: Final = "/runtime.v1.ImageService/PullImage"
_TIMEOUT: Final = 120

# Whole copies of each layer need no file system that only root may mount.
_CONFIG: Final = """\
{sections}
{cri}
[grpc]
address = "{socket}"

[plugins."io.containerd.internal.v1.opt"]
path = "{home}/opt"

[plugins."io.containerd.nri.v1.nri"]
disable = true
"""

_CRI: Final = {
    1: """
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"

[plugins."io.containerd.grpc.v1.cri"]
disable_apparmor = true
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
conf_dir = "{home}/cni"
""",
    # goes on with the last of the sections
    2: """
snapshotter = "native"

[plugins."io.containerd.cri.v1.runtime"]
disable_apparmor = true
restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".cni]
conf_dir = "{home}/cni"
""",
}


class PullError(Exception):
    """It did not pull an image; the text is what it told Kubernetes."""


@dataclass(frozen=True)
class Containerd:
    """A containerd, which keeps all that it has in ``home``, and answers at ``socket``."""

    home: Path
    socket: Path

    def pull(self, image: str) -> None:
        """Pull and unpack an image from a registry on loopback, of plain HTTP."""
        with grpc.insecure_channel(f"unix://{self.socket}") as channel:
            # PullImageRequest{image: ImageSpec{image: ...}} of k8s.io/cri-api
            request = _text(_text(image.encode()))
            try:
                channel.unary_unary(_PULL, bytes, bytes)(request, timeout=_TIMEOUT)
            except grpc.RpcError as error:
                raise PullError(error.details()) from None

    def contents(self, name: str) -> set[bytes]:
        """Return what the files of a name hold, in all that was unpacked."""
        unpacked = self.home / "root/io.containerd.snapshotter.v1.native/snapshots"
        return {path.read_bytes() for path in unpacked.rglob(name)}


@contextmanager
def containerd(suite: Suite, home: Path, sections: str) -> Iterator[Containerd]:
    """Run a suite's while the block runs, with these sections in its configuration.

    It thinks that it is root, in a user namespace with a ``/run`` of its own: it changes owners of
    files, mounts, and makes folders there.
    """
    with TemporaryDirectory() as short:  # the folders of tests are too long for a socket's name
        yield from _running(suite, home, sections, Path(short) / "s")


def _running(suite: Suite, home: Path, sections: str, socket: Path) -> Iterator[Containerd]:
    home.mkdir()
    config = home / "config.toml"
    version = 2 if suite is CONTAINERD_2 else 1
    cri = _CRI[version].format(home=home)
    config.write_text(_CONFIG.format(home=home, socket=socket, sections=sections, cri=cri))
    arguments = ["--config", config, "--root", home / "root", "--state", home / "state"]
    command = [suite.have() / "bin/containerd", *arguments]
    script = f"mount -t tmpfs run /run && exec {shlex.join(map(str, command))}"
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    with daemon(alone, home / "log", os.environ) as running:
        running.wait_until(lambda: "successfully booted" in running.output(), "boot")
        yield Containerd(home, socket)


def _text(value: bytes) -> bytes:
    """Write a protobuf message of which field 1 is this."""
    assert len(value) < 128
    return b"\x0a" + bytes([len(value)]) + value
