"""docs/adr: its index."""

from __future__ import annotations

import re

from tests.support.markdown import ROOT

FOLDER = ROOT / "docs" / "adr"


def test_index_of_decisions_has_each_with_its_title() -> None:
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^- \[(\d{4})\]\(([^)]+)\) (.+)$", index, flags=re.MULTILINE)
    files = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")
    assert [name for _, name, _ in listed] == [path.name for path in files]
    for (number, _, title), path in zip(listed, files, strict=True):
        assert path.read_text(encoding="utf-8").startswith(f"# {int(number)}. {title}\n")


def test_new_decisions_say_status_drivers_options_and_consequences() -> None:
    for path in FOLDER.glob("*.md"):
        if path.name[:4].isdigit() and int(path.name[:4]) >= 20:
            text = path.read_text(encoding="utf-8")
            for part in ("- Status: ", "- Date: ", "drivers", "## Options", "## Consequences"):
                assert part in text, f"{path.name}: {part}"
