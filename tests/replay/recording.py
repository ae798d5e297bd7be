"""Reads the recordings of real peers (tests/recordings/README.md)."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FOLDER: Final = Path(__file__).parents[1] / "recordings"

Recorded = dict[str, Any]


def recording(name: str) -> Recorded:
    """Return the content of a recording, such as ``trustee-read``."""
    document: Recorded = json.loads((FOLDER / f"{name}.json").read_bytes())
    return document


def body(message: Mapping[str, Any]) -> bytes | None:
    """Return the body of a recorded HTTP request or answer, or None if it had none."""
    if "body_base64" in message:
        return b64decode(message["body_base64"], validate=True)
    if "body_repeated" in message:
        repeated = message["body_repeated"]
        return bytes([repeated["byte"]]) * int(repeated["count"])
    return str(message["body"]).encode() if "body" in message else None


def names(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of entries, for the IDs of tests."""
    return [str(entry["name"]) for entry in entries]
