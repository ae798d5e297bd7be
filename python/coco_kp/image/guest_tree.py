"""The names that a layer's entries leave behind in a guest, which unpacks each layer on its own.

A guest writes an entry where the entries before it let it: not below a file, not over a directory,
and through a symbolic link only where that leads to a directory of the same layer. The order counts
(image-rs `unpack.rs` and astral-tokio-tar 0.6 `entry.rs`; tests/recordings/guest-tar.json).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from coco_kp.errors import InputError

MOST_NAMES: Final = 500_000
"""Names of one layer that are judged; 50 to 110 MB of memory."""

MOST_STEPS: Final = 20_000_000
"""Parts of names and of links' targets that are followed in one layer; about 20 seconds."""

_MOST_LINKS: Final = 40  # on the way to one name, as Linux follows them (path_resolution(7))
_FILE: Final = b""  # no link has such a target
_HIDDEN: Final = b"\0"  # nor such a one; followed as a link, it leads to nothing

_Directory: TypeAlias = "dict[bytes, _Node]"
_Node: TypeAlias = "_Directory | bytes"


class GuestTree:
    """A layer's files by name: directories, symbolic links with their targets, and all else.

    Names come as `parts_of` has them, without `..`. Each method raises ``InputError``, with
    half a sentence about the entry, where a guest fails.
    """

    def __init__(self) -> None:
        self._root: _Directory = {}
        self._names = 0
        self._steps = 0
        self._directory_behind_link = False
        self._link_replaced = False

    def add_directory(self, parts: Sequence[bytes]) -> None:
        """Make a directory, or keep one that is there."""
        walk = self._parent(parts)
        found = walk.directory.get(parts[-1])
        if found is None:
            self._put(walk.directory, parts[-1], {})
        elif not isinstance(found, dict):
            raise InputError("is a directory where a file or link stands already")
        self._directory_behind_link |= walk.links > 0

    def add_file(self, parts: Sequence[bytes]) -> None:
        """Make a file of any kind, which takes the place of another."""
        self._replace(self._parent(parts).directory, parts[-1], _FILE)

    def add_symbolic_link(self, parts: Sequence[bytes], target: bytes) -> None:
        """Make a link to a target that need not be there."""
        self._replace(self._parent(parts).directory, parts[-1], target)

    def add_hard_link(self, parts: Sequence[bytes], target: bytes) -> None:
        """Make another name of a file that is there: below the layer, if ``target`` is absolute."""
        directory = self._parent(parts).directory
        walk = self._walk(rooted=target.startswith(b"/"))
        *way, name = _way(target)
        walk.enter(way)
        found = walk.directory.get(name)  # a link is not followed, but must lead to something
        if walk.follow([name]) and isinstance(found, dict | None):
            raise InputError("is a hard link to a directory")
        if parts[-1] in directory:
            raise InputError("is a hard link whose name is taken")
        self._put(directory, parts[-1], found or _FILE)
        self.find(parts)

    def add_whiteout(self, parts: Sequence[bytes], hidden: bytes) -> None:
        """Hide the file ``hidden`` of the layers below, beside the entry that says so."""
        directory = self._parent(parts, rooted=True).directory
        if hidden in {b"", b".", b".."}:
            raise InputError("is a whiteout of nothing")
        if hidden in directory:
            raise InputError("is a whiteout of what the layer itself has")
        self._put(directory, hidden, _HIDDEN)

    def make_opaque(self, parts: Sequence[bytes]) -> None:
        """Hide all of the directory that the entry says so in that is in the layers below."""
        if len(parts) == 1:
            raise InputError("makes the whole layer opaque")
        self._walk(rooted=True).follow(parts[:-1])

    def find(self, parts: Sequence[bytes]) -> None:
        """Follow a name to the file that it leads to."""
        self._walk().follow(parts)

    def finish(self) -> None:
        """End the layer: a guest sets the times of directories last, by their names."""
        if self._directory_behind_link and self._link_replaced:
            raise InputError("has a directory behind a link, and a link that was replaced")

    def _parent(self, parts: Sequence[bytes], *, rooted: bool = False) -> _Walk:
        """Walk to the directory that has the name, making what is missing of it."""
        walk = self._walk(rooted=rooted)
        for part in parts[:-1]:
            if part not in walk.directory:
                self._put(walk.directory, part, {})
            walk.enter([part])
        return walk

    def _walk(self, *, rooted: bool = False) -> _Walk:
        return _Walk(self, [self._root], rooted)

    def _replace(self, directory: _Directory, name: bytes, node: bytes) -> None:
        found = directory.get(name)
        if isinstance(found, dict):
            raise InputError("is a file or link where a directory stands already")
        self._link_replaced |= found not in {None, _FILE, _HIDDEN, node}
        self._put(directory, name, node)

    def _put(self, directory: _Directory, name: bytes, node: _Node) -> None:
        if name not in directory:
            self._names += 1
            if self._names > MOST_NAMES:
                raise InputError(f"is the one too many: no more than {MOST_NAMES} names are judged")
        directory[name] = node

    def step(self) -> None:
        """Count a part that is followed."""
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise InputError("is one too many: its names and links take too long to follow")


@dataclass(slots=True)
class _Walk:
    """A way through the tree. ``rooted``: as if the layer were the whole file system.

    Otherwise what is absolute, or leads above the layer, leads out of it.
    """

    tree: GuestTree
    way: list[_Directory]
    rooted: bool
    links: int = 0

    @property
    def directory(self) -> _Directory:
        return self.way[-1]

    def enter(self, parts: Sequence[bytes]) -> None:
        """Follow ``parts`` to a directory."""
        if not self.follow(parts):
            raise InputError("lies below what is no directory")

    def follow(self, parts: Sequence[bytes]) -> bool:
        """Follow ``parts`` to a file or directory; return whether it is a directory."""
        left = list(reversed(parts))
        while left:
            part = left.pop()
            self.tree.step()
            if part == b"..":
                self._up()
            elif part != b"." and not self._into(part, left):
                return False
        return True

    def _into(self, part: bytes, left: list[bytes]) -> bool:
        """Take one step; return whether a directory or more of the way was reached by it."""
        found = self.directory.get(part)
        if found is None:
            raise InputError("leads to what the layer does not have by then")
        if isinstance(found, dict):
            self.way.append(found)
        elif found != _FILE:
            self._through(found)
            left += reversed(_way(found))
        elif left:
            raise InputError("lies below what is no directory")
        return found != _FILE

    def _up(self) -> None:
        if len(self.way) > 1:
            self.way.pop()
        elif not self.rooted:
            raise InputError("leads out of the layer")

    def _through(self, target: bytes) -> None:
        self.links += 1
        if self.links > _MOST_LINKS:
            raise InputError("leads through too many links")
        if target.startswith(b"/"):
            if not self.rooted:
                raise InputError("leads out of the layer")
            del self.way[1:]


def parts_of(name: bytes) -> list[bytes]:
    """Return what a name has between its slashes, `..` included."""
    return [part for part in name.split(b"/") if part not in {b"", b"."}]


def _way(target: bytes) -> list[bytes]:
    """Return the way to a link's target; one that ends in a slash must be a directory."""
    return [part or b"." for part in target.split(b"/")]
