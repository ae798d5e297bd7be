"""``coco-kp bench``: how fast this machine seals and opens a layer, beside its own SHA-256.

SHA-256 is sequential, and every layer is named by one: no tool can be faster than one pass of it.
So each figure stands beside that pass over the same bytes, and the passes take turns, since the
machine may be doing other things meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from operator import truediv
from pathlib import Path

import click

from coco_kp.cli.output import print_json
from coco_kp.cli.output_options import FORMAT, verbosity
from coco_kp.crypto import LayerOpener, LayerSealer, kernel
from coco_kp.processors import processors

_MIB = 1 << 20
_ROUNDS = 5


@click.command("bench", short_help="Measure this machine's speed.")
@click.option(
    "--size", type=click.IntRange(1, 4096), default=256, show_default=True, help="MiB of a layer."
)
@FORMAT
@verbosity
def command(size: int, form: str) -> None:
    """Measure how fast layers are encrypted and decrypted here, beside this machine's SHA-256.

    Files lie in the temporary directory (TMPDIR); on a tmpfs no disk is in the way.
    """
    with tempfile.TemporaryDirectory(prefix="coco-kp-bench-") as folder:
        yardstick, cases = _measure(_Layers(Path(folder), size * _MIB))
    why = "COCO_KP_KERNEL" if "COCO_KP_KERNEL" in os.environ else "the fastest of this processor"
    if form == "json":
        print_json(
            {
                "kernel": kernel(),
                "sha256_bytes_per_second": round(yardstick),
                "cases": [
                    {"case": name, "bytes_per_second": round(speed), "ratio": round(ratio, 3)}
                    for name, speed, ratio in cases
                ],
            }
        )
        return
    click.echo(f"kernel {kernel()}: {why}")
    click.echo(f"{'SHA-256 (OpenSSL), one core':34}  {yardstick / 1e6:6.0f} MB/s")
    for name, speed, ratio in cases:
        click.echo(f"{name:34}  {speed / 1e6:6.0f} MB/s  {ratio:.2f} of it")


class _Layers:
    """Two layers in files, plain and sealed, and what can be done with them."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self.size = size
        block = os.urandom(_MIB)
        self._plain = [folder / "plain0", folder / "plain1"]
        for file in self._plain:
            with file.open("wb") as out:
                for _ in range(size // _MIB):
                    out.write(block)
        sealer = LayerSealer()
        self._sealed = folder / "sealed"
        with self._plain[0].open("rb") as source, self._sealed.open("wb") as target:
            sealer.pump(source, target)
        self._keys = sealer.finalize()

    def sha256(self) -> None:
        with self._plain[0].open("rb") as file:
            hashlib.file_digest(file, "sha256")

    def seal(self, threads: int, number: int = 0) -> None:
        sealer = LayerSealer()
        self._pump(sealer, self._plain[number], number, threads)
        sealer.finalize()

    def open(self, threads: int) -> None:
        keys = self._keys
        opener = LayerOpener(key=keys.key, nonce=keys.nonce, hmac=keys.hmac)
        self._pump(opener, self._sealed, 0, threads)
        opener.finalize()

    def seal_both(self) -> None:
        other = threading.Thread(target=self.seal, args=(1, 1))
        other.start()
        self.seal(1)
        other.join()

    def _pump(
        self, stream: LayerSealer | LayerOpener, file: Path, number: int, threads: int
    ) -> None:
        out = self._folder / f"out{number}"
        with file.open("rb") as source, out.open("wb") as target:
            stream.pump(source, target, threads=threads)
        out.unlink()


def _measure(layers: _Layers) -> tuple[float, list[tuple[str, float, float]]]:
    """Return SHA-256's speed, and each case's name, speed (bytes a second) and ratio to it.

    All take turns in each round; what is given are medians over the rounds, also of the ratios.
    """
    cases: dict[str, tuple[Callable[[], None], int]] = {
        "encrypt, file to file, one core": (lambda: layers.seal(1), 1),
        "decrypt, file to file, one core": (lambda: layers.open(1), 1),
    }
    if processors() > 1:
        cases |= {
            "encrypt one layer on two cores": (lambda: layers.seal(2), 1),
            "decrypt one layer on two cores": (lambda: layers.open(2), 1),
            "encrypt two layers, a core each": (layers.seal_both, 2),
        }
    yardsticks: list[float] = []
    speeds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(_ROUNDS):
        yardsticks.append(layers.size / _seconds(layers.sha256))
        for name, (work, count) in cases.items():
            speeds[name].append(count * layers.size / _seconds(work))
    return statistics.median(yardsticks), [
        (name, statistics.median(seen), statistics.median(map(truediv, seen, yardsticks)))
        for name, seen in speeds.items()
    ]


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
