"""Whether a command did right when a system call failed."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.faults.injector import Run

CONTRACT: Final = {0, 2, 3, 4, 5, 6, 7, 8}
"""The exit codes of docs/cli.md but for a bug's and an interruption's."""

IN_PLACE: Final = "is in place"
UNSURE: Final = "may be in place"
"""What a command says where a registry took a request whose answer nobody could read."""
KEPT: Final = "is kept in"
"""What a command says of a new key file that must stay, for others may know the key by now."""

_UNFINISHED: Final = re.compile(r"(.*/)?(\.coco-kp-[0-9a-f]{16}(/.*)?|\..*\.[0-9a-f]{16}\.tmp)")
_RANDOM: Final = re.compile(r"[0-9a-f]{16,}")

Files = Mapping[str, str]
"""Paths under a folder, and a digest of each file's content (``/`` for a folder)."""


def files(here: Path) -> dict[str, str]:
    """Return all that is in a folder, but for what is unfinished."""
    return {
        path: "/" if (here / path).is_dir() else _digest(here / path)
        for path in _paths(here)
        if not _UNFINISHED.fullmatch(path)
    }


def unfinished(here: Path) -> list[str]:
    """Return what is in a folder that a command should have removed."""
    return [path for path in _paths(here) if _UNFINISHED.fullmatch(path)]


def shape(found: Files) -> Counter[str]:
    """Count the files by what their names have that is not random, nor a digest."""
    return Counter(_RANDOM.sub("*", path) for path in found)


def _paths(here: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(here):
        for name in (*folders, *names):
            yield str((Path(folder) / name).relative_to(here))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Failure:
    """The system call that failed, and why."""

    call: str
    reason: str


def wrong_words(run: Run, failure: Failure, here: Path) -> Iterator[str]:
    """Find what is wrong with how a command ended."""
    if run.code not in CONTRACT:
        yield f"exit code {run.code}"
    if "Traceback" in run.err or "this is a bug" in run.err or "unexpected error" in run.err:
        yield "a traceback or a bug"
    if run.code:
        if not run.err.startswith("coco-kp: "):
            yield "no error of coco-kp's form"
        if failure.call.startswith(("clone", "socket")):
            return
        if str(here) not in run.err and "http://" not in run.err:
            yield "the error names no file, nor an address"
        # What could not be looked at is used, and may not be there; access(2) tells no reason.
        absent = (
            failure.call.startswith(("newfstatat", "access")) and "no such file" in run.err
        ) or "is not writable" in run.err
        if failure.reason not in run.err.lower() and not absent:
            yield "the error does not say why"


def secrets_in(here: Path, paths: Sequence[str], secrets: Sequence[bytes]) -> Iterator[str]:
    """Find files that hold one of the secrets."""
    for path in paths:
        file = here / path
        if file.is_file():
            content = file.read_bytes()
            if any(secret in content for secret in secrets):
                yield path
