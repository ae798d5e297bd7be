"""A registry at a time: what plans, and runs that find nothing to do, cost by images and workers.

The registry makes up its images (:mod:`.endless_registry`), in a process of its own on the same
processors. ``plan`` lists the catalogue and all tags, and reads each manifest; ``run`` proves of
each image, from its manifest and that of its encrypted copy, that nothing is left to do;
``inspect`` reads each manifest once, and asks whether the tag still points to it.

``python -m benches.fleet [--most IMAGES] [--output FOLDER]`` prints a table and writes
``fleet.json`` and ``fleet.svg``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import urllib3
from tests.support.provider import COCO_KP

from benches.chart import bar_chart
from benches.endless_registry import KID
from benches.machine import MIB, machine
from benches.series import Series

SIZES: Final = (100, 1_000, 10_000)
WORKERS: Final = (1, 2, 4, 8)
_PLAIN: Final = ("--src-tls-verify=false", "--dest-tls-verify=false")


@dataclass(frozen=True)
class Row:
    """One command on so many images, by so many workers, and what it asked of the registry."""

    command: str
    images: int
    workers: int
    took: Series
    seen: dict[str, int]

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / self.took.best

    def cells(self) -> list[str]:
        """Return it as a table has it."""
        return [
            self.command,
            f"{self.images:,}",
            str(self.workers),
            f"{self.took.best:.1f}",
            f"{self.rate:,.0f}",
            f"{1000 * self.took.processor_median / self.images:.2f}",
            f"{sum(self.seen.values()) / self.images:.2f}",
            f"{self.took.memory / MIB:.0f}",
        ]

    def to_json(self) -> dict[str, object]:
        """Return all figures."""
        return {
            "command": self.command,
            "images": self.images,
            "workers": self.workers,
            "requests": self.seen,
            **self.took.to_json(),
        }


HEADINGS: Final = (
    *("command", "images", "workers", "seconds", "images/s", "processor ms an image"),
    *("requests an image", "memory, MiB"),
)


class Registry:
    """The registry's process, and commands on its images."""

    def __init__(self, host: str, images: int, key: Path, folder: Path) -> None:
        self._host = host
        self._images = images
        self._key = key
        self._plan = folder / f"plan-{images}.jsonl"
        self._results = folder / "results.jsonl"

    def plan(self, workers: int, action: str = "encrypt") -> Row:
        """Plan all images."""
        more = [
            *("--to", f"docker://{self._host}/sealed/{{repository}}:{{tag}}"),
            *("--recipient", f"keyid={KID},keypath={self._key}"),
        ]
        return self._row(
            f"plan {action}" if action != "encrypt" else "plan",
            workers,
            *("fleet", "plan", f"docker://{self._host}", "--action", action, "-o", self._plan),
            *("--jobs", str(workers), "--tls-verify=false", *(more if action == "encrypt" else [])),
        )

    def run(self, workers: int, name: str, outcome: str) -> Row:
        """Run the plan, which must come to one ``outcome`` for all images."""
        self._results.unlink(missing_ok=True)
        row = self._row(
            name,
            workers,
            *("fleet", "run", self._plan, "--jobs", str(workers), *_PLAIN),
            *("--results", self._results),
        )
        with self._results.open() as lines:
            outcomes = [json.loads(line)["outcome"] for line in lines]
        assert outcomes == [outcome] * self._images, set(outcomes)
        return row

    def _row(self, name: str, workers: int, *words: str | Path) -> Row:
        self._seen()
        took = Series()
        took.run([COCO_KP, *words], {**os.environ, "HOME": str(self._plan.parent)})
        return Row(name, self._images, workers, took, self._seen())

    def _seen(self) -> dict[str, int]:
        seen: dict[str, int] = urllib3.request("GET", f"http://{self._host}/seen").json()
        return seen


@contextmanager
def registry(images: int, folder: Path) -> Iterator[Registry]:
    """Run the registry while the block runs."""
    key = folder / "kek"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    command = [sys.executable, "-m", "benches.endless_registry", "--images", str(images)]
    with subprocess.Popen(
        [*command, "--key", key], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Registry(process.stdout.readline().strip(), images, key, folder)
        finally:
            process.stdin.close()


def measure(most: int) -> Iterator[Row]:
    """Measure by images with the workers that do best, and by workers with the images between."""
    with tempfile.TemporaryDirectory() as folder:
        for size in (size for size in SIZES if size <= most):
            with registry(size, Path(folder)) as images:
                for workers in WORKERS if size == SIZES[1] else WORKERS[2:3]:
                    yield images.plan(workers)
                    yield images.run(workers, "run", "unchanged")
                if size == SIZES[-1]:
                    images.plan(WORKERS[2], "inspect")
                    yield images.run(WORKERS[2], "inspect", "done")


def main() -> None:
    """Measure, print the table and write the files."""
    parser = argparse.ArgumentParser(description="plans and runs over a whole registry")
    parser.add_argument("--most", type=int, default=SIZES[-1], help="images at the most")
    parser.add_argument("--output", type=Path, default=Path("target/benches"))
    chosen = parser.parse_args()
    print(f"{machine()}\n")
    print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}", flush=True)
    rows = []
    for row in measure(chosen.most):
        rows.append(row)
        print(f"| {' | '.join(row.cells())} |", flush=True)
    chosen.output.mkdir(parents=True, exist_ok=True)
    found = json.dumps([row.to_json() for row in rows], indent=1)
    (chosen.output / "fleet.json").write_text(found)
    measured = [(plan, run) for plan, run in pairwise(rows) if plan.command == "plan"]
    bars = [
        (f"{plan.images:,} images, --jobs {plan.workers}", plan.rate, run.rate)
        for plan, run in measured
    ]
    chart = bar_chart("images a second", ("plan", "run, unchanged"), bars)
    (chosen.output / "fleet.svg").write_text(chart)


if __name__ == "__main__":
    main()
