"""Where fetched peers are kept: ``.cache/peers`` in the tree, each entry whole or not there."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

CACHE = Path(__file__).parents[2] / ".cache" / "peers"

RECIPE = ".recipe"
"""The file in an entry that says what it was made from."""


class PeerUnavailableError(Exception):
    """A peer cannot be had on this machine; the text says why and what would help."""


def is_cached(name: str, recipe: str) -> bool:
    """Return whether the entry is there, made from this recipe."""
    try:
        return (CACHE / name / RECIPE).read_text() == recipe
    except OSError:
        return False


def cached(name: str, recipe: str, make: Callable[[Path], None]) -> Path:
    """Return the folder ``name`` of the cache, made by ``make(folder)`` where it is not there yet.

    An entry that was made from another ``recipe`` (versions, list of programs, sources) is made
    anew. One process makes it while others wait. It is made under another name and renamed when it
    is whole, so that an interrupted run leaves nothing that looks like a peer; whatever is made
    must therefore bear being moved to its place.
    """
    entry = CACHE / name
    if is_cached(name, recipe):
        return entry
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_cached(name, recipe):
            unfinished = CACHE / f".{name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            try:
                make(unfinished)
                (unfinished / RECIPE).write_text(recipe)
                shutil.rmtree(entry, ignore_errors=True)
                unfinished.rename(entry)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return entry


def run(
    command: Sequence[str | Path], env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> str:
    """Run a command that fetches or builds a peer and return its output.

    Raises `PeerUnavailableError` with the end of what it printed where it cannot be run or fails.
    """
    try:
        done = subprocess.run(
            command,
            env=env,
            cwd=cwd,
            text=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise PeerUnavailableError(f"cannot run {command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        last_words = "\n".join((done.stdout + done.stderr).splitlines()[-5:])
        raise PeerUnavailableError(f"{command[0]} exited {done.returncode}:\n{last_words}")
    return done.stdout
