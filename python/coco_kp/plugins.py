"""Plug-ins: what packages that are installed beside this one bring, loaded only when it is named.

Each is an entry point: a function that takes a text and returns an object with certain methods. It
is code that runs in this process, with its keys. Whoever runs this chose to install it, and names
it; what comes from others, such as an image or a provider's request, never does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from coco_kp.errors import CocoKpError, InputError, RemoteError
from coco_kp.redact import shown

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints


class PluginGroup(NamedTuple):
    """A kind of plug-in.

    ``name`` is the group of its entry points, ``kind`` what messages call one, ``code`` that of the
    error where there is none of a name, and ``methods`` and ``attributes`` what all of them have,
    and all that is used of them, but for the ``optional`` methods: where one lacks those, they do
    nothing. Those of ``builtin`` are no plug-ins, whatever is installed.
    """

    name: str
    kind: str
    code: str
    builtin: tuple[str, ...]
    methods: tuple[str, ...]
    attributes: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """Return the names of those that are installed."""
        return sorted(self._installed().names - set(self.builtin))

    def find(self, name: str) -> EntryPoint:
        """Return a plug-in, which is not loaded. Raises ``InputError`` unless there is one."""
        found = tuple(self._installed().select(name=name))
        if name in self.builtin or not found:
            raise InputError(
                f"{self.kind} {shown(name)} is unknown",
                f"installed here: {', '.join((*self.builtin, *self.names()))}",
                code=self.code,
            )
        if len(found) > 1:  # which of them is asked must not be left to chance
            raise InputError(
                f"{len(found)} plug-ins are named {self.kind} {shown(name)}",
                "uninstall the packages of all but one",
                code="plugin-unusable",
            )
        return found[0]

    def open(self, name: str, argument: str) -> Any:  # noqa: ANN401 (each kind has its own type)
        """Return what the plug-in makes of a text, guarded as `guarded` says.

        Raises ``InputError`` where there is none, or none that can be loaded, and what the plug-in
        raises.
        """
        found = self.find(name)
        package = f" of the package {shown(found.dist.name)}" if found.dist else ""
        what = f"{self.kind} {shown(name)}{package}"
        try:
            make: Callable[[str], object] = found.load()
        except (Exception, SystemExit) as error:
            raise InputError(
                f"{what} cannot be loaded: {type(error).__name__}",
                "mend or uninstall the package",
                code="plugin-unusable",
            ) from error
        with guarded(what):
            made = make(argument)
            missing = [name for name in self.methods if not callable(getattr(made, name, None))]
            # A property is not read here: that may be work, such as asking an agent.
            missing += [
                name
                for name in self.attributes
                if not (hasattr(type(made), name) or hasattr(made, name))
            ]
            lacking = [name for name in self.optional if not callable(getattr(made, name, None))]
        if missing:
            raise InputError(
                f"{what} lacks {', '.join(missing)}",
                "it is for another version of coco-kp, or is no such plug-in",
                code="plugin-unusable",
            )
        members = {*self.methods, *self.attributes, *self.optional}
        return _Guarded(what, made, frozenset(members), frozenset(lacking))

    def _installed(self) -> EntryPoints:
        from importlib.metadata import entry_points  # noqa: PLC0415 (slow to load; few name one)

        return entry_points(group=self.name)


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Turn whatever a plug-in's code raises in the block into a ``CocoKpError``.

    Its own words stay out, where they are not errors of ours: they may hold a key.
    """
    try:
        yield
    except CocoKpError:
        raise
    except (Exception, SystemExit) as error:
        raise RemoteError(
            f"{what} failed: {type(error).__name__}",
            "the plug-in has a fault: ask those who made it",
            code="plugin-failed",
        ) from error


class _Guarded:
    """A plug-in's object, of which there are the members of its kind, and each is guarded."""

    def __init__(
        self, what: str, made: object, members: frozenset[str], lacking: frozenset[str]
    ) -> None:
        self._what = what
        self._made = made
        self._members = members
        self._lacking = lacking

    def __getattr__(self, name: str) -> object:
        if name not in self._members:
            raise AttributeError(name)
        if name in self._lacking:
            return lambda: None
        with guarded(self._what):
            value = getattr(self._made, name)
        if not callable(value):
            return value

        def call(*args: object, **kwargs: object) -> object:
            with guarded(self._what):
                return value(*args, **kwargs)

        return call
