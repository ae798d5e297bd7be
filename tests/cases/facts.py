"""What a case may expect of what its commands left behind."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from tests.cases.differs import CaseDiffersError
from tests.cases.image import exact, find_image, folded
from tests.sim.http_server import Request
from tests.support.documents import Document
from tests.support.image import ENCRYPTED


class Fact(Protocol):
    """Something that must hold afterwards."""

    def check(self, seen: Sequence[Request]) -> None:
        """Raise CaseDiffersError unless it holds; ``seen`` is what the registry was asked."""


@dataclass(frozen=True, kw_only=True)
class Absent:
    """Nothing has this path, not even a broken link."""

    path: str

    def check(self, seen: Sequence[Request]) -> None:  # noqa: ARG002
        if os.path.lexists(self.path):
            raise CaseDiffersError(f"{Path(self.path).name} was written")


@dataclass(frozen=True, kw_only=True)
class Present:
    """Something has this path."""

    path: str

    def check(self, seen: Sequence[Request]) -> None:  # noqa: ARG002
        if not os.path.lexists(self.path):
            raise CaseDiffersError(f"{Path(self.path).name} is gone")


@dataclass(frozen=True, kw_only=True)
class NoText:
    """No file under a path has this text, as it is or decompressed with gzip."""

    path: str
    text: str

    def check(self, seen: Sequence[Request]) -> None:  # noqa: ARG002
        top = Path(self.path)
        for file in filter(Path.is_file, (top, *top.rglob("*"))):
            if any(self.text.encode() in data for data in _contents(file)):
                raise CaseDiffersError(f"'{self.text}' can be read in {top.name}: {file.name}")


@dataclass(frozen=True, kw_only=True)
class DescriptorCheck:
    """What a case expects of a layer, or of an entry of an index."""

    digest: str | None = None
    mediaType: str | None = None  # noqa: N815
    encrypted: bool | None = None
    annotations: dict[str, str] = field(default_factory=dict)
    annotations_have: list[str] = field(default_factory=list)
    """Beginnings of names."""
    annotations_lack: list[str] = field(default_factory=list)
    platform: Document | None = None

    def check(self, where: str, descriptor: Document) -> None:
        for name, value in (
            ("digest", self.digest),
            ("mediaType", self.mediaType),
            ("platform", self.platform),
        ):
            if value is not None and descriptor.get(name) != value:
                raise CaseDiffersError(f"{where}: {name} is {descriptor.get(name)}, not {value}")
        media_type = descriptor["mediaType"]
        if self.encrypted is not None and media_type.endswith(ENCRYPTED) != self.encrypted:
            raise CaseDiffersError(f"{where} is {media_type}")
        self._annotations(where, descriptor.get("annotations", {}))

    def _annotations(self, where: str, annotations: dict[str, str]) -> None:
        for name, value in self.annotations.items():
            if annotations.get(name) != value:
                found = annotations.get(name)
                raise CaseDiffersError(f"{where}: annotation {name} is {found}, not {value}")
        for start in self.annotations_have:
            if not any(name.startswith(start) for name in annotations):
                raise CaseDiffersError(f"{where}: annotation {start} is missing")
        for start in self.annotations_lack:
            if any(name.startswith(start) for name in annotations):
                raise CaseDiffersError(f"{where}: annotation {start} is there")


@dataclass(frozen=True, kw_only=True)
class ImageCheck:
    """An image in a layout has these layers or entries, and this config."""

    image: str
    entry: list[int] = field(default_factory=list)
    """Positions in indexes, from the top down to the manifest that is meant."""
    layers: list[dict[str, Any]] | None = None
    entries: list[dict[str, Any]] | None = None
    config: str | None = None

    def check(self, seen: Sequence[Request]) -> None:  # noqa: ARG002
        image = find_image(self.image)
        manifest = image.manifest(self.entry)
        if self.layers is not None:
            if not self.entry and len(leaves := list(image.leaves(exact))) == 1:
                (manifest,) = leaves  # an index of one image will do
            _check_each("layer", self.layers, manifest.get("layers", []))
        if self.config is not None and manifest["config"]["digest"] != self.config:
            raise CaseDiffersError("the config was changed")
        if self.entries is not None:
            _check_each("entry", self.entries, manifest.get("manifests", []))


@dataclass(frozen=True, kw_only=True)
class AllEncrypted:
    """Every layer of an image is encrypted, for readers of exact and of folded names."""

    image: str

    def check(self, seen: Sequence[Request]) -> None:  # noqa: ARG002
        image = find_image(self.image)
        for read in (exact, folded):
            for manifest in image.leaves(read):
                for layer in manifest.get("layers", []):
                    if not layer["mediaType"].endswith(ENCRYPTED):
                        raise CaseDiffersError(
                            f"some readers see a layer of type {layer['mediaType']}"
                        )


@dataclass(frozen=True, kw_only=True)
class Requests:
    """The registry had at most so many requests whose path matches a regular expression."""

    methods: list[str]
    path: str
    at_most: int

    def check(self, seen: Sequence[Request]) -> None:
        count = sum(r.method in self.methods and bool(re.search(self.path, r.path)) for r in seen)
        if count > self.at_most:
            raise CaseDiffersError(f"{count} requests for {self.path}, more than {self.at_most}")


FACTS: Final[dict[str, Callable[..., Fact]]] = {
    "absent": Absent,
    "present": Present,
    "no text": NoText,
    "image": ImageCheck,
    "all encrypted for all readers": AllEncrypted,
    "requests": Requests,
}


def read_fact(document: dict[str, Any]) -> Fact:
    """Read an item of ``facts``; raises KeyError or TypeError for what the format has not."""
    members = dict(document)
    return FACTS[members.pop("check")](**members)


def _check_each(what: str, expected: Sequence[dict[str, Any]], found: Sequence[Document]) -> None:
    if len(found) != len(expected):
        raise CaseDiffersError(f"{what} count is {len(found)}, not {len(expected)}")
    for number, (members, descriptor) in enumerate(zip(expected, found, strict=True)):
        DescriptorCheck(**members).check(f"{what} {number}", descriptor)


def _contents(file: Path) -> Iterator[bytes]:
    data = file.read_bytes()
    yield data
    if data.startswith(b"\x1f\x8b"):
        try:
            yield zlib.decompressobj(31).decompress(data, 64 << 20)
        except zlib.error:
            return
