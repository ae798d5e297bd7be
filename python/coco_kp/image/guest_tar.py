"""What a guest makes of a layer's content, a tar archive: would it unpack it, and if not, why not.

A guest unpacks with rules of its own, those of image-rs and its reader, astral-tokio-tar 0.6: it
reads on behind the end blocks, forgives no field that it reads, and gives up the image at the first
entry that it cannot write (tests/recordings/guest.json, "tar form", and guest-tar.json). Python's
tarfile skips or mends much of that, and pulls from a stream where this one is pushed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from coco_kp.errors import InputError
from coco_kp.image.guest_tree import GuestTree, parts_of
from coco_kp.model.tar_header import BLOCK, SparseMap, TarHeader, parse_pax_records

MOST_ENTRIES: Final = 1_000_000
"""Entries of one layer that are judged; about half a minute."""

MOST_RECORD: Final = 1 << 20
"""Bytes of one long name or pax header; Go's reader of archives takes no more either."""

LONGEST_NAME: Final = 4096 - 256
"""Bytes: Linux takes less than 4096 (PATH_MAX), and a guest puts a directory in front."""

LONGEST_PART: Final = 255
"""Bytes between two slashes that file systems take (NAME_MAX)."""

_GZIP_CHECKSUM: Final = 2  # FHCRC, of a header's flags (RFC 1952, 2.3.1)
_NO_BLOCK: Final = bytes(BLOCK)
_WHITEOUT: Final = b".wh."  # image-spec layer.md, "Whiteouts"
_OPAQUE: Final = b".wh..wh..opq"
_KINDS: Final = {b"1": "hard link", b"2": "symbolic link", b"5": "directory", b"g": "global header"}


class GuestTar:
    """Judges a layer's content that passes by in pieces, as a guest would that unpacks it.

    ``fault`` says why it would refuse it, once that is known. It names no file: names are part of
    what is secret. Names are held in memory, up to `guest_tree.MOST_NAMES`; content is not.
    """

    def __init__(self) -> None:
        self.fault: InputError | None = None
        self._tree = GuestTree()
        self._extensions = _Extensions()
        self._entries = 0
        self._offset = 0
        self._start = 0  # of the last header
        self._skip = 0  # bytes of content and padding
        self._held = bytearray()
        self._wanted = BLOCK
        self._then: Callable[[bytes], None] | None = None  # takes what is held; None: a header

    def update(self, data: bytes | memoryview) -> None:
        """Take the next piece of the content."""
        if self.fault is None:
            try:
                self._take(memoryview(data))
            except InputError as fault:
                self.fault = self._refusal(f"the entry at block {self._start // BLOCK}", fault)

    def finish(self, gzip_flags: int) -> None:
        """End the layer; ``gzip_flags`` are those of all its gzip headers, 0 if it has none."""
        if self.fault is None:
            try:
                self._check_end(gzip_flags)
            except InputError as fault:
                self.fault = self._refusal("it", fault)

    def _refusal(self, subject: str, fault: InputError) -> InputError:
        return InputError(
            f"guests refuse the layer's content: {subject} {fault.message}",
            "decrypt the image, and tar --list --block-number shows what the layer has where"
            if subject != "it"
            else "",
        )

    def _check_end(self, gzip_flags: int) -> None:
        if gzip_flags & _GZIP_CHECKSUM:
            raise InputError("has a gzip header with a checksum (FHCRC)")
        if self._skip or self._held or self._then:
            raise InputError("ends early")
        self._extensions.check_none()
        self._tree.finish()

    def _take(self, data: memoryview) -> None:
        while data:
            if self._skip:
                count = min(self._skip, len(data))
                self._skip -= count
            else:
                count = min(self._wanted - len(self._held), len(data))
                self._held += data[:count]
            self._offset += count
            data = data[count:]
            if len(self._held) == self._wanted:
                held = bytes(self._held)
                self._held.clear()
                then, self._then, self._wanted = self._then or self._header, None, BLOCK
                then(held)

    def _header(self, block: bytes) -> None:
        if block == _NO_BLOCK:
            self._extensions.check_none()
            return
        self._start = self._offset - BLOCK
        self._entries += 1
        if self._entries > MOST_ENTRIES:
            raise InputError(f"is the one too many: no more than {MOST_ENTRIES} are judged")
        header = TarHeader(block)
        take = self._extensions.taker(header)
        if take:
            self._extension(header.size, take)
        elif header.kind == b"S":
            self._sparse(header, header.sparse_map())
        else:
            self._entry(header)

    def _extension(self, size: int, take: Callable[[bytes], None]) -> None:
        if size > MOST_RECORD:
            raise InputError(f"is a name or pax header of {size} bytes: {MOST_RECORD} are read")
        if size:
            self._wanted = _padded(size)
            self._then = lambda padded: take(padded[:size])
        else:
            take(b"")

    def _sparse(self, header: TarHeader, places: SparseMap, block: bytes | None = None) -> None:
        if block:
            places.extend(block)
        if places.goes_on:
            self._then = partial(self._sparse, header, places)
        else:
            places.finish()
            self._entry(header)

    def _entry(self, header: TarHeader) -> None:
        said = self._extensions
        self._extensions = _Extensions()
        pax = said.pax or {}
        if header.kind == b"g":  # it describes others
            self._skip = _padded(header.size)
        else:
            self._skip = _padded(_number(pax, b"size", header.size))
            if any(key.startswith(b"GNU.sparse.") for key in pax):
                raise InputError("is a sparse file in pax form, whose holes guests do not make")
        if max(_number(pax, b"uid", header.uid), _number(pax, b"gid", header.gid)) >= 1 << 32:
            raise InputError("has an owner that is no number of 32 bits")
        name = pax.get(b"path", header.name) if said.name is None else said.name
        target = pax.get(b"linkpath", header.target) if said.target is None else said.target
        self._unpack(header, name, target)

    def _unpack(self, header: TarHeader, name: bytes, target: bytes) -> None:
        mtime = header.mtime
        parts = _name_parts(name)
        if not parts:
            return  # the layer's own directory
        kind, tree = _kind(header, name), self._tree
        if parts[-1] == _OPAQUE:
            tree.make_opaque(parts)
        elif parts[-1].startswith(_WHITEOUT):
            tree.add_whiteout(parts, parts[-1].removeprefix(_WHITEOUT))
        elif kind == "directory":
            tree.add_directory(parts)
        elif kind == "hard link":
            tree.add_hard_link(parts, _target(target))
        elif kind == "global header":
            tree.find(parts)  # a guest takes it for a file that is there
        elif mtime >= 1 << 63:
            raise InputError("has a time that is out of range")
        elif kind == "symbolic link":
            tree.add_symbolic_link(parts, _target(target))
        else:
            tree.add_file(parts)


class _Extensions:
    """What the headers before an entry say of it: GNU's long name and target, a pax header."""

    def __init__(self) -> None:
        self.name: bytes | None = None
        self.target: bytes | None = None
        self.pax: dict[bytes, bytes] | None = None

    def taker(self, header: TarHeader) -> Callable[[bytes], None] | None:
        """Return what takes the content of such a header; None for that of an entry."""
        known = {
            b"L": (self._take_name, header.ustar or header.gnu),
            b"K": (self._take_target, header.ustar or header.gnu),
            b"x": (self._take_pax, header.ustar),
        }
        if header.kind == b"X" and header.ustar:  # Solaris
            return self._take_pax
        take, fits = known.get(header.kind, (None, True))
        if not fits:
            raise InputError("is an extension in a header of another format")
        return take

    def check_none(self) -> None:
        """Raise ``InputError`` where an entry has yet to come."""
        if (self.name, self.target, self.pax) != (None, None, None):
            raise InputError("announces an entry that does not come")

    def _take_name(self, content: bytes) -> None:
        if self.name is not None:
            raise InputError("has two names")
        self.name = content.partition(b"\0")[0]
        self._check_pax()

    def _take_target(self, content: bytes) -> None:
        if self.target is not None:
            raise InputError("has two targets")
        self.target = content.partition(b"\0")[0]
        self._check_pax()

    def _take_pax(self, content: bytes) -> None:
        if self.pax is not None:
            raise InputError("has two pax headers")
        self.pax = parse_pax_records(content)
        self._check_pax()

    def _check_pax(self) -> None:
        pax = self.pax or {}
        if self.name is not None and b"path" in pax:
            raise InputError("has two names")
        if self.target is not None and b"linkpath" in pax:
            raise InputError("has two targets")


def _name_parts(name: bytes) -> list[bytes]:
    """Return the parts of an entry's name, none for the layer's own directory."""
    parts = parts_of(name)
    if name.startswith(b"/"):
        raise InputError("has an absolute name")
    if b".." in parts:
        raise InputError("has '..' in its name")
    if b"\0" in name or len(name) > LONGEST_NAME or any(len(p) > LONGEST_PART for p in parts):
        raise InputError("has a name that no file can have")
    try:
        b"".join(parts[-1:]).decode()
    except UnicodeDecodeError:
        raise InputError("has a name that is not UTF-8") from None
    return parts


def _kind(header: TarHeader, name: bytes) -> str:
    """Return what a guest takes an entry for: in old formats a last slash makes a directory."""
    kind = _KINDS.get(header.kind, "file")
    if kind != "directory" and name.endswith((b"/", b"/.")):
        if kind == "file" and not header.ustar and name.endswith(b"/"):
            return "directory"
        raise InputError("is no directory, but its name ends as one's")
    return kind


def _target(target: bytes) -> bytes:
    if not target or b"\0" in target or len(target) > LONGEST_NAME:
        raise InputError("is a link to what no file can be called")
    return target


def _number(pax: Mapping[bytes, bytes], key: bytes, otherwise: int) -> int:
    return int(pax[key]) if key in pax else otherwise


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
