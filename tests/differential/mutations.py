"""Documents that somebody altered, each in one way: every member in every odd form.

A mutation knows nothing of what is right. It makes the document that is asked about.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Steps = tuple[str | int, ...]
Object = dict[str, Any]

OTHER_TYPES: Final[dict[str, object]] = {
    "null": None,
    "number": 7,
    "text": "x",
    "true": True,
    "array": [],
    "object": {},
}


class Again(str):
    """A name that an object may have twice: it equals no other name, not even itself elsewhere."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


@dataclass(frozen=True)
class Mutation:
    """A change of a document, which is given whole and may be altered in place."""

    name: str
    change: Callable[[Any], Any]

    def __call__(self, document: Any) -> Any:
        """Return the altered document; the one given stays as it is."""
        altered = copy.deepcopy(document)
        return self.change(altered) or altered


def mutations(
    document: Any, hostile: Callable[[str], object], *, deep: bool = True
) -> Iterator[Mutation]:
    """Yield every mutation of every member; ``hostile`` gives what an attacker writes under a name.

    Not ``deep``: members of the document's own members stay as they are.
    """
    for path in paths(document):
        *_, name = path
        where = ".".join(map(str, path))
        if isinstance(name, str) and (deep or len(path) == 1):
            yield from _of_member(path, name, where, hostile(name))


def paths(document: Any, start: Steps = ()) -> Iterator[Steps]:
    """Yield the path of each member and element of a document."""
    items: Sequence[tuple[str | int, Any]] = ()
    if isinstance(document, dict):
        items = list(document.items())
    elif isinstance(document, list):
        items = list(enumerate(document))
    for name, value in items:
        yield (*start, name)
        yield from paths(value, (*start, name))


def at(document: Any, path: Steps) -> Any:
    """Return what lies under a path."""
    for step in path:
        document = document[step]
    return document


def _of_member(path: Steps, name: str, where: str, hostile: object) -> Iterator[Mutation]:
    *parents, _ = path
    parent = tuple(parents)

    def replaced(make: Callable[[Object], Object]) -> Callable[[Any], None]:
        def change(document: Any) -> None:
            holder = at(document, parent)
            new = make(dict(holder))
            holder.clear()
            holder.update(new)

        return change

    def with_value(value: object) -> Callable[[Any], None]:
        return replaced(lambda old: old | {name: value})

    def beside(spelled: str) -> Callable[[Any], None]:
        return replaced(lambda old: old | {spelled: hostile})

    yield Mutation(f"{where} missing", replaced(lambda old: {k: old[k] for k in old if k != name}))
    for kind, value in OTHER_TYPES.items():
        yield Mutation(f"{where} {kind}", with_value(value))
    yield Mutation(f"{where} hostile", with_value(hostile))
    yield Mutation(
        f"{where} in capitals",
        replaced(lambda old: {name.upper() if key == name else key: old[key] for key in old}),
    )
    yield Mutation(f"{where} twice, the last hostile", beside(Again(name)))
    yield Mutation(
        f"{where} twice, the first hostile", replaced(lambda old: {Again(name): hostile} | old)
    )
    for spelled in sorted({name.upper(), name.capitalize(), *_unicode(name)} - {name}):
        shown = spelled.encode("ascii", "backslashreplace").decode()
        yield Mutation(f"{where} beside a hostile {shown}", beside(spelled))


def _unicode(name: str) -> Iterator[str]:
    """Yield spellings that Go's JSON takes for the same name."""
    for letter, twin in (("s", "\u017f"), ("k", "\u212a")):
        if letter in name:
            yield name.replace(letter, twin, 1)
