"""The house's floors (docs/architecture.md), held to the imports that the code really has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "coco_kp"

FLOORS = {
    0: {"deadline", "errors", "redact", "values", "_native"},
    1: {"model"},
    2: {
        *("crypto", "exposure", "files", "http", "locks", "observe", "plugins", "processors"),
        *("programs", "skopeo", "unpacking"),
    },
    3: {"transport", "kbs", "keyprovider"},
    4: {"kbc", "keys"},
    5: {"provider", "image"},
    6: {"service", "fleet"},
    7: {"cli"},
}
FLOOR_OF = {part: floor for floor, parts in FLOORS.items() for part in parts}

ROOF = {"coco_kp", "coco_kp.__main__"}
"""What callers import and run: they stand on all floors."""

SIDEWAYS = {("errors", "redact"), ("kbc", "keys"), ("locks", "files"), ("skopeo", "programs")}
"""Who may import whom on his own floor, and never the other way round."""

ONLY_IMPORTERS = {"_native": {"crypto", "unpacking"}}

OPENERS = {"insecure_channel", "secure_channel", "add_insecure_port", "add_secure_port"}
"""gRPC's functions that open a channel or a port."""

# No I/O, no clock, no randomness, no logging.
LIBRARIES_OF_VALUES = {
    *(
        "__future__",
        "base64",
        "binascii",
        "collections.abc",
        "dataclasses",
        "difflib",
        "enum",
        "hashlib",
    ),
    *("ipaddress", "json", "math", "re", "types", "typing", "urllib.parse", "uuid"),
}


@dataclass(frozen=True)
class Import:
    """That a line of one module imports another."""

    importer: str
    imported: str
    line: int

    @property
    def parts(self) -> tuple[str, str]:
        """The parts of coco_kp that the two belong to."""
        return part_of(self.importer), part_of(self.imported)

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def part_of(module: str) -> str:
    """Return the name that stands in the table: the first behind ``coco_kp``."""
    return module.split(".")[1]


def name_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE.parent).with_suffix("")
    return ".".join(part for part in relative.parts if part != "__init__")


@cache
def modules() -> dict[str, ast.Module]:
    return {name_of(path): ast.parse(path.read_bytes()) for path in sorted(PACKAGE.rglob("*.py"))}


def imports(module: str, tree: ast.Module) -> Iterator[Import]:
    """Find all imports, wherever they stand; also those by a name that is put together."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (Import(module, alias.name, node.lineno) for alias in names)
            case ast.ImportFrom(module=source, names=names, level=0):
                assert source is not None
                for alias in names:
                    whole = f"{source}.{alias.name}"
                    known = whole in modules() or whole == "coco_kp._native"
                    yield Import(module, whole if known else source, node.lineno)
            case ast.ImportFrom():
                pytest.fail(f"{module}:{node.lineno} imports by a relative name")
            case ast.Call(func=ast.Name(id="import_module"), args=[first]):
                for text in ast.walk(first):
                    if isinstance(text, ast.Constant) and isinstance(text.value, str):
                        yield Import(module, text.value.rstrip("."), node.lineno)


@cache
def imports_of_ours() -> list[Import]:
    found = [found for module, tree in modules().items() for found in imports(module, tree)]
    return [
        one for one in found if one.imported.startswith("coco_kp.") and one.importer not in ROOF
    ]


def test_every_module_is_on_a_floor() -> None:
    assert {part_of(module) for module in modules().keys() - ROOF} <= FLOOR_OF.keys()
    parts = {path.name.split(".")[0] for path in PACKAGE.iterdir() if path.suffix != ".typed"}
    assert FLOOR_OF.keys() <= parts


def test_every_import_leads_to_same_or_lower_floor() -> None:
    assert len(imports_of_ours()) > 100
    wrong = []
    for one in imports_of_ours():
        importer, imported = one.parts
        if importer != imported and FLOOR_OF[importer] < FLOOR_OF[imported]:
            wrong.append(str(one))
    assert wrong == []


def test_imports_between_parts_of_a_floor_are_those_of_the_table() -> None:
    sideways = {
        one.parts
        for one in imports_of_ours()
        if one.parts[0] != one.parts[1] and FLOOR_OF[one.parts[0]] == FLOOR_OF[one.parts[1]]
    }
    assert sideways == SIDEWAYS


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {module: set() for module in modules()}
    for one in imports_of_ours():
        if one.imported in graph and one.imported != one.importer:
            graph[one.importer].add(one.imported)
    assert circle(graph) is None


def test_circle_finds_a_circle_wherever_it_is() -> None:
    assert circle({"a": {"b"}, "b": {"c", "d"}, "c": {"d"}, "d": set()}) is None
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": {"b"}}) is not None


@pytest.mark.parametrize("crate", ["core", "py"])
def test_no_rust_modules_use_each_other_in_a_circle(crate: str) -> None:
    graph = rust_modules(ROOT / "rust" / crate / "src")
    assert len(graph) > 5
    assert any(graph.values())
    assert circle(graph) is None


def rust_modules(source: Path) -> dict[str, set[str]]:
    """Return which top modules of a crate each one names; a folder's files are one with it.

    What ``lib.rs`` hands on under its own name is its module's.
    """
    texts = {path: rust_code(path) for path in sorted(source.rglob("*.rs"))}
    root = texts.pop(source / "lib.rs")
    owner = {
        name.strip(): module
        for module, names in re.findall(r"pub use (\w+)::\{?([^;}]*)", root)
        for name in names.split(",")
    }
    graph: dict[str, set[str]] = {}
    for path, text in texts.items():
        module = path.relative_to(source).with_suffix("").parts[0]
        named = {owner.get(name, name) for name in re.findall(r"\bcrate::(\w+)", text)}
        graph.setdefault(module, set()).update(named - {module})
    return graph


def rust_code(path: Path) -> str:
    """Return a file without its comments and its tests, which may name what they like."""
    text = re.sub(r"//.*", "", path.read_text(encoding="utf-8"))
    return text.partition("#[cfg(test)]")[0]


def circle(graph: Mapping[str, set[str]]) -> tuple[str, ...] | None:
    """Return modules each of which imports the next, and the last the first, if there are any."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return tuple(error.args[1])
    return None


def test_only_one_module_opens_grpc_channels_and_ports() -> None:
    openers = {
        module
        for module, tree in modules().items()
        if not OPENERS.isdisjoint(text for node in ast.walk(tree) for text in texts(node))
    }
    assert openers == {"coco_kp.keyprovider.channel"}


def texts(node: ast.AST) -> Iterator[str]:
    """Find what a node names: a variable, an attribute, an import, or the text of ``getattr``."""
    for member in ("id", "attr", "name", "value"):
        text = getattr(node, member, None)
        if isinstance(text, str):
            yield text


@pytest.mark.parametrize(
    ("module", "imported"), [("redact", set()), ("deadline", set()), ("errors", {"redact"})]
)
def test_ground_floor_imports_nothing_of_ours_but_redaction(
    module: str, imported: set[str]
) -> None:
    assert {one.parts[1] for one in imports_of_ours() if one.parts[0] == module} == imported


@pytest.mark.parametrize(("imported", "only"), ONLY_IMPORTERS.items())
def test_restricted_module_is_imported_by_its_only_importers(imported: str, only: set[str]) -> None:
    importers = {one.importer for one in imports_of_ours() if one.parts[1] == imported}
    assert importers == {f"coco_kp.{importer}" for importer in only}


def test_model_imports_no_library_with_input_or_output() -> None:
    used = {
        one.imported
        for module, tree in modules().items()
        if module.startswith("coco_kp.model")
        for one in imports(module, tree)
    }
    ours = {name for name in used if name.startswith("coco_kp.")}
    assert used - ours <= LIBRARIES_OF_VALUES
    assert {part_of(name) for name in ours} == {"errors", "model", "redact", "values"}


def test_model_opens_no_file_itself() -> None:
    for module, tree in modules().items():
        if module.startswith("coco_kp.model"):
            called = {
                node.func.id
                for node in ast.walk(tree)
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            }
            assert called.isdisjoint({"open", "print", "input", "exec", "eval"}), module


def test_architecture_document_lists_the_same_floors() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| ([^|]+) \|", text, flags=re.MULTILINE)
    documented = {int(floor): set(re.findall(r"`(\w+)(?:\.\*)?`", parts)) for floor, parts in rows}
    assert documented == FLOORS
