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
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast

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
    made: Any = kind(plain.__name__, plain.__bases__, namespace)
    made.__init__ = _init(made, shape)
    return cast("type[T]", made)


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


def _init(kind: type, shape: _Shape) -> Callable[..., None]:
    """Return what fills a new value; that each call makes some is why it does so little."""
    names = (*shape.positional, *(name for name in shape.members if name not in shape.positional))
    put = [getattr(kind, name).__set__ for name in names]  # into the slots: nothing else can
    all_by_place, check = len(put) == len(shape.positional), hasattr(kind, "__post_init__")

    def __init__(self: Any, /, *given: object, **named: object) -> None:  # noqa: ANN401, N807
        if named or len(given) != len(put) or not all_by_place:
            given = _ordered(kind, shape, names, given, named)
        for put_one, value in zip(put, given, strict=True):
            put_one(self, value)
        if check:
            self.__post_init__()

    return __init__


def _ordered(
    kind: type,
    shape: _Shape,
    names: tuple[str, ...],
    given: tuple[object, ...],
    named: dict[str, object],
) -> tuple[object, ...]:
    """Return the members' values in order. Raises ``TypeError``, in which no value is quoted."""
    values = list(given)
    for name in names[len(given) :]:
        if name in named:
            values.append(named.pop(name))
        elif name in shape.defaults:
            values.append(shape.defaults[name])
        elif name in shape.factories:
            values.append(shape.factories[name]())
    if named or len(given) > len(shape.positional) or len(values) != len(names):
        raise TypeError(f"{kind.__qualname__} takes: {', '.join(names)}")
    return tuple(values)


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


def _set(self: object, name: str, value: object) -> None:
    _refuse_change(self, name)
    _put(self, name, value)


def _delete(self: object, name: str) -> None:
    _refuse_change(self, name)
    object.__delattr__(self, name)


def _refuse_change(value: object, name: str) -> None:
    """Raise, but for what a class of others that inherits from ours has beside our members."""
    if "_shape" in vars(type(value)) or name in _shape_of(value).members:
        from dataclasses import FrozenInstanceError  # noqa: PLC0415 (where something is wrong)

        raise FrozenInstanceError(f"cannot change field {name!r}")


def _state(self: object) -> list[object]:
    return [getattr(self, name) for name in _shape_of(self).members]


def _restore(self: object, state: list[object]) -> None:
    for name, value in zip(_shape_of(self).members, state, strict=True):
        _put(self, name, value)


class _Described:
    """What ``dataclasses`` looks for in a class: made by itself, where something asks."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, _value: object, kind: type) -> object:
        import dataclasses  # noqa: PLC0415 (as above)

        members: dict[str, _Member] = kind._shape.members  # type: ignore[attr-defined]  # noqa: SLF001
        fields = []
        for name, member in members.items():
            said = {
                word: given for word, given in member._asdict().items() if given is not _MISSING
            }
            fields.append((name, Any, dataclasses.field(**said)))
        same = dataclasses.make_dataclass(kind.__name__, fields, frozen=True, slots=True)
        return getattr(same, self._name)


_FUNCTIONS: Final = {
    "__dataclass_fields__": _Described("__dataclass_fields__"),
    "__dataclass_params__": _Described("__dataclass_params__"),
    "__delattr__": _delete,
    "__eq__": _eq,
    "__getstate__": _state,
    "__hash__": _hash,
    "__replace__": _replace,  # of copy, from Python 3.13 on
    "__repr__": _repr,
    "__setattr__": _set,
    "__setstate__": _restore,
}

if TYPE_CHECKING:
    from dataclasses import dataclass, field, replace
else:
    dataclass, field, replace = _dataclass, _Member, _replace
