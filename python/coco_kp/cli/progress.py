"""Progress of work on images: bars on a terminal, for what takes longer than half a second."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from coco_kp.cli.output import notice, quiet, tell_naming
from coco_kp.image.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_PATIENCE: Final = 0.5  # seconds before anything is shown


class ProgressBars(Progress):
    """Shows a bar for all bytes, and one for each layer that is worked on. A context manager."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted and sys.stderr.isatty() and not quiet()
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._bars: Bars | None = None
        self._total: TaskID | None = None
        self._tasks: dict[str, TaskID] = {}
        self._expected = 0
        self._done = 0
        self._sizes: dict[str, int] = {}
        self._moved: dict[str, int] = {}

    def expect(self, size: int) -> None:
        """Add to the bytes that there are to move in all."""
        with self._lock:
            self._expected += size

    def begin(self, name: str, size: int) -> None:
        """Begin a layer's bar."""
        with self._lock:
            self._sizes[name], self._moved[name] = size, 0

    def advance(self, name: str, count: int) -> None:
        """Let the bars grow."""
        if not self._wanted:
            return
        with self._lock:
            self._done += count
            self._moved[name] += count
            if time.monotonic() - self._started > _PATIENCE:
                self._show(name)

    def end(self, name: str) -> None:
        """Take a layer's bar away."""
        with self._lock:
            self._sizes.pop(name, None)
            self._moved.pop(name, None)
            task = self._tasks.pop(name, None)
            if self._bars and task is not None:
                self._bars.remove_task(task)

    def naming(self) -> None:
        """Remember it, for what an interrupt is told."""
        tell_naming()

    def notice(self, text: str) -> None:
        """Tell it on stderr, above the bars."""
        notice(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars:
            self._bars.stop()

    def _show(self, name: str) -> None:
        if self._bars is None:
            self._bars = _bars()
            self._bars.start()
            self._total = self._bars.add_task("all", total=self._expected)
        if name not in self._tasks:
            short = name.partition(":")[2][:12] or name
            self._tasks[name] = self._bars.add_task(short, total=self._sizes[name])
        self._bars.update(self._tasks[name], completed=self._moved[name])
        assert self._total is not None  # noqa: S101 (made with the bars)
        self._bars.update(self._total, completed=self._done, total=self._expected)


def _bars() -> Bars:
    from rich import progress as rich
    from rich.console import Console

    return rich.Progress(
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.DownloadColumn(binary_units=True),
        rich.TransferSpeedColumn(),
        rich.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
