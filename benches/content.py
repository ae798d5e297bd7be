"""``verify`` of a real layer beside inflating and hashing its content alone, which nobody can save.

Both in processes of their own, in turn. ``python -m benches.content [--rounds N]`` prints wall and
processor seconds, and the ratio.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benches.peers import layer_files
from benches.real import write_libraries_image
from benches.throughput import MIB, machine, tmpfs, verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

COCO_KP: Final = Path(sys.executable).with_name("coco-kp")
MOST: Final = 1.1
"""How many times the processor time of inflating and hashing alone ``verify`` may take."""

ALONE: Final = """
import sys
from coco_kp.unpacking import ContentCheck, Unpacking
check = ContentCheck("gzip", "sha256", Unpacking())
with open(sys.argv[1], "rb") as file:
    while piece := file.read(1 << 18):
        check.update(piece)
check.finish()
"""


def seconds(command: Sequence[str | Path]) -> tuple[float, float]:
    """Run a command; return its wall and its processor time."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tmpfs() as folder:
        image = write_libraries_image(folder / "plain", compressed=True)
        (layer,) = layer_files(image)
        key = folder / "key"
        key.write_bytes(os.urandom(32))
        key.chmod(0o600)
        encrypted = f"oci:{folder}/encrypted"
        keys: list[str | Path] = ["--keypath", key]
        for_key: list[str | Path] = ["--keyid", "kbs:///default/key/bench", *keys]
        subprocess.run([COCO_KP, "-q", "encrypt", image.reference, encrypted, *for_key], check=True)
        commands: dict[str, list[str | Path]] = {
            "inflating and hashing alone": [sys.executable, "-c", ALONE, layer],
            "verify": [COCO_KP, "-q", "verify", encrypted, *keys],
            "verify --jobs 1": [COCO_KP, "-q", "verify", encrypted, "--jobs", "1", *keys],
            "verify --target coco": [COCO_KP, "-q", "verify", encrypted, "--target", "coco", *keys],
        }
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                taken[name].append(seconds(command))
        size, load = layer.stat().st_size // MIB, os.getloadavg()[0]
    print(f"{machine()}; {size} MiB of gzip; {rounds} rounds; load {load:.1f}\n")
    print("| | wall s | processor s | ratio | target | |\n|---|---|---|---|---|---|")
    alone = statistics.median(cpu for _, cpu in taken["inflating and hashing alone"])
    for name, runs in taken.items():
        wall, cpu = (statistics.median(values) for values in zip(*runs, strict=True))
        row = f"| {name} | {wall:.2f} | {cpu:.2f} | {cpu / alone:.2f} |"
        print(row, f"{MOST} | {verdict(cpu <= MOST * alone)} |" if name == "verify" else " | |")


if __name__ == "__main__":
    main()
