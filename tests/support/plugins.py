"""Plug-ins as packages bring them along: entry points that Python finds installed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.support.markdown import blocks


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


def install_example(document: str, site: Path, group: str) -> Path:
    """Install a page's only Python block as the package that its TOML block describes.

    Returns the folder, in which Python finds it. ``group`` is that of all its entry points.
    """
    (source,), (table,) = blocks(document, "python"), blocks(document, "toml")
    groups = tomllib.loads(table)["project"]["entry-points"]
    assert list(groups) == [group]
    metadata = site / "example-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: example\nVersion: 1\n")
    lines = [f"{name} = {value}\n" for name, value in groups[group].items()]
    (metadata / "entry_points.txt").write_text(f"[{group}]\n" + "".join(lines))
    module = next(iter(groups[group].values())).partition(":")[0]
    (site / f"{module}.py").write_text(source)
    return site
