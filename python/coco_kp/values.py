"""Frozen values, as ``@dataclass(frozen=True, slots=True)`` makes them, without compiling.

The standard library compiles six functions for each class at every start: half a millisecond, and
five more to load the module. A command has some 60 such classes, which was a third of its start
(docs/performance.md). Here the functions are shared. For type checkers, readers and ``dataclasses``
itself these classes are dataclasses: what differs is a bug, and ``tests/unit/test_values.py`` holds
each of ours to the standard library's. What is not needed is refused: members that
``__init__`` does not take, classes that change or have no slots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, TypeVar

__all__ = ["dataclass", "field", "replace"]

T = TypeVar("T")

_put: Final = object.__setattr__
_MISSING: Final = object()


class _Member(NamedTuple):
    default: object = _MISSING
    default_factory: Any = _MISSING
    repr: bool = True
    hash: bool | None = None
    compare: bool = True
    kw_only: bool = False

    @property
    def hashed(self) -> bool:
        return self.compare if self.hash is None else self.hash


class _Shape(NamedTuple):
    """What a class is made of: its members by name, in order, and what follows from them."""

    members: dict[str, _Member]
    positional: tuple[str, ...]
    defaults: dict[str, object]
    factories: dict[str, Callable[[], object]]
    shown: tuple[str, ...]
    compared: Callable[[Any], object]
    hashed: Callable[[Any], object]


def _dataclass(*, frozen: bool, slots: bool) -> Callable[[type[T]], type[T]]:
    if not (frozen and slots):
        raise TypeError("only frozen classes with slots are made here")
    return _made


def _made(plain: type[T]) -> type[T]:
    """Make the class anew, with slots, which a class cannot get later."""
    own = {
        name: _member(vars(plain).get(name, _MISSING))
        for name, kind in vars(plain).get("__annotations__", {}).items()
        if not kind.startswith("ClassVar")
    }
    inherited = dict[str, _Member]()
    for base in reversed(plain.__mro__):
        inherited |= getattr(vars(base).get("_shape"), "members", {})
    shape = _shape({**inherited, **own})
    hidden = {"__dict__", "__weakref__", *own}
    namespace = {
        **_FUNCTIONS,
        **{name: value for name, value in vars(plain).items() if name not in hidden},
        "__slots__": tuple(name for name in own if name not in inherited),
        "__match_args__": shape.positional,
        "__qualname__": plain.__qualname__,
        "__module__": plain.__module__,
        "__doc__": plain.__doc__,
        "_shape": shape,
    }
    kind: Callable[..., type[T]] = type(plain)
    return kind(plain.__name__, plain.__bases__, namespace)


def _member(default: object) -> _Member:
    return default if isinstance(default, _Member) else _Member(default)


def _shape(members: dict[str, _Member]) -> _Shape:
    return _Shape(
        members,
        tuple(name for name, member in members.items() if not member.kw_only),
        {
            name: member.default
            for name, member in members.items()
            if member.default is not _MISSING
        },
        {
            name: member.default_factory
            for name, member in members.items()
            if member.default_factory is not _MISSING
        },
        tuple(name for name, member in members.items() if member.repr),
        _getter(name for name, member in members.items() if member.compare),
        _getter(name for name, member in members.items() if member.hashed),
    )


def _getter(names: Iterable[str]) -> Callable[[Any], object]:
    """Return what gets these members of a value, so that they can be compared and hashed."""
    known = tuple(names)
    return attrgetter(*known) if known else lambda _value: ()


def _replace(value: T, /, **changes: object) -> T:
    kept = {name: getattr(value, name) for name in _shape_of(value).members}
    return type(value)(**{**kept, **changes})


def _shape_of(value: object) -> _Shape:
    shape: _Shape = type(value)._shape  # type: ignore[attr-defined]  # noqa: SLF001
    return shape


def _init(self: object, /, *given: object, **named: object) -> None:
    shape = _shape_of(self)
    taken = shape.positional[: len(given)]
    values = {**shape.defaults, **dict(zip(taken, given, strict=False)), **named}
    for name, make in shape.factories.items():
        if name not in values:
            values[name] = make()
    if (
        len(given) > len(taken)
        or values.keys() != shape.members.keys()
        or not named.keys().isdisjoint(taken)
    ):
        wanted = ", ".join(shape.members)
        raise TypeError(f"{type(self).__qualname__} takes: {wanted}")  # and no value may be quoted
    for name, value in values.items():
        _put(self, name, value)
    if post_init := getattr(self, "__post_init__", None):
        post_init()


def _repr(self: object) -> str:
    shown = (f"{name}={getattr(self, name)!r}" for name in _shape_of(self).shown)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _eq(self: object, other: object) -> object:
    if type(self) is not type(other):
        return NotImplemented
    compared = _shape_of(self).compared
    return bool(compared(self) == compared(other))


def _hash(self: object) -> int:
    return hash(_shape_of(self).hashed(self))


def _refuse(self: object, name: str, _value: object = None) -> NoReturn:  # noqa: ARG001
    from dataclasses import FrozenInstanceError  # noqa: PLC0415 (loaded where something is wrong)

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _state(self: object) -> list[object]:
    return [getattr(self, name) for name in _shape_of(self).members]


def _restore(self: object, state: list[object]) -> None:
    for name, value in zip(_shape_of(self).members, state, strict=True):
        _put(self, name, value)


class _Fields:
    """What ``dataclasses`` looks for in a class: made by itself, where something asks."""

    def __get__(self, _value: object, kind: type) -> object:
        import dataclasses  # noqa: PLC0415 (as above)

        members: dict[str, _Member] = kind._shape.members  # type: ignore[attr-defined]  # noqa: SLF001
        fields = []
        for name, member in members.items():
            said = {
                word: given for word, given in member._asdict().items() if given is not _MISSING
            }
            fields.append((name, Any, dataclasses.field(**said)))
        same: Any = dataclasses.make_dataclass(kind.__name__, fields)
        return same.__dataclass_fields__


_FUNCTIONS: Final = {
    "__dataclass_fields__": _Fields(),
    "__delattr__": _refuse,
    "__eq__": _eq,
    "__getstate__": _state,
    "__hash__": _hash,
    "__init__": _init,
    "__replace__": _replace,  # of copy, from Python 3.13 on
    "__repr__": _repr,
    "__setattr__": _refuse,
    "__setstate__": _restore,
}

if TYPE_CHECKING:
    from dataclasses import dataclass, field, replace
else:
    dataclass, field, replace = _dataclass, _Member, _replace
