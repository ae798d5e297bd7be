"""Blobs of an OCI layout that its index leads to, and the removal of those to which nothing leads.

What stays is chosen generously: whatever a document that is kept calls a digest. Where such a
document cannot be read, nothing is removed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from coco_kp.errors import InputError, RefusedError
from coco_kp.files import read_small_if_there
from coco_kp.model.digest import Digest, parse_digest
from coco_kp.model.encoding import parse_json_object
from coco_kp.model.manifest import MAX_MANIFEST, Descriptor
from coco_kp.transport.files import naming
from coco_kp.transport.layout_index import blob_name

_BLOB: Final = re.compile(r"sha256/[0-9a-f]{64}|sha512/[0-9a-f]{128}")
_POINTING: Final = re.compile("manifest|index", re.IGNORECASE)
"""Media types of documents that name other blobs have one of these words."""


def is_blob_name(path: str) -> bool:
    """Return whether a path inside ``blobs`` is that of a blob."""
    return bool(_BLOB.fullmatch(path))


def all_blobs(folder: Path) -> dict[Digest, int]:
    """Return the blobs of a layout with their sizes in bytes. Raises ``InputError``."""
    blobs = folder / "blobs"
    with naming("read", blobs):
        return {
            parse_digest(f"{path.parent.name}:{path.name}"): path.lstat().st_size
            for path in blobs.glob("*/*")
            if is_blob_name(str(path.relative_to(blobs)))
        }


def reachable(folder: Path, entries: Iterable[Descriptor], *, known: bool = True) -> set[Digest]:
    """Return the digests of all that ``entries`` of a layout's index lead to, their own included.

    Raises ``InputError`` where a document on the way cannot be read, or is not one; with
    ``known=False`` the latter names nothing.
    """
    found: set[Digest] = set()
    waiting = [_Pointer(entry.digest, entry.media_type) for entry in entries]
    while waiting:
        pointer = waiting.pop()
        if pointer.digest in found:
            continue
        found.add(pointer.digest)
        if _POINTING.search(pointer.media_type):
            raw = read_small_if_there(folder / blob_name(pointer.digest), MAX_MANIFEST)
            try:
                waiting += _pointers(_document(raw, pointer.digest))
            except InputError:
                if known:
                    raise
    return found


def remove(folder: Path, blobs: Collection[Digest]) -> None:
    """Remove blobs of a layout. Raises ``RefusedError`` where others may use its blobs.

    Raises ``InputError`` for one that cannot be removed.
    """
    for parent in {(folder / blob_name(digest)).parent for digest in blobs}:
        if parent.is_symlink() or parent.parent.is_symlink():
            raise RefusedError(f"the blobs of '{folder}' lie elsewhere, where others may use them")
    for digest in blobs:
        path = folder / blob_name(digest)
        with naming("remove", path):
            path.unlink(missing_ok=True)


class _Pointer(NamedTuple):
    digest: Digest
    media_type: str


def _document(raw: bytes | None, digest: Digest) -> Mapping[str, object]:
    return {} if raw is None else parse_json_object(raw, f"the manifest {digest}", MAX_MANIFEST)


def _pointers(document: object) -> Iterator[_Pointer]:
    """Yield whatever a document, or any part of it, calls a digest, as lenient as any reader."""
    waiting = [document]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            waiting += part.values()
            members = {name.casefold(): value for name, value in part.items()}
            try:
                digest = parse_digest(str(members.get("digest")))
            except InputError:
                continue
            # Without a type, it may be a manifest.
            yield _Pointer(digest, str(members.get("mediatype") or "manifest"))
