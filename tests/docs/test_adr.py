"""docs/adr: its index, and the form of each record."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Final

import pytest

from tests.support.markdown import ROOT

FOLDER: Final = ROOT / "docs" / "adr"
RECORDS: Final = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")
NUMBERS: Final = [int(path.name[:4]) for path in RECORDS]

PARTS: Final = [
    "Context and problem statement",
    "Decision drivers",
    "Considered options",
    "Decision outcome",
    "Consequences",
]
"""The headings of a record, as in python-tuf's."""


def test_index_of_decisions_has_each_with_its_title() -> None:
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^- \[(\d{4})\]\(([^)]+)\) (.+)$", index, flags=re.MULTILINE)
    assert [name for _, name, _ in listed] == [path.name for path in RECORDS]
    for (number, _, title), path in zip(listed, RECORDS, strict=True):
        assert path.read_text(encoding="utf-8").startswith(f"# {int(number)}. {title}\n")


def test_decisions_are_numbered_without_gap() -> None:
    assert list(range(1, len(RECORDS) + 1)) == NUMBERS


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.name)
def test_decision_has_status_date_and_each_part_with_text(path: Path) -> None:
    head, *parts = re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = re.fullmatch(
        r"# .+\n\n- Status: (?:accepted|superseded by (\d{4}))\n- Date: (\S+)\n\n", head
    )
    assert found, head
    assert found[1] is None or NUMBERS[-1] >= int(found[1]) > int(path.name[:4])
    date.fromisoformat(found[2])
    assert [part.partition("\n")[0] for part in parts] == PARTS
    assert all(part.partition("\n")[2].strip() for part in parts)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.name)
def test_decision_links_to_files_that_there_are(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (FOLDER / link).exists()] == []
