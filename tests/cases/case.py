"""A case as its ``case.json`` describes it; README.md describes the format."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.cases.registry import RegistrySpec

DATA: Final = Path(__file__).with_name("data")


@dataclass(frozen=True, kw_only=True)
class Case:
    """The members of ``case.json``. Placeholders are not filled in yet."""

    what: str
    source: str
    input: str
    commands: list[list[str]]
    expect: dict[str, Any]
    """What `tests.cases.outcome.read_outcomes` reads."""
    why: str = ""
    registry: RegistrySpec | None = None
    templates: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    seconds: float = 120


def names(folder: Path = DATA) -> list[str]:
    """Return the names of the cases in a folder, sorted."""
    return sorted(path.parent.name for path in folder.glob("*/case.json"))


def read_case(folder: Path) -> Case:
    """Read a case; raises TypeError for a member that the format has not, or that is missing."""
    document = json.loads((folder / "case.json").read_text("utf-8"))
    if "registry" in document:
        document["registry"] = RegistrySpec(**document["registry"])
    return Case(**document)
