"""What the package promises: all that a caller gives or gets has a name of its own in it."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import typing
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Any

import pytest

import coco_kp

PUBLIC = {name: getattr(coco_kp, name) for name in coco_kp.__all__}
CALLED = {"__init__", "__new__", "__call__", "__enter__", "__iter__"}
"""Methods without a name of their own whose annotations callers meet."""


def is_ours(value: object) -> bool:
    return getattr(value, "__module__", "").partition(".")[0] == "coco_kp"


def names_in(module: str) -> dict[str, Any]:
    """Return what annotations of a module may name, also what it imports for them alone."""
    loaded = import_module(module)
    names = dict(vars(loaded))
    if not (loaded.__file__ or "").endswith(".py"):
        return names
    for node in ast.parse(Path(str(loaded.__file__)).read_bytes()).body:
        match node:
            case ast.If(ast.Name("TYPE_CHECKING"), body):
                for line in body:
                    if isinstance(line, ast.ImportFrom) and line.module != "_typeshed":
                        source = import_module(str(line.module))
                        names |= {a.asname or a.name: getattr(source, a.name) for a in line.names}
    return names


def hints_of(value: Any) -> dict[str, Any]:
    """Return what the value is annotated with, inherited fields left out."""
    own = inspect.get_annotations(value) if isinstance(value, type) else value.__annotations__
    names = names_in(value.__module__)
    texts = {name: getattr(hint, "__forward_arg__", hint) for name, hint in own.items()}
    return {
        name: eval(hint, names) if isinstance(hint, str) else hint  # noqa: S307 (our own code)
        for name, hint in texts.items()
    }


def types_in(hint: object) -> Iterator[type]:
    """Yield the classes that an annotation is made of."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return
    if isinstance(hint, list | tuple):
        for part in hint:
            yield from types_in(part)
    elif isinstance(hint, type) and origin is None:
        yield hint
    elif origin is not None or isinstance(hint, UnionType):
        yield from types_in(typing.get_args(hint))


def functions_of(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield a class's public methods, and the getters of its public properties."""
    for name, member in vars(kind).items():
        if name.startswith("_") and name not in CALLED:
            continue
        function: Any = member.fget if isinstance(member, property) else member
        function = inspect.unwrap(getattr(function, "__func__", function))
        if inspect.isfunction(function) and is_ours(function):
            yield name, function


def met(value: Any, path: str) -> Iterator[tuple[str, object]]:
    """Yield where somebody who uses a value meets an annotation, and the annotation."""
    if inspect.isfunction(value):
        yield from ((f"{path}({name})", hint) for name, hint in hints_of(value).items())
        return
    for kind in filter(is_ours, value.__mro__):
        for name, hint in hints_of(kind).items():
            if not name.startswith("_"):
                yield f"{path}.{name}", hint
        for method, function in functions_of(kind):
            for name, hint in hints_of(function).items():
                yield f"{path}.{method}({name})", hint


def reached(value: Any, path: str) -> Iterator[tuple[type, str]]:
    """Yield the classes of ours that somebody meets who uses a value, and where."""
    for step, hint in met(value, path):
        for found in types_in(hint):
            if is_ours(found):
                yield found, step


@pytest.mark.parametrize("name", PUBLIC)
def test_library_exports_what_its_signatures_and_results_name(name: str) -> None:
    exported = set(map(id, PUBLIC.values()))
    missing = {
        f"{step}: {found.__module__}.{found.__qualname__}"
        for found, step in reached(PUBLIC[name], name)
        if id(found) not in exported
    }
    assert missing == set()


def test_exports_are_looked_for_in_fields_methods_properties_and_arguments() -> None:
    """Else the test above could pass because it sees nothing."""
    found = {step for name, value in PUBLIC.items() for _, step in reached(value, name)}
    assert found >= {
        "EncryptionResult.images",
        "VerificationReport.failure(return)",
        "Recipient.prepare(return)",
        "encrypt_image(recipients)",
        "encrypt_image(return)",
        "KeySettings.registrar",
        "PacketForm.__new__(algorithm)",
    }


@pytest.mark.parametrize("name", PUBLIC)
def test_library_exports_each_error_that_its_docstrings_name(name: str) -> None:
    value = PUBLIC[name]
    methods = [method for _, method in functions_of(value)] if inspect.isclass(value) else []
    texts = [inspect.getdoc(one) or "" for one in (value, *methods)]
    named = {error for text in texts for error in re.findall(r"``([A-Z]\w+Error)``", text)}
    assert {error for error in named - PUBLIC.keys() if not hasattr(builtins, error)} == set()


@pytest.mark.parametrize("name", PUBLIC)
def test_library_asks_for_no_path_of_one_kind(name: str) -> None:
    """``str | os.PathLike[str]`` is what callers have."""
    asked = {step: set(types_in(hint)) for step, hint in met(PUBLIC[name], name)}
    assert {step for step, kinds in asked.items() if Path in kinds and str not in kinds} == set()
