"""What was registered where: one small file for each key ID of each KBS, with a fingerprint.

A KBS overwrites silently and cannot be asked what it has, so this record alone keeps a key that
images depend on from being replaced. It also makes registrations of one key ID wait for each other,
across threads and processes: who holds an entry holds its lock. No key is in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from coco_kp.errors import InputError, UnreachableError, UnrecordedError
from coco_kp.files import brief, close, is_there, read_file, reason, sync_directory
from coco_kp.locks import lock
from coco_kp.model.encoding import parse_json_object, write_json
from coco_kp.redact import shown
from coco_kp.values import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from coco_kp.model.kbs_url import KbsUrl
    from coco_kp.model.resource_uri import ResourceUri

_MAX_ENTRY: Final = 8192  # bytes

_UNKNOWN: Final = "unknown"
"""What begins in place of a fingerprint that cannot be read, and equals none."""


def default_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the directory of this user: ``$XDG_STATE_HOME/coco-kp/registered`` or its usual place.

    Raises ``InputError`` if the user has no home.
    """
    state = Path(environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():  # to be ignored, says the XDG Base Directory Specification
        try:
            state = Path.home() / ".local" / "state"
        except RuntimeError:  # a container's user without a name
            raise InputError(
                "there is no home to keep the record of registered keys in",
                "set XDG_STATE_HOME to a directory that can be written",
            ) from None
    return state / "coco-kp" / "registered"


@dataclass(frozen=True, slots=True)
class Record:
    """The record in one directory, which is made when it is first needed."""

    folder: Path

    @contextlib.contextmanager
    def entry(self, kbs: KbsUrl, kid: ResourceUri) -> Iterator[Entry]:
        """Hold the entry of a key ID; others wait, while they have time.

        Raises ``UnreachableError`` if another registration takes that long, ``InputError`` if the
        directory cannot be used.
        """
        here = str(replace(kid, address=""))
        file = self._file(kbs, kid)
        with self._locked(file, f"another registration of '{kid}' is still running") as held:
            yield Entry(held, file, str(kbs), here)

    @contextlib.contextmanager
    def naming(self, kbs: KbsUrl, fingerprint: str) -> Iterator[None]:
        """Keep others from giving a key a name at the same time. To be held around its entry.

        Raises as ``entry`` does.
        """
        name = f"{kbs} {fingerprint}"
        file = self.folder / f"{hashlib.sha256(name.encode()).hexdigest()}.lock"
        with self._locked(file, "another registration of the same key is still running"):
            yield

    @contextlib.contextmanager
    def _locked(self, file: Path, otherwise: str) -> Iterator[int]:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(file, flags, 0o600)
        except OSError as failure:
            raise InputError(
                f"cannot keep the record of registered keys in {shown(str(self.folder))}: "
                f"{reason(failure)}",
                "set XDG_STATE_HOME to a directory that can be written",
            ) from None
        try:
            if not lock(descriptor, brief(file)):
                raise UnreachableError(otherwise)
            yield descriptor
        finally:
            close(descriptor)  # gives the lock back

    def fingerprint(self, kbs: KbsUrl, kid: ResourceUri) -> str:
        """Return what an entry says, without its lock and without making one."""
        file = self._file(kbs, kid)
        try:
            return _fingerprint(_read(file), file)
        except InputError as error:
            return f"{_UNKNOWN}: {error.message}"

    def names(self, kbs: KbsUrl, fingerprint: str) -> set[str]:
        """Return the key IDs under which a key was registered with a KBS.

        An entry that cannot be read names no key. Raises ``InputError`` if none can be listed.
        """
        return {
            str(entry.get("kid"))
            for _, entry in self._entries()
            if (entry.get("kbs"), entry.get("fingerprint")) == (str(kbs), fingerprint)
        }

    def times(self) -> dict[str, dict[str, datetime]]:
        """Return when each key ID was last registered from here, by KBS.

        An entry that cannot be read is left out. Raises ``InputError`` if none can be listed.
        """
        found: dict[str, dict[str, datetime]] = {}
        for file, entry in self._entries():
            kid, kbs = entry.get("kid"), entry.get("kbs")
            if isinstance(kid, str) and isinstance(kbs, str):
                with contextlib.suppress(OSError):
                    # It is written at each registration, and by nothing else.
                    at = datetime.fromtimestamp(file.stat().st_mtime, UTC)
                    found.setdefault(kid, {})[kbs] = at
        return found

    def _entries(self) -> Iterator[tuple[Path, dict[str, object]]]:
        """Find the entries that can be read. Raises ``InputError`` if none can be listed."""
        try:
            files = [file for file in self.folder.iterdir() if file.suffix == ".json"]
        except FileNotFoundError:
            return
        except OSError as failure:
            raise InputError(
                f"cannot read the record of registered keys in {shown(str(self.folder))}: "
                f"{reason(failure)}"
            ) from None
        for file in files:
            with contextlib.suppress(InputError):
                yield file, parse_json_object(_read(file), "entry", _MAX_ENTRY)

    def _file(self, kbs: KbsUrl, kid: ResourceUri) -> Path:
        name = f"{kbs} {replace(kid, address='')}"
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()}.json"


def _read(file: Path) -> bytes:
    """Read an entry; nothing where there is none. Raises ``InputError``."""
    return read_file(file, _MAX_ENTRY, named=brief(file)).data if is_there(file) else b""


def _fingerprint(data: bytes, file: Path) -> str:
    if not data:
        return ""
    try:
        fingerprint = parse_json_object(data, "entry", _MAX_ENTRY).get("fingerprint")
    except InputError:
        fingerprint = None
    return str(fingerprint or "") or f"{_UNKNOWN}: {shown(str(brief(file)))} is damaged"


@dataclass(frozen=True, slots=True)
class Entry:
    """What the record says of one key ID, while nobody else can change it."""

    _descriptor: int
    _file: Path
    _kbs: str
    _kid: str

    def fingerprint(self) -> str:
        """Return the fingerprint of the key that was registered, empty if there was none.

        An entry that cannot be read equals no fingerprint: nobody knows what depends on it.
        """
        try:
            data = os.pread(self._descriptor, _MAX_ENTRY + 1, 0)
        except OSError as failure:
            return f"{_UNKNOWN}: cannot read {shown(str(brief(self._file)))}: {reason(failure)}"
        return _fingerprint(data, self._file)

    def write(self, fingerprint: str) -> None:
        """Remember that this key is registered now. Raises ``UnrecordedError``."""
        data = write_json({"kbs": self._kbs, "kid": self._kid, "fingerprint": fingerprint}) + b"\n"
        try:
            # Never empty on the way: what a crash or a full disk leaves is the old entry or damage.
            os.pwrite(self._descriptor, data, 0)
            os.ftruncate(self._descriptor, len(data))
            os.fsync(self._descriptor)
            sync_directory(self._file.parent)
        except OSError as failure:
            record = shown(str(brief(self._file)))
            raise UnrecordedError(
                f"'{self._kid}' is registered, and the record {record} cannot be written: "
                f"{reason(failure)}"
            ) from None
