"""Runs the commands of a case in a folder of its own, and checks what they did."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.cases.case import Case, read_case
from tests.cases.commands import Result
from tests.cases.outcome import Outcome, check_one, read_outcomes
from tests.sim.http_server import Request
from tests.sim.registry import Registry, serve

FILE_LIMIT: Final = 512 << 20
"""No command may write a file beyond this, in bytes."""

OURS: Final = re.compile(
    r"COCO_KP_|DOCKER_|REGISTRY_AUTH|OCICRYPT_|.*_proxy$|XDG_|PYTHON", re.IGNORECASE
)
"""Variables of this process that must not reach a command."""


@dataclass(frozen=True)
class Run:
    """What the commands of a case did."""

    outcomes: Sequence[Outcome]
    results: Sequence[Result]
    seen: Sequence[Request]
    """What the case's registry was asked."""

    def check(self) -> None:
        """Raise CaseDiffersError, with what differs, unless it is what the case expects."""
        check_one(self.outcomes, self.results, self.seen)


def run_case(source: Path, folder: Path, program: Path) -> Run:
    """Run the case in ``source`` with a copy of its files, all in the empty ``folder``."""
    case = read_case(source)
    for name in ("out", "home", "tmp", "run", "work"):
        (folder / name).mkdir()
    copy = folder / "case"
    shutil.copytree(source, copy, symlinks=True)
    for file in copy.rglob("*"):
        if file.name.startswith("kek") or file.suffix == ".key":
            file.chmod(0o600)
    places = {"case": str(copy), "out": str(folder / "out")}
    registry = Registry()
    with ExitStack() as stack:
        if case.registry is not None:
            registry = case.registry.load(copy)
            places["registry"] = stack.enter_context(serve(registry))
        for name in case.templates:
            template = copy / name
            template.write_text(_fill(template.read_text("utf-8"), places), "utf-8")
        outcomes = read_outcomes(_fill(case.expect, places))
        environment = _environment(case, folder, places)
        results = [
            _run([str(program), *_fill(words[1:], places)], folder, environment, case.seconds)
            for words in case.commands
        ]
    return Run(outcomes, results, registry.seen)


def _environment(case: Case, folder: Path, places: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not OURS.match(name)}
    home = folder / "home"
    return kept | {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_STATE_HOME": str(home / ".state"),
        "XDG_RUNTIME_DIR": str(folder / "run"),
        "TMPDIR": str(folder / "tmp"),
        "NO_COLOR": "1",
        "LC_ALL": "C.UTF-8",
        **_fill(case.env, places),
    }


def _run(
    argv: Sequence[str], folder: Path, environment: Mapping[str, str], seconds: float
) -> Result:
    before = _cpu()
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder / "work",
        env=environment,
        umask=0o022,
        start_new_session=True,
    ) as process:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (FILE_LIMIT, FILE_LIMIT))
        late = False
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            late = True
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
    return Result(
        argv=argv,
        code=None if late else process.returncode,
        out=_text(out, folder),
        err=_text(err, folder),
        cpu=_cpu() - before,
        limit=seconds,
    )


def _text(output: bytes, folder: Path) -> str:
    """Return what a command printed, without its folder: a case's name there is no word of it."""
    return output.decode(errors="surrogateescape").replace(str(folder), "")


def _cpu() -> float:
    """Return the processor time of this process's children that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _fill(value: Any, places: Mapping[str, str]) -> Any:
    """Fill the placeholders in all texts of a JSON value."""
    match value:
        case str():
            for name, text in places.items():
                value = value.replace(f"{{{name}}}", text)
            return value
        case list():
            return [_fill(item, places) for item in value]
        case dict():
            return {name: _fill(item, places) for name, item in value.items()}
        case _:
            return value
