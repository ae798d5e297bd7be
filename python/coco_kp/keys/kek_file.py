"""KEK files: 32 raw bytes, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from coco_kp.crypto import KEK_SIZE, Kek
from coco_kp.errors import KekError, KeyPathForbiddenError
from coco_kp.exposure import exposure
from coco_kp.files import StrPath, read_file
from coco_kp.keys.kek import kek_of, resemblance
from coco_kp.redact import shown

_LONGEST_READ: Final = 4096  # enough to tell what a wrong file is

_HINTS: Final = {
    "base64": "the file looks like base64; decode it: base64 -d key.b64 > key",
    "hex": "the file looks like hex; decode it: tr a-f A-F < key.hex | basenc -d --base16 > key",
    "line break": f"a line break follows the key; cut it off: head -c {KEK_SIZE} old > key",
    "PEM": "the file is PEM, as keys of public-key algorithms are; a KEK is 32 random bytes: "
    f"head -c {KEK_SIZE} /dev/urandom > key",
    "keys file": "the file looks like a keys file; take one key out of it",
    "": f"make one with: head -c {KEK_SIZE} /dev/urandom > key",
}


class KekFile(NamedTuple):
    """A KEK as a file held it.

    Attributes:
        kek: The key.
        warnings: What the file's owner should know, such as who else can read it.
    """

    kek: Kek
    warnings: tuple[str, ...]


def read_kek(path: StrPath, key_dir: StrPath | None = None) -> KekFile:
    """Read a KEK from a file of 32 raw bytes.

    Args:
        path: The file. A relative path starts at ``key_dir``, or else at the working directory.
        key_dir: The directory outside of which no file is read, symbolic links resolved.

    Raises:
        KekError: The file cannot be read, or is not a KEK; the hint says what it looks like.
        RefusedError: It is outside ``key_dir``.
    """
    path = Path(path)
    if key_dir is not None:
        path = _within(Path(key_dir), path)
    data, status = read_file(path, _LONGEST_READ, KekError)
    return KekFile(_kek_of(data, shown(str(path))), exposure("key file", path, status))


def _kek_of(data: bytes, name: str) -> Kek:
    if len(data) > _LONGEST_READ:
        found = f"expected a {KEK_SIZE}-byte key in {name}, found more than {_LONGEST_READ} bytes"
        raise KekError(found, _HINTS[""])
    try:
        return kek_of(data, name)
    except KekError as error:
        like = resemblance(data)
        code = "key-is-keys-file" if like == "keys file" else ""
        raise KekError(error.message, _HINTS[like], code=code) from None


def _within(key_dir: Path, path: Path) -> Path:
    # One answer for all files outside, whether they exist or not: a caller learns nothing of them.
    try:
        resolved = (key_dir / path).resolve()
        inside = resolved.is_relative_to(key_dir.resolve())
    except (OSError, RuntimeError):  # a loop of symbolic links
        inside = False
    if not inside:
        raise KeyPathForbiddenError(
            f"the key file {shown(str(path))} is outside the directory that this provider may read",
            "put the key into that directory",
        )
    return resolved
