"""Runs the steps of a composite action as GitHub's runner does, without a runner."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING, Any, Final

import yaml

from tests.support.markdown import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ACTION: Final = ROOT / "action.yml"

BASH: Final = ("bash", "--noprofile", "--norc", "-eo", "pipefail")
"""What ``shell: bash`` means (workflow syntax of GitHub Actions, ``defaults.run.shell``)."""


def load_action() -> dict[str, Any]:
    """Return the action's metadata."""
    action: dict[str, Any] = yaml.safe_load(ACTION.read_text(encoding="utf-8"))
    return action


def run_step(
    step: Mapping[str, Any], inputs: Mapping[str, str], folder: Path, **env: str
) -> tuple[subprocess.CompletedProcess[str], dict[str, str]]:
    """Run a ``run`` step with the action's inputs; return how it ended, and its outputs.

    ``folder`` takes the runner's files; ``env`` is what the job has beside the runner's variables.
    """
    assert step["shell"] == "bash"
    temp, output, script = folder / "temp", folder / "output", folder / "script.sh"
    temp.mkdir(exist_ok=True)
    output.write_bytes(b"")
    script.write_text(step["run"], encoding="utf-8")
    runners = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "RUNNER_TEMP": str(temp),
        "GITHUB_OUTPUT": str(output),
        "GITHUB_ACTION_PATH": str(ACTION.parent),
    }
    own = {name: _evaluated(value, inputs) for name, value in step.get("env", {}).items()}
    done = subprocess.run(
        [*BASH, script],
        cwd=folder,
        env=runners | env | own,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    lines = output.read_text(encoding="utf-8").splitlines()
    return done, dict(line.split("=", 1) for line in lines)


def _evaluated(value: str, inputs: Mapping[str, str]) -> str:
    expression = re.fullmatch(r"\$\{\{ inputs\.(\w+) \}\}", value)
    assert expression, f"{value} is no plain input"
    return inputs[expression[1]]
