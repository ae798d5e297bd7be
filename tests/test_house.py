"""The house's rules for the tests themselves, and for all docstrings (CONTRIBUTING.md)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("tests", "benches")
PYTHON = ("python", "tests", "tools", "benches")
FIRST_WORDS = {"Give": "Return", "Gives": "Returns", "Tell": "Return whether", "Tells": "Says"}
"""What no docstring begins with, and what it says instead."""
CODE = re.compile(r"``.*?``|`.*?`", re.DOTALL)
AVOIDED = re.compile(r"\b(fates?|folders?|key ids?|lists? of images|that (is|are) none)\b")
"""Words for which the vocabulary has others."""


def test_no_module_imports_a_test_module_or_conftest() -> None:
    """What two of them need stands in a module of its own, most often in tests/support."""
    modules = {name_of(path): path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    private = {name for name in modules if is_private(name)}
    assert len(private) > 100
    wrong = [
        f"{path.relative_to(ROOT)} imports {imported}"
        for path in modules.values()
        for imported in imports(path)
        if imported in private
    ]
    assert wrong == []


def test_docstrings_begin_with_idiomatic_verbs() -> None:
    """Readers and tools know "Return …", "Return whether …" and "Yield …" from everywhere."""
    files = [path for folder in PYTHON for path in (ROOT / folder).rglob("*.py")]
    texts = [(path, text) for path in files for text in docstrings(path)]
    assert len(texts) > 2000
    wrong = [
        f"{path.relative_to(ROOT)}: {text.splitlines()[0]} (write {FIRST_WORDS[first]})"
        for path, text in texts
        if (first := text.split(maxsplit=1)[0]) in FIRST_WORDS
    ]
    assert wrong == []


def test_docstrings_of_library_keep_to_the_vocabulary() -> None:
    """A thing has one name; those of arguments, in backticks, are code."""
    files = (ROOT / "python").rglob("*.py")
    wrong = [
        f"{path.relative_to(ROOT)}: {word[0]}: {text.splitlines()[0]}"
        for path in files
        for text in docstrings(path)
        for word in AVOIDED.finditer(CODE.sub("", text))
    ]
    assert wrong == []


def docstrings(path: Path) -> Iterator[str]:
    """Yield the docstrings of a module, of its classes and of its functions."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from filter(None, [ast.get_docstring(node)])


def name_of(path: Path) -> str:
    """Return the module's dotted name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def is_private(module: str) -> bool:
    """Return whether pytest alone may import the module."""
    last = module.rpartition(".")[2]
    return last == "conftest" or last.startswith("test_")


def imports(path: Path) -> Iterator[str]:
    """Find what the file imports, wherever that stands: each name that could be a module."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join((*above, *([node.module] if node.module else [])))
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)
