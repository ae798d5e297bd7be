"""Reads the images that commands wrote, as readers do for whom names differ in case or do not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.cases.differs import CaseDiffersError
from tests.cases.registry import REF_NAME
from tests.support.documents import Document
from tests.support.layout import entries

Read = Callable[[bytes], Document]

MEMBERS: Final = ("mediaType", "config", "layers", "manifests", "digest", "size", "urls")


@dataclass(frozen=True)
class Image:
    """An image in a layout."""

    layout: Path
    top: Document
    """Its entry in the layout's own index."""

    def manifest(self, path: Iterable[int] = ()) -> Document:
        """Return its manifest or index, or the one that these positions in indexes lead to."""
        document = exact(self._blob(self.top))
        for number in path:
            document = exact(self._blob(document["manifests"][number]))
        return document

    def leaves(self, read: Read) -> Iterator[Document]:
        """Yield the manifests of all platforms, as a reader reads them."""
        return self._leaves(self.top, read)

    def _leaves(self, descriptor: Document, read: Read) -> Iterator[Document]:
        document = read(self._blob(descriptor))
        if "manifests" not in document:
            yield document
        for child in document.get("manifests", []):
            yield from self._leaves(child, read)

    def _blob(self, descriptor: Document) -> bytes:
        algorithm, _, digest = str(descriptor["digest"]).partition(":")
        path = self.layout / "blobs" / algorithm / digest
        if not path.exists():
            raise CaseDiffersError(f"blob {descriptor['digest']} is not there")
        return path.read_bytes()


def find_image(reference: str) -> Image:
    """Return the image ``LAYOUT:NAME``, or the first one of ``LAYOUT``."""
    folder, _, name = reference.partition(":")
    layout = Path(folder)
    if not (layout / "index.json").exists():
        raise CaseDiffersError(f"{layout.name} was not written")
    for entry in entries(layout):
        if not name or entry.get("annotations", {}).get(REF_NAME) == name:
            return Image(layout, entry)
    raise CaseDiffersError(f"{layout.name} has no image {name}")


def exact(data: bytes) -> Document:
    """Read a document as it stands."""
    document: Document = json.loads(data)
    return document


def folded(data: bytes) -> Document:
    """Read a document as Go's encoding/json does: case is folded, and the last member counts."""
    known = {_fold(name): name for name in MEMBERS}

    def members(pairs: list[tuple[str, Any]]) -> Document:
        return {known.get(_fold(name), name): value for name, value in pairs}

    document: Document = json.loads(data, object_pairs_hook=members)
    return document


def _fold(name: str) -> str:
    return name.replace("\u017f", "s").lower()  # lower() knows the Kelvin sign, but not long s
