"""A directory of KEKs: ``<repository>/<type>/<tag>``, as ``--key-dir`` names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from coco_kp.crypto import Kek
from coco_kp.errors import InputError, RefusedError
from coco_kp.files import is_there, reason, sync_directory, write_file
from coco_kp.keys.kek_file import read_kek
from coco_kp.model.resource_uri import ResourceUri
from coco_kp.redact import shown


def find_kek(key_dir: Path, kid: ResourceUri) -> Kek | None:
    """Return the key that the directory has for a key ID. Raises ``KekError``."""
    if not is_there(key_dir / kid.path):
        return None
    return read_kek(Path(kid.path), key_dir).kek


def find_or_make_kek(key_dir: Path, kid: ResourceUri, draw: Callable[[], Kek]) -> Kek:
    """Return the key of a key ID, drawn and kept at the first call; all who ask get the same.

    Raises ``KekError``, ``InputError``, ``RefusedError``.
    """
    found = find_kek(key_dir, kid)
    if found:
        return found
    kek = draw()
    try:
        _keep(kek, key_dir, kid)
    except RefusedError:
        found = find_kek(key_dir, kid)  # somebody else was faster
        if not found:
            raise
        return found
    return kek


def check_named_key(key_dir: Path, path: Path, kek: Kek, kid: ResourceUri) -> None:
    """Raise ``RefusedError`` if a key file in the directory is the key of another key ID."""
    try:
        parts = (key_dir / path).resolve().relative_to(key_dir.resolve()).parts
    except ValueError:
        parts = ()
    own = find_kek(key_dir, kid)
    # Key IDs have three parts, those of a KBS's plugin pkcs11 four.
    if (own is None and len(parts) > 2 and "/".join(parts) != kid.path) or (
        own is not None and own.fingerprint != kek.fingerprint
    ):
        raise RefusedError(
            f"keypath {shown(str(path))} and keyid '{kid}' name different keys",
            f"the key of '{kid}' is the file {kid.path} of the directory of keys",
        )


def _keep(kek: Kek, key_dir: Path, kid: ResourceUri) -> None:
    """Put a KEK on the disk, with every directory on the way to it."""
    root = key_dir.resolve()
    file = (root / kid.path).resolve()
    if not file.is_relative_to(root):
        raise RefusedError(f"{shown(str(key_dir / kid.path))} leads out of the directory of keys")
    try:
        inside = [parent for parent in file.parents if parent.is_relative_to(root)]
        for directory in reversed(inside[:-1]):
            directory.mkdir(mode=0o700, exist_ok=True)
            sync_directory(directory.parent)
    except OSError as failure:
        raise InputError(f"cannot store a key in {shown(str(file))}: {reason(failure)}") from None
    write_file(file, kek.raw(), replace=False)
