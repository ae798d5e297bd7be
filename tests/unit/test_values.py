"""Our frozen classes are what the standard library's decorator would have made of them."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from coco_kp import values

MAKERS: dict[str, tuple[Any, Any, Any]] = {
    "ours": (values.dataclass, values.field, values.replace),
    "the standard library's": (dataclasses.dataclass, dataclasses.field, dataclasses.replace),
}


class Kinds:
    """Classes made by one decorator."""

    def __init__(self, dataclass: Any, field: Any, replace: Any) -> None:
        @dataclass(frozen=True, slots=True)
        class Point:
            """A point."""

            x: int
            y: int = 0
            names: ClassVar[tuple[str, ...]] = ("x", "y")

            @property
            def total(self) -> int:
                return self.x + self.y

        @dataclass(frozen=True, slots=True)
        class Key(Point):
            secret: bytes = field(default=b"", repr=False)
            note: str = field(default="", compare=False)
            document: dict[str, int] = field(hash=False, kw_only=True)
            notes: list[str] = field(default_factory=list, compare=False, repr=False)

        @dataclass(frozen=True, slots=True)
        class Empty:
            pass

        @dataclass(frozen=True, slots=True)
        class Checked:
            x: int

            def __post_init__(self) -> None:
                if self.x < 0:
                    raise ValueError("negative")

            def __repr__(self) -> str:
                return "checked"

        self.Point: Any = Point
        self.Key: Any = Key
        self.Empty: Any = Empty
        self.Checked: Any = Checked
        self.replace: Any = replace


@pytest.fixture(params=MAKERS)
def kinds(request: pytest.FixtureRequest) -> Kinds:
    return Kinds(*MAKERS[request.param])


def test_value_takes_its_members_by_place_and_by_name(kinds: Kinds) -> None:
    assert kinds.Point(1, 2) == kinds.Point(y=2, x=1) == kinds.Point(1, y=2)
    assert kinds.Point(1).y == 0
    key = kinds.Key(1, 2, b"secret", document={"a": 1})
    assert key.notes == []
    assert key.notes is not kinds.Key(1, document={}).notes
    assert (key.x, key.total, key.secret, key.note, key.document) == (1, 3, b"secret", "", {"a": 1})


@pytest.mark.parametrize(
    ("given", "named"),
    [((), {}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1,), {"z": 1}), ((), {"y": 1})],
)
def test_value_refuses_members_that_are_missing_unknown_or_twice_there(
    kinds: Kinds, given: tuple[int, ...], named: dict[str, int]
) -> None:
    with pytest.raises(TypeError):
        kinds.Point(*given, **named)
    with pytest.raises(TypeError):
        kinds.Key(1, 2, b"", "", {})  # which is by name alone


def test_values_are_equal_where_kind_and_compared_members_are(kinds: Kinds) -> None:
    assert kinds.Point(1, 2) == kinds.Point(1, 2) != kinds.Point(2, 1)
    assert kinds.Point(0, 0) != kinds.Key(0, 0, document={})
    assert kinds.Point(0, 0) != (0, 0)
    assert kinds.Empty() == kinds.Empty() != ()
    assert kinds.Key(1, note="a", document={}) == kinds.Key(1, note="b", document={})
    assert kinds.Key(1, document={}) != kinds.Key(1, document={"a": 1})
    assert kinds.Empty()  # true, as no empty tuple is


def test_values_are_hashed_by_their_hashed_members(kinds: Kinds) -> None:
    assert len({kinds.Point(1, 2), kinds.Point(1, 2), kinds.Point(2, 1), kinds.Empty()}) == 3
    assert hash(kinds.Key(1, document={})) == hash(kinds.Key(1, document={"a": 1}))


def test_value_shows_neither_secrets_nor_more_than_its_own_repr(kinds: Kinds) -> None:
    text = repr(kinds.Key(1, secret=b"secret", document={}))
    assert text.rpartition(".")[2] == "Key(x=1, y=0, note='', document={})"
    assert repr(kinds.Empty()).endswith("Empty()")
    assert repr(kinds.Checked(1)) == "checked"


def test_value_does_not_change(kinds: Kinds) -> None:
    point = kinds.Point(1)
    changes: tuple[Callable[[], object], ...] = (
        lambda: setattr(point, "x", 2),
        lambda: setattr(point, "z", 2),
        lambda: delattr(point, "x"),
    )
    for change in changes:
        with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
            change()
    assert not hasattr(point, "__dict__")


def test_value_is_inherited_from_by_dataclasses_of_others(kinds: Kinds) -> None:
    @dataclasses.dataclass(frozen=True, slots=True)
    class Named(kinds.Point):  # type: ignore[misc,name-defined]
        name: str = "a"

    named = Named(1, 2, "b")
    assert (named.x, named.y, named.name) == (1, 2, "b")
    assert named == Named(1, 2, "b") != Named(1, 2, "c")
    assert named != kinds.Point(1, 2)
    for member in ("x", "name"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(named, member, 3)
    with pytest.raises(TypeError, match="non-frozen"):

        @dataclasses.dataclass
        class Thawed(kinds.Point):  # type: ignore[misc,name-defined]
            pass


def test_value_is_inherited_from_by_classes_of_others() -> None:
    """The standard library's, with slots, fail with a TypeError on some Pythons (gh-90562)."""
    kinds = Kinds(*MAKERS["ours"])

    class Noted(kinds.Point):  # type: ignore[misc,name-defined]
        def __init__(self, x: int) -> None:
            super().__init__(x)
            self.note = "mine"

    noted = Noted(1)
    noted.note = "changed"
    del noted.note
    assert not hasattr(noted, "note")
    with pytest.raises(dataclasses.FrozenInstanceError):
        noted.x = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del noted.x


def test_value_is_checked_when_it_is_made_and_when_it_is_replaced(kinds: Kinds) -> None:
    checked = kinds.Checked(1)
    assert kinds.replace(checked, x=2) == kinds.Checked(2)
    with pytest.raises(ValueError, match="negative"):
        kinds.Checked(-1)
    with pytest.raises(ValueError, match="negative"):
        kinds.replace(checked, x=-1)
    with pytest.raises(TypeError):
        kinds.replace(checked, y=1)


def test_value_is_a_dataclass_to_who_asks(kinds: Kinds) -> None:
    key = kinds.Key(1, document={"a": 1})
    assert dataclasses.is_dataclass(kinds.Key)
    assert dataclasses.replace(key, x=2).x == 2
    assert dataclasses.asdict(key)["document"] == {"a": 1}
    assert [one.name for one in dataclasses.fields(kinds.Point)] == ["x", "y"]


def test_value_matches_patterns(kinds: Kinds) -> None:
    match kinds.Key(1, 2, b"secret", document={}):
        case kinds.Key(1, 2, secret):
            assert secret == b"secret"
        case _:
            pytest.fail("no match")
    assert [kind.__match_args__ for kind in (kinds.Key, kinds.Empty)] == [
        ("x", "y", "secret", "note", "notes"),
        (),
    ]


@values.dataclass(frozen=True, slots=True)
class Sent:
    """What goes to another process, as a fleet's work does."""

    x: int
    y: str = values.field(kw_only=True)


def test_value_is_copied_and_pickled() -> None:
    sent = Sent(1, y="a")
    unpickled = pickle.loads(pickle.dumps(sent))  # noqa: S301 (our own)
    for same in (copy.copy(sent), copy.deepcopy(sent), unpickled):
        assert same == sent
        assert same is not sent


@pytest.mark.parametrize(
    "words", [{"frozen": False, "slots": True}, {"frozen": True, "slots": False}]
)
def test_classes_of_other_kinds_are_not_made(words: dict[str, bool]) -> None:
    with pytest.raises(TypeError):
        values.dataclass(**words)


DESCRIBE = """
import dataclasses, importlib, json, pkgutil, sys
from coco_kp import values
if sys.argv[1] == "the standard library's":
    values.dataclass, values.field = dataclasses.dataclass, dataclasses.field
    values.replace = dataclasses.replace
import coco_kp
found = {}
def text(default):
    return repr(default).partition(" at ")[0]
for module in pkgutil.walk_packages(coco_kp.__path__, "coco_kp."):
    if module.name in {"coco_kp.__main__", "coco_kp.keys.stores.pkcs11_token"}:
        continue
    for name, kind in vars(importlib.import_module(module.name)).items():
        if isinstance(kind, type) and kind.__module__ == module.name:
            if dataclasses.is_dataclass(kind):
                found[f"{module.name}.{name}"] = [
                    kind.__match_args__,
                    list(kind.__slots__),
                    sorted(n for n in vars(kind) if n[:2] != "__" and n[:1] != "_"),
                    [
                        [f.name, text(f.default), f.repr, f.hash, f.compare, f.kw_only]
                        for f in dataclasses.fields(kind)
                    ],
                ]
print(json.dumps(found))
"""


def test_each_class_is_what_the_standard_library_makes_of_it() -> None:
    ours, theirs = (
        json.loads(
            subprocess.run(
                [sys.executable, "-c", DESCRIBE, maker], capture_output=True, check=True
            ).stdout
        )
        for maker in MAKERS
    )
    assert len(ours) > 100
    for name, described in theirs.items():
        assert ours[name] == described, name
    assert ours.keys() == theirs.keys()


def test_no_frozen_class_is_compiled_at_each_start() -> None:
    """One such class takes half a millisecond of every command, 60 a third of its start."""
    package = Path(values.__file__).parent
    compiled = [
        path.name
        for path in package.rglob("*.py")
        if re.search(r"@dataclasses\.dataclass\(.*frozen=True", path.read_text())
        or re.search(r"^from dataclasses import .*dataclass", path.read_text(), re.MULTILINE)
    ]
    assert compiled == []
