"""KEK files: 32 raw bytes, nothing else."""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from pathlib import Path

from coco_kp.crypto import KEK_SIZE, Kek
from coco_kp.errors import KekError, KeyPathForbiddenError, shown
from coco_kp.files import read_file

_LONGEST_READ = 4096  # enough to tell what a wrong file is


@dataclass(frozen=True, slots=True)
class KekFile:
    """A KEK as a file held it, with what its owner should know about the file."""

    kek: Kek
    warnings: tuple[str, ...]


def read_kek(path: Path, key_dir: Path | None = None) -> KekFile:
    """Read a KEK. With ``key_dir`` only files under it count, symbolic links resolved.

    A relative path starts at ``key_dir``, or at the working directory without one. Raises
    ``KekError`` for a file that cannot be read or is no KEK, ``KeyPathForbiddenError`` for one
    outside ``key_dir``.
    """
    if key_dir is not None:
        path = _within(key_dir, path)
    data, shared = read_file(path, _LONGEST_READ, KekError)
    if len(data) != KEK_SIZE:
        raise _not_a_kek(path, data)
    warning = f"others may read the key file {shown(str(path))}: chmod 600 it"
    return KekFile(Kek(data), (warning,) if shared else ())


def _within(key_dir: Path, path: Path) -> Path:
    # One answer for all files outside, whether they exist or not: a caller learns nothing of them.
    try:
        resolved = (key_dir / path).resolve()
        inside = resolved.is_relative_to(key_dir.resolve())
    except (OSError, RuntimeError):  # a loop of symbolic links
        inside = False
    if not inside:
        raise KeyPathForbiddenError(
            f"the key file {shown(str(path))} is outside the folder that this provider may read",
            "put the key into the folder that --key-dir names",
        )
    return resolved


def _not_a_kek(path: Path, data: bytes) -> KekError:
    name = shown(str(path))
    expected = f"expected a {KEK_SIZE}-byte key in {name}"
    make_one = f"make one with: head -c {KEK_SIZE} /dev/urandom > key"
    if not data:
        return KekError(f"{expected}, found an empty file", make_one)
    if len(data) > _LONGEST_READ:
        return KekError(f"{expected}, found more than {_LONGEST_READ} bytes", make_one)
    found = f"{expected}, found {len(data)} bytes"
    stripped = data.strip()
    if _decodes_to_a_kek(stripped):
        return KekError(found, "the file looks like base64; decode it: base64 -d key.b64 > key")
    if re.fullmatch(rb"[0-9A-Fa-f]{64}", stripped):
        return KekError(
            found,
            "the file looks like hex; decode it: tr a-f A-F < key.hex | basenc -d --base16 > key",
        )
    if data[KEK_SIZE:] in {b"\n", b"\r\n"}:
        return KekError(found, "a line break follows the key; cut it off: head -c 32 old > key")
    return KekError(found, make_one)


def _decodes_to_a_kek(text: bytes) -> bool:
    try:
        return len(binascii.a2b_base64(text, strict_mode=True)) == KEK_SIZE
    except ValueError:
        return False
