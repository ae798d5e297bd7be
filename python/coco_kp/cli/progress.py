"""Progress of work on images: bars on a terminal, for what takes longer than half a second."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from coco_kp.cli.output import notice, quiet, tell_naming
from coco_kp.image.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_PATIENCE: Final = 0.5  # seconds before anything is shown
_NAME: Final = 19  # columns: linux/arm64/v8 9/12
_WIDE: Final = 80  # columns


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
        self._verb = "reading"
        self._then = ""
        self._ended = False
        self._names: dict[str, str] = {}
        self._timer = threading.Timer(_PATIENCE, self._begin)
        self._timer.daemon = True
        self._sizes: dict[str, int] = {}
        self._moved: dict[str, int] = {}

    def expect(self, size: int, verb: str, names: Mapping[str, str], then: str = "") -> None:
        """Add to the bytes that there are to move in all."""
        with self._lock:
            self._expected += size
            self._verb, self._then, self._ended = verb, then, False
            self._names.update(names)

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
            self._ended = True
            if self._bars and not self._moved:
                self._show_total()

    def naming(self) -> None:
        """Remember it, for what an interrupt is told."""
        tell_naming()

    def notice(self, text: str) -> None:
        """Print it on stderr, above the bars."""
        notice(text)

    def __enter__(self) -> Self:
        if self._wanted:
            with contextlib.suppress(RuntimeError):  # no thread is to be had: later, then
                self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._wanted = False
            if self._bars:
                self._bars.stop()

    def _begin(self) -> None:
        """Show that there is work, before there is a byte to count: a registry may be slow."""
        with self._lock:
            if self._wanted:
                self._show_total()

    def _show_total(self) -> Bars:
        if self._bars is None:
            self._bars = _bars()
            self._bars.start()
            self._total = self._bars.add_task(self._verb, total=None)
        assert self._total is not None  # noqa: S101 (made with the bars)
        self._bars.update(
            self._total,
            description=self._doing(),
            completed=self._done,
            total=self._expected or None,
        )
        return self._bars

    def _doing(self) -> str:
        """Return what is done: where no layer is worked on, those that were are on their way."""
        return self._then if self._then and self._ended and not self._moved else self._verb

    def _show(self, name: str) -> None:
        bars = self._show_total()
        if name not in self._tasks:
            shown = self._names.get(name) or name.partition(":")[2][:12] or name
            self._tasks[name] = bars.add_task(shown[-_NAME:], total=self._sizes[name])
        bars.update(self._tasks[name], completed=self._moved[name])


def _bars() -> Bars:
    from rich import progress as rich
    from rich.console import Console

    console = Console(stderr=True)
    columns: list[rich.ProgressColumn] = [
        rich.TextColumn("{task.description}"),
        rich.BarColumn(4 if console.width < _WIDE else 30),
        rich.DownloadColumn(binary_units=True),
        rich.TimeRemainingColumn(compact=True),
    ]
    return rich.Progress(*columns, console=console, transient=True)
