"""Small images for the tests, as OCI layouts (image-layout.md of the OCI image specification)."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from base64 import b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.support import documents
from tests.support.documents import gzipped
from tests.support.layout import LayoutWriter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# docs/protocols.md 1.1 and 1.2
ENCRYPTED: Final = "+encrypted"
PACKETS: Final = "org.opencontainers.image.enc.keys.provider.attestation-agent"
PUBLIC_OPTIONS: Final = "org.opencontainers.image.enc.pubopts"


@dataclass(frozen=True)
class Image:
    """An image in an OCI layout that holds no other."""

    folder: Path

    @property
    def reference(self) -> str:
        """The image as skopeo names it."""
        return f"oci:{self.folder}"

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest, parsed."""
        (entry,) = json.loads((self.folder / "index.json").read_bytes())["manifests"]
        manifest: dict[str, Any] = json.loads(self.blob(entry))
        return manifest

    @property
    def layers(self) -> list[Layer]:
        """The layers, lowest first."""
        return [
            Layer(d["mediaType"], d.get("annotations", {}), self.blob(d))
            for d in self.manifest["layers"]
        ]

    @property
    def config(self) -> bytes:
        """The config blob."""
        return self.blob(self.manifest["config"])

    def blob(self, descriptor: Mapping[str, Any]) -> bytes:
        """Return the bytes that a descriptor names, checked against its size and digest."""
        algorithm, _, digest = descriptor["digest"].partition(":")
        blob: bytes = (self.folder / "blobs" / algorithm / digest).read_bytes()
        assert len(blob) == descriptor["size"]
        assert hashlib.new(algorithm, blob).hexdigest() == digest
        return blob


@dataclass(frozen=True)
class Layer:
    """A layer as it lies in an image."""

    media_type: str
    annotations: Mapping[str, str]
    blob: bytes

    @property
    def encrypted(self) -> bool:
        """Whether the media type says so."""
        return self.media_type.endswith(ENCRYPTED)

    @property
    def packet(self) -> dict[str, str]:
        """The one packet of the annotation, parsed."""
        packet: dict[str, str] = json.loads(b64decode(self.annotations[PACKETS], validate=True))
        return packet


def write_image(folder: Path, layers: Sequence[bytes | documents.Layer], **more: Any) -> Image:
    """Write an image of these layers, of which tar archives are compressed with gzip.

    The same bytes for the same layers. ``more`` is that of `documents.image`.
    """
    layout = LayoutWriter(folder)
    made = [gzipped(layer) if isinstance(layer, bytes) else layer for layer in layers]
    layout.name(layout.put_image(documents.image(*made, **more)))
    return Image(folder)


def tar(files: Mapping[str, bytes]) -> bytes:
    """Return a tar archive of these files; the same bytes for the same files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()
