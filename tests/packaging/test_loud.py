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
def test_loud_exits_with_code_of_command(script: str, code: int) -> None:
    assert loud(script).returncode == code


def test_loud_passes_output_through_unchanged() -> None:
    done = loud("printf 'one\\ntwo'; printf three >&2")
    assert done.stdout == "one\ntwothree"


def test_loud_breaks_silence_with_last_line() -> None:
    done = loud("echo building; sleep 1; echo built", seconds=0.1)
    lines = done.stdout.splitlines()
    assert lines[0] == "building"
    assert lines[1].endswith("s] still at: building")
    assert lines[-1] == "built"


def test_loud_does_not_wait_for_background_processes() -> None:
    assert loud("sleep 30 & exit 4", seconds=0.1).returncode == 4  # at once
