"""Shells complete commands and options through the script that we print."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COCO_KP = Path(sys.executable).with_name("coco-kp")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_script_for_shell(shell: str) -> None:
    done = subprocess.run([COCO_KP, "completion", shell], capture_output=True, check=True)
    assert b"_COCO_KP_COMPLETE" in done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [(("coco-kp", "enc"), "encrypt"), (("coco-kp", "inspect", "--form"), "--format")],
)
def test_completion_script_completes_in_bash(words: tuple[str, ...], expected: str) -> None:
    script = f"""
        source <({COCO_KP} completion bash)
        COMP_WORDS=({" ".join(words)})
        COMP_CWORD={len(words) - 1}
        _coco_kp_completion {COCO_KP}
        echo "${{COMPREPLY[@]}}"
    """
    env = {"PATH": f"{COCO_KP.parent}:{os.environ['PATH']}"}
    command = ["bash", "-c", script]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected]
