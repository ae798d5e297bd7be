"""Every command with every fault, one at a time, and what came of it."""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from coco_kp.cli.main import run as run_command
from tests.faults.calls import Call, number
from tests.faults.injector import Choose, Run, run
from tests.faults.scenarios import MARK, SCENARIOS, Arguments, Scenario, environment, write_base
from tests.faults.verdict import (
    IN_PLACE,
    KEPT,
    UNSURE,
    Failure,
    files,
    secrets_in,
    shape,
    unfinished,
    wrong_words,
)
from tests.sim.kbs import simulated_kbs
from tests.sim.registry import Registry, serve

LASTING: Final = {"ENOSPC", "EDQUOT", "EROFS", "EMFILE", "EIO", "EAGAIN"}
"""Errors that may also stay until the command ends: a full disk, a dead one, no more threads."""


REMOVING: Final = {"unlink", "unlinkat", "rmdir", "openat", "getdents", "newfstatat", "fstat"}
"""What removing a file, or a folder with all that is in it, takes."""


@dataclass(frozen=True)
class Fault:
    """The Nth such ``call`` of a scenario fails; with ``lasting`` all from there on that can."""

    scenario: int
    call: str
    number: int
    error: str
    lasting: bool = False

    def __str__(self) -> str:
        name = SCENARIOS[self.scenario].name
        lasting = " from there on" if self.lasting else ""
        return f"{name}: {self.call} ({self.number}): {self.error}{lasting}"


@dataclass(frozen=True)
class Outcome:
    """What came of a fault. ``wrong`` is empty where all was right."""

    fault: Fault
    call: str = ""
    ok: bool = False
    """Whether the command succeeded nevertheless."""
    left: bool = False
    """Whether unfinished files were left, which the next run removed."""
    wrong: tuple[str, ...] = ()
    run: Run = field(default=Run(0, "", ""))


class Worker:
    """Tries faults in a folder of its own; of a process that has no other threads."""

    def __init__(self, folder: Path, registry: str, kbs: str) -> None:
        self.here = folder / "here"
        self._folder = folder
        self._places = {
            "registry": registry,
            "kbs": kbs,
            "here": str(self.here),
        }
        self._number = itertools.count()
        self._shapes: dict[int, Counter[str]] = {}
        self._outs: dict[int, str] = {}

    def calls(self, scenario: int) -> list[Call]:
        """Return the system calls of a scenario without faults."""
        self._prepare(scenario)
        made: list[Call] = []

        def note(call: Call) -> int:
            made.append(call)
            return 0

        self._lay_out(scenario)
        self._must(SCENARIOS[scenario].command, note, SCENARIOS[scenario].stdin)
        return made

    def attempt(self, fault: Fault) -> Outcome:
        """Let a scenario's call fail, and judge."""
        scenario = SCENARIOS[fault.scenario]
        self._prepare(fault.scenario)
        self._lay_out(fault.scenario)
        before = files(self.here)
        failed: list[Call] = []
        numbers = itertools.count(1)

        def choose(call: Call) -> int:
            if failed:
                fails = fault.lasting and fault.error in call.errors
            else:
                fails = str(call) == fault.call and next(numbers) == fault.number
            if fails:
                failed.append(call)
            return number(fault.error) if fails else 0

        done = self._run(scenario.command, choose, scenario.stdin)
        if not failed:
            return Outcome(fault, ok=True)
        # What cannot be removed stays; then what was there must be as it was nevertheless.
        removable = not any(call.name in REMOVING for call in failed)
        wrong = list(self._judge(fault, failed[0], done, before, removable=removable))
        left = unfinished(self.here)
        wrong += self._judge_left(scenario, left, removable=removable)
        wrong += self._judge_next(fault.scenario, done, removable=removable)
        return Outcome(fault, str(failed[0]), done.code == 0, bool(left), tuple(wrong), done)

    def _judge(
        self, fault: Fault, call: Call, done: Run, before: dict[str, str], *, removable: bool
    ) -> Iterator[str]:
        scenario = SCENARIOS[fault.scenario]
        reason = os.strerror(number(fault.error)).lower()
        yield from wrong_words(done, Failure(str(call), reason), self.here)
        if _is_done(done):
            if scenario.shows and done.out != self._outs[fault.scenario]:
                yield "success, and another result"
            if scenario.verified and self._run(scenario.verified).code != 0:
                yield "success, and the result is wrong"
            return
        after = files(self.here)
        changed = [
            path
            for path in sorted(before.keys() | after.keys())
            if before.get(path) != after.get(path)
            and (removable or path in before)
            and not re.fullmatch(scenario.stays, path)
            and not (path not in after and re.fullmatch(scenario.goes, path))
            and not (path in scenario.fresh and KEPT in done.err)
        ]
        if changed:
            yield f"changed: {', '.join(sorted(shape(dict.fromkeys(changed, ''))))}"
        remote = "{registry}" in str(scenario.verified)
        if remote and UNSURE not in done.err and self._run(scenario.verified).code == 0:
            yield "failure, and the image is there"

    def _judge_left(
        self, scenario: Scenario, left: Sequence[str], *, removable: bool
    ) -> Iterator[str]:
        secrets = []
        if removable or not scenario.writes_key:
            secrets += [(self.here / name).read_bytes() for name in ("key", "new-key")]
        if scenario.secret:
            secrets.append(MARK)
        if with_secret := list(secrets_in(self.here, left, secrets)):
            yield f"secrets in what is left: {', '.join(shape(dict.fromkeys(with_secret, '')))}"
        if left and removable:
            yield f"left: {', '.join(shape(dict.fromkeys(left, '')))}"

    def _judge_next(self, index: int, done: Run, *, removable: bool) -> Iterator[str]:
        scenario = SCENARIOS[index]
        succeeded = _is_done(done)
        in_place = succeeded and IN_PLACE in done.err
        if succeeded or KEPT in done.err:
            for name in scenario.fresh:
                (self.here / name).unlink(missing_ok=True)
        command = scenario.again if succeeded and scenario.again else scenario.command
        following = self._run(command, stdin=scenario.stdin)
        if following.code != 0:
            yield f"the next run fails: {following.err}"
        elif scenario.verified and self._run(scenario.verified).code != 0:
            yield "the next run's result is wrong"
        if left := unfinished(self.here):
            yield f"left for good: {', '.join(shape(dict.fromkeys(left, '')))}"
        found = shape(files(self.here))
        if not scenario.stays and removable and not in_place and found != self._shapes[index]:
            more = found - self._shapes[index]
            less = self._shapes[index] - found
            yield f"after the next run too much {dict(more)}, too little {dict(less)}"

    def _prepare(self, index: int) -> None:
        """Make a scenario's template, and learn what it does without faults."""
        template = self._template(index)
        if template.exists():
            return
        shutil.rmtree(self.here, ignore_errors=True)
        self.here.mkdir(parents=True)
        write_base(self.here)
        self._name(index)
        for command in SCENARIOS[index].setup:
            self._must(command)
        shutil.copytree(self.here, template)
        self._warm_up(SCENARIOS[index])
        self._lay_out(index)
        scenario = SCENARIOS[index]
        self._outs[index] = self._must(scenario.command, stdin=scenario.stdin).out
        if scenario.verified:
            self._must(scenario.verified)
        self._shapes[index] = shape(files(self.here))

    def _warm_up(self, scenario: Scenario) -> None:
        """Let forks find imported what the commands import."""
        saved = dict(os.environ)
        os.environ.update(environment(self.here))
        with Path(os.devnull).open("w") as null:
            from contextlib import redirect_stderr, redirect_stdout

            with redirect_stdout(null), redirect_stderr(null):
                for command in (scenario.command, scenario.verified):
                    run_command(self._words(command))
        os.environ.clear()
        os.environ.update(saved)

    def _template(self, index: int) -> Path:
        return self._folder / f"template-{index}"

    def _lay_out(self, index: int) -> None:
        shutil.rmtree(self.here)
        shutil.copytree(self._template(index), self.here)
        self._name(index)

    def _name(self, index: int) -> None:
        """Choose names at the registry and the KBS, where several workers write."""
        self._places["own"] = f"{os.getpid()}-{index}"
        self._places["n"] = f"{os.getpid()}-{next(self._number)}"

    def _words(self, command: Arguments) -> list[str]:
        return [word.format(**self._places) for word in command]

    def _run(self, command: Arguments, choose: Choose | None = None, stdin: bytes = b"") -> Run:
        words = self._words(command)
        return run(lambda: run_command(words), self.here, environment(self.here), choose, stdin)

    def _must(self, command: Arguments, choose: Choose | None = None, stdin: bytes = b"") -> Run:
        done = self._run(command, choose, stdin)
        assert done.code == 0, (command, done)
        return done


def _is_done(run: Run) -> bool:
    """Return whether a command did what it is for; a new key that is in place is not all of it."""
    only_the_key = KEPT in run.err and f"' {IN_PLACE}" in run.err  # a file is quoted
    return run.code == 0 or (IN_PLACE in run.err and not only_the_key)


def faults(scenario: int, calls: Sequence[Call]) -> Iterator[Fault]:
    """Enumerate what can go wrong in a scenario that makes these calls."""
    made = Counter[str]()
    for call in calls:
        made[str(call)] += 1
        for error in call.errors:
            for lasting in (False, True) if error in LASTING else (False,):
                yield Fault(scenario, str(call), made[str(call)], error, lasting)


def sample(all_faults: Sequence[Fault], count: int) -> list[Fault]:
    """Choose ``count`` of them, always the same ones; those of a scenario follow each other."""
    drawn = sorted(all_faults, key=lambda fault: hashlib.sha256(str(fault).encode()).digest())
    return sorted(drawn[:count], key=lambda fault: fault.scenario)


_worker: Worker


def _start(folder: Path, registry: str, kbs: str) -> None:
    global _worker  # noqa: PLW0603 - a process has one
    own = folder / str(os.getpid())
    own.mkdir()
    _worker = Worker(own, registry, kbs)


def _calls(scenario: int) -> list[Call]:
    return _worker.calls(scenario)


def _attempt(fault: Fault) -> Outcome:
    return _worker.attempt(fault)


@contextmanager
def pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Yield processes for `enumerate_faults` and `outcomes`, with a registry and a KBS."""
    with ExitStack() as stack:
        memory = Path("/dev/shm")
        folder = stack.enter_context(
            TemporaryDirectory(prefix="faults-", dir=memory if memory.is_dir() else None)
        )
        registry = stack.enter_context(serve(Registry()))
        kbs = stack.enter_context(simulated_kbs())
        yield stack.enter_context(
            ProcessPoolExecutor(
                processes,
                multiprocessing.get_context("spawn"),
                _start,
                (Path(folder), registry, kbs.url),
            )
        )


def enumerate_faults(executor: ProcessPoolExecutor, chosen: Sequence[int]) -> list[Fault]:
    """Return all faults of the scenarios."""
    return [
        fault
        for scenario, calls in zip(chosen, executor.map(_calls, chosen), strict=True)
        for fault in faults(scenario, calls)
    ]


def outcomes(executor: ProcessPoolExecutor, chosen: Sequence[Fault]) -> Iterator[Outcome]:
    """Try the faults, in this order."""
    return executor.map(_attempt, chosen, chunksize=8)
