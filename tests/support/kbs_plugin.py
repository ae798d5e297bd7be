"""Calls of a KBS's plugin, as Trustee sends them, and the plugin as a process."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import grpc

from coco_kp.service.kbs_plugin_pb2 import PluginRequest, PluginResponse
from tests.peers.daemon import daemon
from tests.support.provider import COCO_KP, READY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.peers.daemon import Daemon

SERVICE: Final = "kbs.plugin.v1.KbsPlugin"
TIMEOUT: Final = 120
"""Seconds after which a call counts as hung."""

LOG: Final = "kbs-plugin.log"


def send(channel: grpc.Channel, method: str, message: bytes, timeout: float = TIMEOUT) -> bytes:
    """Send one message, encoded, and return the answer's bytes."""
    call = channel.unary_unary(f"/{SERVICE}/{method}", bytes, bytes)
    answer: bytes = call(message, timeout=timeout)
    return answer


def ask(channel: grpc.Channel, name: str, ciphertext: bytes) -> PluginResponse:
    """Ask for a KEK as a guest does: ``GET NAME?ct=…``."""
    request = PluginRequest(path=name.split("/"), query={"ct": ct(ciphertext)}, method="GET")
    return PluginResponse.FromString(send(channel, "Handle", request.SerializeToString()))


def ct(ciphertext: bytes) -> str:
    """Return a ciphertext as it stands in a query: base64url without padding."""
    return urlsafe_b64encode(ciphertext).rstrip(b"=").decode()


@contextmanager
def plugin_process(folder: Path, *flags: str, listen: str = "127.0.0.1:0") -> Iterator[Daemon]:
    """Run ``coco-kp kbs-plugin``, ready, while the block runs; its log in `LOG`."""
    command = [str(COCO_KP), "kbs-plugin", "--listen", listen, *flags]
    with daemon(command, folder / LOG) as running:
        plugin_address(running)
        yield running


def plugin_address(running: Daemon) -> str:
    """Return where a plugin listens."""
    ready = running.wait_until(lambda: READY.search(running.output()), "say that it is ready")
    return ready.group(1).rstrip(",")
