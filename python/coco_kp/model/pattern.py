"""Patterns of key IDs and key references.

``*`` stands for any characters, or none, but ``/``; everything else for itself. There may be one
``*`` in each part between two ``/``. So ``kbs:///team-a/*/*`` is every key ID of a repository, and
no pattern reaches further than it looks.
"""

from __future__ import annotations

from coco_kp.errors import InputError
from coco_kp.redact import shown
from coco_kp.values import dataclass


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern that `parse_pattern` has read."""

    text: str

    def matches(self, text: str) -> bool:
        """Return whether it stands for this text; for no path with ``.`` or ``..`` in it."""
        patterns, parts = self.text.split("/"), text.split("/")
        if len(patterns) != len(parts) or {".", ".."} & set(parts):
            return False
        return all(map(_matches, patterns, parts))


def _matches(pattern: str, part: str) -> bool:
    before, star, after = pattern.partition("*")
    if not star:
        return part == pattern
    long_enough = len(part) >= len(before) + len(after)
    return long_enough and part.startswith(before) and part.endswith(after)


def parse_pattern(text: str) -> Pattern:
    """Read a pattern. Raises ``InputError``."""
    if any(part.count("*") > 1 for part in text.split("/")):
        raise InputError(
            f"the pattern {shown(text)} has two * in one part",
            "* stands for any characters but /; everything else for itself",
        )
    return Pattern(text)
