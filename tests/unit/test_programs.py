"""Programs that are run for what they say."""

from __future__ import annotations

import math
import os
import subprocess
import threading
from pathlib import Path

import pytest

from coco_kp.deadline import Caller, within
from coco_kp.programs import run_program
from tests.support.patience import PATIENCE, ends


def test_run_program_hands_on_more_than_a_pipe_holds_to_one_that_is_slow() -> None:
    given = os.urandom(1_000_000)
    done = run_program(["sh", "-c", "sleep 0.2; cat; echo no >&2; exit 3"], seconds=60, given=given)
    assert (done.stdout, done.stderr, done.returncode) == (given, b"no\n", 3)


def test_run_program_adds_to_the_environment_and_runs_in_the_folder(tmp_path: Path) -> None:
    command = ["sh", "-c", 'echo "$A"; pwd; [ -n "$PATH" ] && cat']
    done = run_program(command, seconds=60, environment={"A": "b"}, folder=tmp_path)
    assert done.stdout.decode().split() == ["b", str(tmp_path)]


def test_run_program_gives_a_pipe_as_others_do_and_else_nothing() -> None:
    """What reads its input by epoll, as asyncio does, can have no file."""
    command = ["sh", "-c", "[ -p /dev/stdin ] && echo pipe; cat"]
    assert run_program(command, seconds=60, given=b"given").stdout == b"pipe\ngiven"
    assert run_program(command, seconds=60).stdout == b""


def test_run_program_takes_none_ill_that_does_not_read() -> None:
    done = run_program(["sh", "-c", "exec <&-; echo done"], seconds=60, given=bytes(1_000_000))
    assert (done.stdout, done.returncode) == (b"done\n", 0)


def test_run_program_ends_one_that_takes_too_long() -> None:
    with ends(), pytest.raises(subprocess.TimeoutExpired):
        run_program(["sleep", "180"], seconds=0.1)


def test_run_program_says_that_there_is_none() -> None:
    with pytest.raises(FileNotFoundError):
        run_program(["/nowhere/none"], seconds=60)


def test_run_program_waits_for_no_child_of_a_program_whose_caller_has_gone(tmp_path: Path) -> None:
    """It has the pipes, and nobody ends it."""
    caller, begun, go = Caller(), tmp_path / "begun", tmp_path / "go"
    os.mkfifo(begun)
    os.mkfifo(go)

    def leave() -> None:
        begun.read_bytes()
        caller.leave()

    leaving = threading.Thread(target=leave, daemon=True)
    leaving.start()
    program = f"cat {go} & echo > {begun}; wait"
    with ends(), within(math.inf, caller), pytest.raises(subprocess.TimeoutExpired):
        run_program(["sh", "-c", program], seconds=3 * PATIENCE)
    leaving.join(PATIENCE)
    go.write_bytes(b"")
