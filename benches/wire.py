"""How much of a link of 1 Gbit/s to a registry is used, for one layer and for many.

``python -m benches.wire`` runs itself in a network namespace of its own (``unshare``, which most
systems let everybody do), whose loopback carries 1 Gbit/s (``tc``, token bucket): both directions
share it, which downloads and uploads hardly notice. What the wire carries is measured by a bare
socket in the same namespace; each command's time is the whole one, from its start on.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from typing import Final

from tests.peers.debian import debian_bin
from tests.peers.registry import registry
from tests.support.provider import COCO_KP

from benches.layers import random_image
from benches.machine import MIB, machine, tmpfs
from benches.series import Series, verdict

LEAST: Final = 0.95
ROUNDS: Final = 3
IMAGES: Final = ((1, 512), (64, 8))  # layers, and MiB of each


def main() -> None:
    """Measure in a namespace with such a link, and print the table."""
    if "shaped" not in sys.argv:
        enter = ["unshare", "--map-root-user", "--net", sys.executable, "-m", "benches.wire"]
        sys.stdout.flush()
        subprocess.run([*enter, "shaped"], check=True)
        return
    for command in (
        "ip link set lo up",
        "tc qdisc add dev lo root tbf rate 1gbit burst 256kb latency 50ms",
    ):
        subprocess.run(command.split(), check=True)
    with tmpfs() as folder, ExitStack() as stack:
        storage = folder / "registry"
        storage.mkdir()
        host = stack.enter_context(registry(debian_bin() / "docker-registry", storage))
        key = folder / "key"
        key.write_bytes(os.urandom(32))
        key.chmod(0o600)
        print(f"{machine()}; {ROUNDS} rounds\n")
        print("| | image | s | MB/s | of the wire | target | |\n|---|---|---|---|---|---|---|")
        for count, each in IMAGES:
            kind, size = random_image(count, each), count * each * MIB
            name, image = kind.name, kind.make(folder / "image")
            wire = statistics.median(bare(size) for _ in range(ROUNDS))
            print(f"| bare socket | {name} | {wire:.2f} | {size / wire / 1e6:.0f} | 1.00 | | |")
            there, target = f"docker://{host}/bench/app:1", f"oci:{folder}/target"
            keys = ["--keypath", str(key)]
            commands = {
                "encrypt": [image.reference, there, "--keyid", "kbs:///default/key/b", *keys],
                "decrypt": [there, target, *keys],
            }
            taken = {operation: Series() for operation in commands}
            for _ in range(ROUNDS):
                for operation, arguments in commands.items():
                    plain = f"--{'dest' if operation == 'encrypt' else 'src'}-tls-verify=false"
                    taken[operation].run([COCO_KP, "-q", operation, *arguments, plain])
                shutil.rmtree(folder / "target")
                shutil.rmtree(storage / "storage/docker")
            for operation, series in taken.items():
                median = series.median
                print(
                    f"| {operation} | {name} | {median:.2f} | {size / median / 1e6:.0f} "
                    f"| {wire / median:.2f} | {LEAST} | {verdict(wire / median >= LEAST)} |",
                    flush=True,
                )
            shutil.rmtree(image.folder)


def bare(size: int) -> float:
    """Return the seconds that so many bytes take from one socket to another."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.perf_counter()
        sender = threading.Thread(target=_send, args=(server.getsockname(), size))
        sender.start()
        connection, _ = server.accept()
        with connection:
            while connection.recv(1 << 18):
                pass
        sender.join()
        return time.perf_counter() - began


def _send(address: tuple[str, int], size: int) -> None:
    piece = bytes(MIB)
    with socket.create_connection(address) as connection:
        for _ in range(size // MIB):
            connection.sendall(piece)


if __name__ == "__main__":
    main()
