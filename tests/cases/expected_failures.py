"""Which cases coco-kp does not pass yet: the table ``expected_failures.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TABLE: Final = Path(__file__).with_suffix(".toml")


@dataclass(frozen=True)
class ExpectedFailures:
    """Cases that fail, by the topic that mends them, and which of them take long and why."""

    topics: Mapping[str, Collection[str]]
    slow: Mapping[str, str]

    def topic(self, name: str) -> str | None:
        """Return the topic that mends a case, or None for a case that must hold."""
        return next((topic for topic, names in self.topics.items() if name in names), None)

    def faults(self, cases: Collection[str]) -> list[str]:
        """Return what is wrong with the table, given the names of all cases."""
        listed = [name for names in self.topics.values() for name in names]
        twice = sorted({name for name in listed if listed.count(name) > 1})
        return [
            *(f"{name}: no such case" for name in listed if name not in cases),
            *(f"{name}: listed twice" for name in twice),
            *(f"{name}: slow, but must hold" for name in self.slow if name not in listed),
        ]


def read_expected_failures(text: str) -> ExpectedFailures:
    """Read the table: a list of names for each topic, and the reasons under ``slow``."""
    document = tomllib.loads(text)
    slow = document.pop("slow", {})
    return ExpectedFailures(document, slow)
