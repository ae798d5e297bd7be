"""Each transcript of this folder, as it stands: in this process, and some by the real command."""

from __future__ import annotations

import io
import logging
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest
import trustme

from coco_kp.cli.commands import root
from coco_kp.cli.main import run
from tests.cli.transcript import Step, matches, read_transcript
from tests.sim.http_server import BreakOff, Request
from tests.sim.registry import Registry, serve
from tests.support.cli_options import CONTEXT, options
from tests.support.image import tar, write_image

HERE = Path(__file__).parent
TRANSCRIPTS = sorted(HERE.glob("*.txt"))
BY_THE_REAL_COMMAND = ["keyprovider.txt", "usage.txt"]
COCO_KP = Path(sys.executable).with_name("coco-kp")


@pytest.fixture(autouse=True)
def _logs_restored() -> Iterator[None]:
    logger = logging.getLogger("coco_kp")
    before = logger.handlers[:], logger.propagate, logger.level
    yield
    logger.handlers[:], logger.propagate = before[0], before[1]
    logger.setLevel(before[2])


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript_matches_output_in_this_process(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def execute(step: Step) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(step.stdin)))
        code = run(step.arguments)
        return (code, *capsys.readouterr())

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    replay(path, tmp_path, execute)


@pytest.mark.parametrize("name", BY_THE_REAL_COMMAND)
def test_transcript_matches_output_of_installed_command(name: str, tmp_path: Path) -> None:
    def execute(step: Step) -> tuple[int, str, str]:
        done = subprocess.run(
            [COCO_KP, *step.arguments],
            input=step.stdin,
            cwd=tmp_path,
            capture_output=True,
            check=False,
            timeout=60,
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    replay(HERE / name, tmp_path, execute)


def replay(path: Path, folder: Path, execute: Callable[[Step], tuple[int, str, str]]) -> None:
    """Take the steps of a transcript in a folder, and compare all that is seen of them."""
    transcript = read_transcript(path)
    for file, (content, file_mode) in transcript.files.items():
        (folder / file).write_bytes(content)
        (folder / file).chmod(file_mode)
    for image in transcript.images:
        write_image(folder / image, [tar({"etc/motd": b"hello"})])
    assert transcript.steps
    with ExitStack() as stack:
        addresses = {
            name: stack.enter_context(registry(how)) for name, how in transcript.registries.items()
        }
        for step in transcript.steps:
            compare(step.naming(addresses), folder, execute)


def registry(how: list[str]) -> AbstractContextManager[str]:
    """Run a registry as the transcript wants it, and give its address."""
    tls = None
    if "tls" in how:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    running = Registry(basic=("user", "secret") if "login" in how else None)
    if {"lossy", "dead"} & set(how):
        running.faults.append(lambda request: _unanswered(running, request, dead="dead" in how))
    return serve(running, tls=tls)


def _unanswered(running: Registry, request: Request, *, dead: bool) -> BreakOff | None:
    """Move a tag without an answer; one that is ``dead`` does not tell either what has become."""
    tag = re.search(r"/manifests/[^:]+$", request.path) is not None
    if tag and request.method == "PUT":
        running.route(request)
    return BreakOff() if tag and (dead or request.method == "PUT") else None


def compare(step: Step, folder: Path, execute: Callable[[Step], tuple[int, str, str]]) -> None:
    """Take a step, and compare all that is seen of it; what fails changes nothing else."""
    before = contents(folder)
    code, stdout, stderr = execute(step)
    seen = f"$ {step.command}\n{stdout}--- stderr\n{stderr}--- exit {code}"
    assert code == step.exit_code, seen
    assert matches(step.stdout, stdout), seen
    assert matches(step.stderr, stderr), seen
    for name in step.absent:
        assert not os.path.lexists(folder / name), seen
    for name, mode, *equals in step.present:
        assert (folder / name).stat().st_mode & 0o777 == int(mode, 8), seen
        if equals:
            assert (folder / name).read_bytes() == (folder / equals[1]).read_bytes(), seen
    assert not list(folder.glob(".*")), seen  # no temporary file stays behind
    named = {name for name, *_ in step.present}
    if step.exit_code:
        changed = contents(folder).items() ^ before.items()
        assert {name for name, _ in changed} <= named, seen


def contents(folder: Path) -> dict[str, bytes | None]:
    """Return all files with their contents, and all directories, but those of the user."""
    found = {path.relative_to(folder): path for path in folder.rglob("*")}
    return {
        str(name): None if path.is_dir() else path.read_bytes()
        for name, path in found.items()
        if name.parts[0] not in {"home", "state"}
    }


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_hints_name_only_options_that_the_command_has(path: Path) -> None:
    for step in read_transcript(path).steps:
        for hint in (line for line in step.stderr if line.startswith("hint: ")):
            mine, others = step.arguments[:1], re.findall(r"coco-kp ([a-z-]+)", hint)
            commands = [root.get_command(CONTEXT, name) for name in (*mine, *others)]
            known = {"--help"}.union(*(options(command) for command in commands if command))
            assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", hint)) <= known, step.command
