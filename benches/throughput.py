"""How fast layers are sealed and opened here, beside this machine's own SHA-256.

SHA-256 is sequential, so no tool can name a blob faster than ``openssl dgst -sha256`` reads it.
Each figure is a ratio to that command on the same file in the same round. Rounds are interleaved,
so that what else the machine does falls on all alike. Files lie on tmpfs.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benches.machine import MIB, machine, tmpfs, warm
from benches.series import verdict
from coco_kp import _native

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PIECE = MIB
SIZE = 1024 * MIB
ROUNDS = 7
MEMORY_LAYER = 10 << 30
MEMORY_LIMIT = 96 * MIB


@dataclass(frozen=True)
class Case:
    """One row: what is done, how many layers at once, and the ratio that it must reach."""

    name: str
    target: float
    layers: int
    run: Callable[[], None]


@dataclass(frozen=True)
class Row:
    """A case as it was measured: ratios to SHA-256, of all layers together."""

    name: str
    median: float
    best: float
    target: float

    @property
    def met(self) -> bool:
        return self.median >= self.target


class Bench:
    """The files of a run, and the cases over them."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size
        self.key, self.nonce = os.urandom(32), os.urandom(16)
        block = os.urandom(PIECE)
        for number in (0, 1):
            with self._plain(number).open("wb") as file:
                for _ in range(size // PIECE):
                    file.write(block)
            with self._plain(number).open("rb") as src, self._sealed(number).open("wb") as dst:
                sealer = _native.LayerSealer(key=self.key, nonce=self.nonce)
                sealer.pump(src, dst)
                self.hmac = sealer.finalize().hmac
        self.plaintext = self._plain(0).read_bytes()
        self.ciphertext = self._sealed(0).read_bytes()
        self.target = bytearray(size)

    def cases(self) -> Iterator[Case]:
        memory, one, two, both = (
            "1 core, memory to memory",
            "1 core",
            "2 cores, 1 layer",
            "2 layers",
        )
        yield Case(f"seal: {memory}", 0.48, 1, lambda: self._memory(self.plaintext, self._sealer()))
        yield Case(
            f"open: {memory}", 0.48, 1, lambda: self._memory(self.ciphertext, self._opener())
        )
        yield Case(f"seal: {one}, file to file", 0.40, 1, lambda: self._seal(threads=1))
        yield Case(f"open: {one}, file to file", 0.40, 1, lambda: self._open(threads=1))
        yield Case(f"seal: {two}, file to file", 0.62, 1, lambda: self._seal(threads=2))
        yield Case(f"open: {two}, file to file", 0.62, 1, lambda: self._open(threads=2))
        yield Case(f"seal: 2 cores, {both}, file to file", 0.76, 2, lambda: self._pair(self._seal))
        yield Case(f"open: 2 cores, {both}, file to file", 0.76, 2, lambda: self._pair(self._open))

    def openssl(self) -> None:
        command = ["openssl", "dgst", "-sha256", str(self._plain(0))]
        subprocess.run(command, check=True, capture_output=True)

    def _plain(self, number: int) -> Path:
        return self.folder / f"plain{number}"

    def _sealed(self, number: int) -> Path:
        return self.folder / f"sealed{number}"

    def _sealer(self) -> _native.LayerSealer:
        return _native.LayerSealer(key=self.key, nonce=self.nonce)

    def _opener(self) -> _native.LayerOpener:
        return _native.LayerOpener(key=self.key, nonce=self.nonce, hmac=self.hmac)

    def _memory(self, data: bytes, stream: _native.LayerSealer | _native.LayerOpener) -> None:
        src, dst = memoryview(data), memoryview(self.target)
        for start in range(0, len(data), PIECE):
            stream.update_into(src[start : start + PIECE], dst[start : start + PIECE])
        stream.finalize()

    def _seal(self, number: int = 0, threads: int = 1) -> None:
        self._pump(self._plain(number), self._sealer(), number, threads)

    def _open(self, number: int = 0, threads: int = 1) -> None:
        self._pump(self._sealed(number), self._opener(), number, threads)

    def _pump(
        self,
        source: Path,
        stream: _native.LayerSealer | _native.LayerOpener,
        number: int,
        threads: int,
    ) -> None:
        target = self.folder / f"target{number}"
        with source.open("rb") as src, target.open("wb") as dst:
            stream.pump(src, dst, threads=threads)
        stream.finalize()
        target.unlink()

    def _pair(self, work: Callable[[int], None]) -> None:
        workers = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()


def measure(size: int, rounds: int, folder: Path) -> list[Row]:
    """Run every case and the yardstick in turn, ``rounds`` times after one to warm up."""
    bench = Bench(folder, size)
    cases = list(bench.cases())
    ratios: dict[str, list[float]] = {case.name: [] for case in cases}
    for round_number in range(rounds + 1):
        yardstick = _seconds(bench.openssl)
        for case in cases:
            warm(folder, case.layers * size)
            ratio = case.layers * yardstick / _seconds(case.run)
            if round_number:
                ratios[case.name].append(ratio)
    return [
        Row(case.name, statistics.median(seen), max(seen), case.target)
        for case in cases
        for seen in [ratios[case.name]]
    ]


def peak_memory(folder: Path) -> int:
    """Seal a sparse layer of 10 GiB in a process of its own; give its peak in bytes."""
    sparse = folder / "sparse"
    with sparse.open("wb") as file:
        file.truncate(MEMORY_LAYER)
    code = (
        "import os, sys; from pathlib import Path; from coco_kp._native import LayerSealer;"
        "src = os.open(sys.argv[1], os.O_RDONLY); dst = os.open('/dev/null', os.O_WRONLY);"
        "sealer = LayerSealer(); sealer.pump(src, dst, threads=2); sealer.finalize();"
        "print(Path('/proc/self/status').read_text())"
    )
    command = [sys.executable, "-c", code, str(sparse)]
    status = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    sparse.unlink()
    peak = re.search(r"VmHWM:\s*(\d+) kB", status)
    assert peak is not None
    return int(peak[1]) * 1024


def main() -> None:
    """Print the table and the same as a chart."""
    size, rounds = SIZE, ROUNDS
    print(f"{machine()}; kernel {_native.kernel()}; {size // MIB} MiB, {rounds} rounds\n")
    print("| case | median | best | target | |\n|---|---|---|---|---|")
    with tmpfs() as folder:
        rows = measure(size, rounds, folder)
        for row in rows:
            print(
                f"| {row.name} | {row.median:.2f} | {row.best:.2f} | {row.target:.2f} |"
                f" {verdict(row.met)} |"
            )
        peak = peak_memory(folder)
    met = verdict(peak <= MEMORY_LIMIT)
    limit = MEMORY_LIMIT // MIB
    print(f"| peak memory, 10 GiB layer, MiB | {peak // MIB} | | {limit} | {met} |\n")
    print(chart(rows))


def chart(rows: list[Row]) -> str:
    """Draw a bar a row: its median, and a mark at its target. A full line is twice SHA-256."""
    width = 60
    lines = []
    for row in rows:
        bar = "█" * min(width, round(row.median / 2 * width))
        mark = round(row.target / 2 * width)
        line = bar.ljust(width)
        line = line[:mark] + "│" + line[mark + 1 :]
        lines.append(f"{row.name:42} {line.rstrip()} {row.median:.2f}")
    return "\n".join(lines)


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
