"""``docker-archive:path[:name]``, written: what ``docker load`` and ``podman load`` read.

As Docker itself has saved images since version 25: an OCI layout, and beside it the
``manifest.json`` by which older readers find the same blobs. Layers stay compressed as they are,
which all of them read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from coco_kp.errors import InputError, RefusedError
from coco_kp.files import exists
from coco_kp.model.digest import Digest
from coco_kp.model.encoding import write_json
from coco_kp.model.manifest import ImageManifest, Manifest
from coco_kp.model.media_type import is_encrypted
from coco_kp.model.reference import parse_repository_reference
from coco_kp.transport.docker_archive import MANIFEST_FILE
from coco_kp.transport.layout_index import EMPTY_INDEX, REF_NAME, blob_name, parse_layout_index
from coco_kp.transport.oci_archive import OciArchiveSink

_FULL_NAME: Final = "io.containerd.image.name"
"""The annotation by which containerd, and so Docker on it, names an image that it imports."""


class DockerArchiveSink(OciArchiveSink):
    """A new archive with one image that is not encrypted: it keeps no annotations of layers."""

    def _check_destination(self, replacing: Digest | None = None) -> None:  # noqa: ARG002
        """Refuse to replace anything: an archive may hold images of other names."""
        if exists(Path(self._image.path)):
            raise RefusedError(
                f"'{self._image.path}' exists, and Docker archives are not changed",
                "remove it, or choose another name",
            )

    def _documents(self, manifest: Manifest) -> dict[str, bytes]:
        if not isinstance(manifest, ImageManifest):
            raise InputError(f"{self.reference} can hold one image, not an index")
        for layer in manifest.layers:
            if is_encrypted(layer.media_type):
                raise RefusedError(f"{self.reference} cannot hold the encrypted {layer.digest}")
            if not self.has_blob(layer):
                raise InputError(f"{self.reference} cannot hold {layer.digest}, which is elsewhere")
        name, tag = None, None
        if self._image.name is not None:
            image = parse_repository_reference(self._image.name)
            name, tag = f"{image.host}/{image.repository}:{image.tag}", image.tag
        entry = manifest.descriptor()
        if name and tag:
            entry = entry.replaced(annotations={_FULL_NAME: name, REF_NAME: tag})
        described = {
            "Config": blob_name(manifest.config.digest),
            "RepoTags": [name] if name else [],
            "Layers": [blob_name(layer.digest) for layer in manifest.layers],
        }
        index = parse_layout_index(EMPTY_INDEX).replaced([entry])
        # The file is an array, around the one object.
        return self._layout(index) | {MANIFEST_FILE: b"[%b]" % write_json(described)}
