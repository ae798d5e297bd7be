"""What systemd says of a unit's file, without a running systemd."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.peers.cache import PeerUnavailableError


def read_service(unit: Path) -> dict[str, list[str]]:
    """Return the values of a unit's ``[Service]`` by name, each as often as it stands there."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in unit.read_text().splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def findings(unit: Path, folder: Path) -> list[str]:
    """Return what systemd has against a unit; ``folder`` takes a copy whose program is there."""
    verify = [_analyze(), "verify", "--man=no", str(_copy(unit, folder))]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if unit.name in line]


def exposure_level(unit: Path, folder: Path) -> float:
    """Return how much a unit is exposed, from 0 to 10, as systemd rates it."""
    security = [_analyze(), "security", "--offline=true", str(_copy(unit, folder))]
    rated = subprocess.run(security, capture_output=True, text=True, check=False)
    level = re.search(r"Overall exposure level for .*: ([0-9.]+)", rated.stdout)
    assert level, rated.stdout + rated.stderr
    return float(level[1])


def system_calls(group: str) -> frozenset[str]:
    """Return the system calls of a group such as ``@system-service``, or the one that is named."""
    if not group.startswith("@"):
        return frozenset({group})
    command = [_analyze(), "syscall-filter", group]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    words = [line.strip() for line in listed.stdout.splitlines()[1:]]
    members = {word for word in words if word and not word.startswith("#")}
    return frozenset(call for member in members for call in system_calls(member))


def _copy(unit: Path, folder: Path) -> Path:
    copy = folder / unit.name
    program = shutil.which("true") or "/bin/true"
    copy.write_text(unit.read_text().replace("/usr/local/bin/coco-kp", program))
    return copy


def _analyze() -> str:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        raise PeerUnavailableError("systemd-analyze is missing: apt-get install systemd")
    return analyze
