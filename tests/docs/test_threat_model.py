"""The tests that the pages on security name are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support.markdown import ROOT

NAMED = re.compile(r"`((?:tests/|rust/|test_)[\w./*-]+)(?:::(\w+))?`")
"""A path, or a module of ``tests/engine`` alone; perhaps a test or a class in it."""


@pytest.mark.parametrize(
    "document",
    ["docs/threat-model.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs/adr").iterdir())],
)
def test_named_tests_exist(document: str) -> None:
    named = set(NAMED.findall((ROOT / document).read_text(encoding="utf-8")))
    assert named or "adr" in document
    assert [name for name in sorted(named) if not exists(*name)] == []


def exists(place: str, name: str) -> bool:
    found = list(ROOT.glob(place if "/" in place else f"tests/engine/{place}"))
    return bool(found) and (not name or any(name in names(path) for path in found))


def names(path: Path) -> set[str]:
    """Return the names of a module's functions and classes, and of tests that are tables."""
    nodes = list(ast.walk(ast.parse(path.read_bytes())))
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    tables = [node.targets[0] for node in nodes if isinstance(node, ast.Assign)]
    return defined | {table.id for table in tables if isinstance(table, ast.Name)}
