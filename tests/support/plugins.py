"""Plug-ins as packages bring them along: entry points that Python finds installed."""

from __future__ import annotations

from pathlib import Path

import pytest


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, group: str, *entry_points: str) -> None:
    """Install a package for each entry point, ``name = module:attribute``, of a group."""
    for number, entry_point in enumerate(entry_points):
        package = folder / f"plugin{number}-1.dist-info"
        package.mkdir()
        (package / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: plugin{number}\nVersion: 1\n"
        )
        (package / "entry_points.txt").write_text(f"[{group}]\n{entry_point}\n")
    monkeypatch.syspath_prepend(folder)
