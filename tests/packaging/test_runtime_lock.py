"""The two lock files and pyproject.toml name the same packages, and the same versions of them."""

from __future__ import annotations

import re
import tomllib

from tests.support.markdown import ROOT


def test_runtime_lock_holds_what_the_wheel_needs() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = (ROOT / "requirements/runtime.in").read_text().splitlines()
    assert {name(line) for line in wanted if not line.startswith("#")} == {
        name(line) for line in pyproject["project"]["dependencies"]
    }


def test_runtime_lock_holds_what_was_tested() -> None:
    runtime, dev = pins("runtime.txt"), pins("dev.txt")
    assert runtime
    assert runtime.items() <= dev.items()


def test_development_lock_holds_what_each_extra_needs() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = pyproject["project"]["optional-dependencies"].values()
    assert {name(line) for extra in extras for line in extra} <= pins("dev.txt").keys()


def name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0].casefold()


def pins(lock: str) -> dict[str, str]:
    text = (ROOT / "requirements" / lock).read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, flags=re.MULTILINE))
