"""Tar archives as tables of members: nothing is ever extracted, names are only looked up.

POSIX.1-2001 (ustar, pax) and GNU long names and sizes, as docker, podman, skopeo and tar write
them. The module :mod:`tarfile` is not used for reading: it keeps extended headers of any size in
memory. Refused are names that could lead out of a directory (absolute, ``..``), devices and pipes,
and sparse members.

Of members of one name, as ``tar -r`` appends them, the last counts, as where the archive is
unpacked: so do docker, and skopeo with OCI archives. skopeo looks for the first in docker's
archives, see :meth:`TarFile.check_alike`. A hard link is to what its target was where the link
stands; nothing may stand below a name that is not a directory, for unpacking would lead elsewhere.
Refused is also whatever Go's reader, which docker, podman and skopeo have, takes for another name
than GNU tar.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import tarfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

from coco_kp.errors import InputError
from coco_kp.files import close, open_regular
from coco_kp.redact import shown
from coco_kp.transport.base import CHUNK
from coco_kp.transport.compressed import HEAD, Compression, DamagedError, compression_of, unpacked
from coco_kp.transport.files import FilePart, naming, naming_temporary, unnamed_file, write_all
from coco_kp.unpacking import Unpacking
from coco_kp.values import dataclass

BLOCK: Final = 512
MAX_MEMBERS: Final = 100_000
MAX_NAMES: Final = 32 * 1024 * 1024
"""Characters of all names and links together, which are held in memory; real ones have 100 each."""

_MAX_EXTENDED: Final = 64 * 1024
"""Bytes of one extended header; a path and a few attributes need less than one block."""

_ANEW: Final = "unpack it, pack it anew"

_FILES: Final = b"\x0007"
_HARD_LINK: Final = b"1"
_SYMBOLIC_LINK: Final = b"2"
_FOLDER: Final = b"5"


@dataclass(frozen=True, slots=True)
class Member:
    """A plain file in an archive: where its ``size`` bytes start; or a link, to what."""

    offset: int
    size: int
    link: str | None = None


class TarFile:
    """An open archive: ``fd``, and its members by name (without a leading ``./``).

    A compressed archive is first unpacked into a temporary file without a name, within the bounds
    of ``unpacking``.
    """

    def __init__(self, path: Path, unpacking: Unpacking | None = None) -> None:
        self.path = path
        self.fd = open_regular(path)
        try:
            if compression := compression_of(self.pread(HEAD, 0)):
                allowed = unpacking or Unpacking()
                packed, self.fd = self.fd, _unpacked(self.fd, path, compression, allowed)
                close(packed)
            self._digests: dict[Member, str] = {}
            with naming("read", path):
                self.members, self._first = _read_members(self.fd, path)
        except BaseException:
            self.close()
            raise

    def resolve(self, name: str) -> Member | None:
        """Find a plain file, through one link if need be."""
        return _resolve(name, self.members)

    def check_alike(self, name: str) -> None:
        """Check that the first and the last member of a name have the same content.

        Raises ``InputError`` where a reader that takes the first reads another file.
        """
        first, last = _resolve(name, self._first), _resolve(name, self.members)
        if first != last and (first is None or last is None or not self._same(first, last)):
            raise InputError(
                f"'{self.path}' has {shown(name)} twice, with different content",
                f"podman and skopeo read the first, docker the last: {_ANEW}",
            )

    def sha256(self, member: Member) -> str:
        """Return the digest of a plain file in hex; each is read once, however often it is named.

        Raises ``InputError``.
        """
        found = self._digests.get(member)
        if found is None:
            hasher = hashlib.sha256()
            for done in range(0, member.size, CHUNK):
                size = min(CHUNK, member.size - done)
                hasher.update(self.pread(size, member.offset + done))
            found = self._digests[member] = hasher.hexdigest()
        return found

    def _same(self, one: Member, other: Member) -> bool:
        return one.size == other.size and self.sha256(one) == self.sha256(other)

    def read(self, name: str, limit: int) -> bytes:
        """Read a small member. Raises ``InputError`` if it is missing or longer than ``limit``."""
        member = self.resolve(name)
        if member is None:
            raise InputError(f"'{self.path}' has no {shown(name)}")
        if member.size > limit:
            raise InputError(f"{shown(name)} in '{self.path}' is longer than {limit} bytes")
        return self.pread(member.size, member.offset)

    def pread(self, size: int, offset: int) -> bytes:
        """Read ``size`` bytes at ``offset``. Raises ``InputError``."""
        with naming("read", self.path):
            return os.pread(self.fd, size, offset)

    def part(self, member: Member) -> FilePart:
        """Return the bytes of a plain file."""
        return FilePart(self.fd, member.offset, member.size, whole=False, path=self.path)

    def close(self) -> None:
        """Close the archive; a second call does nothing."""
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1


def member_header(name: str, size: int) -> bytes:
    """Return the header of a plain file, the same for the same name and size."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


def padding(size: int) -> bytes:
    """Return the zero bytes between a member of ``size`` bytes and the next header."""
    return bytes(-size % BLOCK)


END: Final = bytes(2 * BLOCK)
"""Two zero blocks end an archive."""


def _resolve(name: str, members: dict[str, Member]) -> Member | None:
    member = members.get(name)
    if member is not None and member.link is not None:
        member = members.get(member.link)
    return None if member is None or member.link is not None else member


def _read_members(fd: int, path: Path) -> tuple[dict[str, Member], dict[str, Member]]:
    """Read the table of members: the last of each name, and the first."""
    last: dict[str, Member] = {}
    first: dict[str, Member] = {}
    folders: set[str] = set()
    length, letters = os.fstat(fd).st_size, 0
    for count, (kind, stored_name, link, member) in enumerate(_headers(fd, path)):
        if count >= MAX_MEMBERS:
            raise InputError(f"'{path}' has more than {MAX_MEMBERS} members")
        letters += len(stored_name) + len(link)
        if letters > MAX_NAMES:
            raise InputError(f"'{path}' has names of more than {MAX_NAMES} characters together")
        name = _safe_name(stored_name, path)
        # Before POSIX, a slash at the end of its name was all that told a directory.
        called_folder = kind in _FILES and stored_name.endswith("/")
        if kind == _FOLDER or (called_folder and not member.size):
            folders.add(name)
            continue
        if kind == _HARD_LINK:
            target = last.get(posixpath.normpath(link))
            if target is None or target.link is not None:
                raise InputError(f"{shown(name)} in '{path}' is a hard link to no file before it")
            found = target
        elif kind == _SYMBOLIC_LINK:
            # It counts from its own directory.
            found = Member(0, 0, posixpath.normpath(posixpath.join(posixpath.dirname(name), link)))
        elif kind not in _FILES or called_folder:
            raise InputError(f"{shown(name)} in '{path}' is neither a file nor a directory")
        elif member.offset + member.size > length:
            raise InputError(f"'{path}' is cut off in {shown(name)}")
        else:
            found = member
        last[name] = found
        first.setdefault(name, found)
    _check_folders(last, folders, path)
    return last, first


def _check_folders(members: dict[str, Member], folders: set[str], path: Path) -> None:
    """Check that no name is a directory and something else, or stands below something else."""
    # With "/" before all other characters, a name that stands below another follows it.
    names = sorted(members.keys() | folders, key=lambda name: name.replace("/", "\0"))
    wrong = sorted(members.keys() & folders) or [
        above
        for above, name in pairwise(names)
        if above in members and name.startswith(f"{above}/")
    ]
    if wrong:
        raise InputError(f"{shown(wrong[0])} in '{path}' is a directory and something else")


def _headers(fd: int, path: Path) -> Iterator[tuple[bytes, str, str, Member]]:
    """Walk the headers; yield kind, name, link target and place of each member."""
    said: dict[bytes, dict[str, str]] = {}
    position = 0
    while any(header := os.pread(fd, BLOCK, position)):
        _check_header(header, path)
        position += BLOCK
        kind, size = header[156:157], _number(header[124:136], path)
        if kind in (b"x", b"g", b"L", b"K"):
            found = _extended(kind, _extended_data(fd, position, size, path), path)
            _check_extended(kind, found, said, path)
            if kind != b"g":
                said[kind] = found
        else:
            extended = {name: text for found in said.values() for name, text in found.items()}
            name = extended.get("path") or _header_name(header, path)
            link = extended.get("linkpath") or _text(header[157:257], path)
            # Whatever stands there, no content follows.
            empty = kind in (_HARD_LINK, _SYMBOLIC_LINK, _FOLDER)
            size = 0 if empty else int(extended.get("size", size))
            yield kind, name, link, Member(position, size)
            said = {}
        position += size + -size % BLOCK
    if len(header) < BLOCK:
        raise InputError(f"'{path}' is not a tar archive, or is cut off")


def _check_header(header: bytes, path: Path) -> None:
    if len(header) < BLOCK:
        raise InputError(f"'{path}' is not a tar archive, or is cut off")
    expected = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
    if _number(header[148:156], path) != expected:
        raise InputError(f"'{path}' is not a tar archive, or is damaged")


def _number(field: bytes, path: Path) -> int:
    """Read octal digits, or GNU's base 256 for what they cannot hold."""
    if field[0] == 0x80:
        value = int.from_bytes(field[1:])
    else:
        digits = field.strip(b" \0")
        if not all(digit in b"01234567" for digit in digits):
            raise InputError(f"'{path}' is not a tar archive, or is damaged")
        value = int(digits or b"0", 8)
    if value >= 1 << 62:
        raise InputError(f"'{path}' has a member of {value} bytes")
    return value


def _extended_data(fd: int, position: int, size: int, path: Path) -> bytes:
    if size > _MAX_EXTENDED:
        raise InputError(f"'{path}' has an extended header of {size} bytes")
    return os.pread(fd, size, position)


def _extended(kind: bytes, data: bytes, path: Path) -> dict[str, str]:
    """Read what an extended header says of the next member's path, link and size."""
    match kind:
        case b"L":
            return {"path": _text(data, path)}
        case b"K":
            return {"linkpath": _text(data, path)}
        case _:
            return _pax_records(data, path)


def _check_extended(
    kind: bytes, found: dict[str, str], said: dict[bytes, dict[str, str]], path: Path
) -> None:
    """Refuse a header beside those of which something was ``said``, where readers choose anew.

    Go's forgets the first of two of a kind, and what stands before a global one ("g"), whose words
    on members it does not heed, as others do. Which of GNU's and pax's goes before, all say anew.
    """
    twice = kind in said or any(found.keys() & other.keys() for other in said.values())
    if twice or (kind == b"g" and (found or said)):
        raise InputError(
            f"'{path}' has extended headers that not all readers understand alike", _ANEW
        )


def _pax_records(data: bytes, path: Path) -> dict[str, str]:
    """Read records of a length, a space, a key, an equals sign, a value and a line feed."""
    records = {}
    while data:
        length = data.partition(b" ")[0]
        if not re.fullmatch(rb"[1-9][0-9]{0,5}", length) or int(length) > len(data):
            raise InputError(f"'{path}' has a damaged extended header")
        record, data = data[len(length) + 1 : int(length)], data[int(length) :]
        key, equals, value = record.partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise InputError(f"'{path}' has a damaged extended header")
        if key.startswith(b"GNU.sparse"):
            raise InputError(f"'{path}' has a sparse member")
        if key == b"size" and not re.fullmatch(rb"[0-9]{1,18}\n", value):
            raise InputError(f"'{path}' has a damaged extended header")
        if key in (b"path", b"linkpath", b"size"):
            if b"\0" in value:
                raise InputError(f"'{path}' has a damaged extended header")
            records[key.decode()] = _text(value[:-1], path)
    return records


def _header_name(header: bytes, path: Path) -> str:
    name = _text(header[:100], path)
    prefix = _text(header[345:500], path) if header[257:263] == b"ustar\0" else ""
    if header[257:265] == b"ustar  \0":
        # GNU tar's times, which Go's reader takes for a prefix where they are none.
        for field in (header[345:357], header[357:369]):
            _number(field, path)
    if prefix and b"\0" not in header[345:476] and header[508:] == b"tar\0":
        # Behind 131 bytes star has times, which others take for the end of the prefix.
        raise InputError(f"'{path}' has a name that not all readers understand alike", _ANEW)
    return f"{prefix}/{name}" if prefix else name


def _text(data: bytes, path: Path) -> str:
    try:
        return data.partition(b"\0")[0].decode()
    except UnicodeDecodeError:
        raise InputError(f"'{path}' has a name that is not UTF-8") from None


def _safe_name(name: str, path: Path) -> str:
    if name.startswith("/") or ".." in name.split("/"):
        raise InputError(f"'{path}' has a member that leads out of it: {shown(name)}")
    return posixpath.normpath(name) if name else ""


def _unpacked(fd: int, path: Path, compression: Compression, unpacking: Unpacking) -> int:
    """Unpack an archive into a file without a name."""
    with naming("read", path):
        unpacking.packed(os.fstat(fd).st_size)
    target = unnamed_file()
    try:
        with naming("read", path), os.fdopen(os.dup(fd), "rb") as packed:
            try:
                for piece in unpacked(packed, compression):
                    unpacking.unpacked(len(piece))
                    with naming_temporary():
                        write_all(target, memoryview(piece))
            except DamagedError:
                raise InputError(f"'{path}' is cut off or damaged: {compression} says so") from None
    except BaseException:
        close(target)
        raise
    return target
