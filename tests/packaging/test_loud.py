"""``tools/loud`` passes on what a command says, and speaks where it does not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.markdown import ROOT

LOUD = ROOT / "tools" / "loud"


def loud(script: str, seconds: float = 10) -> subprocess.CompletedProcess[str]:
    text = LOUD.read_text().replace("SILENCE = 10.0", f"SILENCE = {seconds}")
    return subprocess.run(
        [sys.executable, "-c", text, "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 128 + 9)]
)
def test_the_exit_code_is_the_commands(script: str, code: int) -> None:
    assert loud(script).returncode == code


def test_output_goes_through_unchanged() -> None:
    done = loud("printf 'one\\ntwo'; printf three >&2")
    assert done.stdout == "one\ntwothree"


def test_silence_is_broken_with_the_last_line() -> None:
    done = loud("echo building; sleep 1; echo built", seconds=0.1)
    lines = done.stdout.splitlines()
    assert lines[0] == "building"
    assert lines[1].endswith("s] still at: building")
    assert lines[-1] == "built"


def test_what_a_command_leaves_running_is_not_waited_for() -> None:
    assert loud("sleep 30 & exit 4", seconds=0.1).returncode == 4  # at once
