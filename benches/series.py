"""Measurements of one thing, and how several things are measured in turn."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benches.machine import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

TIMED: Final = Path(__file__).with_name("timed.py")


@dataclass
class Series:
    """Seconds that one thing took, seconds of processors of the processes it began, and the most
    memory that one of them had, in bytes, where it is a command."""

    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    memory: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def best(self) -> float:
        return min(self.seconds)

    @property
    def processor_median(self) -> float:
        return statistics.median(self.processor)

    def time(self, work: Callable[[], object]) -> None:
        """Do the work once more."""
        began, used = time.perf_counter(), _used_by_children()
        work()
        self.seconds.append(time.perf_counter() - began)
        self.processor.append(_used_by_children() - used)

    def run(self, command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> None:
        """Run the command once more; what it prints goes nowhere but its errors."""
        done = subprocess.run(
            [sys.executable, "-I", "-S", TIMED, *command],
            env=env,
            stdout=subprocess.PIPE,
            check=True,
        )
        took = json.loads(done.stdout)
        assert took["code"] == 0, command
        self.seconds.append(took["seconds"])
        self.processor.append(took["processor"])
        self.memory = max(self.memory, took["memory"])

    def to_json(self) -> dict[str, object]:
        """Return all figures."""
        return {
            "median": self.median,
            "best": self.best,
            "seconds": self.seconds,
            "processor": self.processor,
            "peak_memory": self.memory,
        }


def _used_by_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def in_turn(cases: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Series]:
    """Measure all cases, each round every one, after a tenth of the rounds to warm up."""
    series = {name: Series() for name in cases}
    for number in range(-(rounds // 10) - 1, rounds):
        for name, work in cases.items():
            (series[name] if number >= 0 else Series()).time(work)
    return series


def figures(series: Series | None) -> str:
    """Return a cell of a table: seconds, of processors, and MiB of memory."""
    if series is None:
        return ""
    return f"{series.median:.2f} / {series.processor_median:.2f} / {series.memory // MIB}"


def verdict(met: bool) -> str:
    """Say whether a target was met."""
    return "met" if met else "MISSED"
