"""An image in a registry that is written."""

from __future__ import annotations

import threading

from coco_kp.errors import InputError, RemoteError
from coco_kp.model.digest import Digest
from coco_kp.model.manifest import Descriptor, Manifest
from coco_kp.model.reference import RegistryReference
from coco_kp.transport.access import Access
from coco_kp.transport.base import BlobWriter, RawBlob, Sink, Source
from coco_kp.transport.registry.download import RegistryBlob
from coco_kp.transport.registry.repository import Repository
from coco_kp.transport.registry.session import Session, registries
from coco_kp.transport.registry.source import RegistrySource, manifest_bytes
from coco_kp.transport.registry.tag import Tag
from coco_kp.transport.registry.upload import RegistryBlobWriter, check_digest


class RegistrySink(Sink):
    """A tag in a repository; what was sent for nothing stays there until it collects garbage."""

    finishing = "uploading"

    def __init__(
        self, reference: RegistryReference, access: Access, session: Session | None = None
    ) -> None:
        if reference.tag is None:
            raise InputError(
                f"{reference} cannot be written: its digest decides its content", "name a tag"
            )
        self.reference = str(reference)
        self._session = session or Session()
        self._owns_session = session is None
        known = registries(self._session)
        place = known.configuration.place_to_write(reference, access)
        self.repository = known.repository(place.image, place.access, "pull,push")
        self._tag = Tag(self.repository, reference.tag, self.reference)
        self._sent: set[Digest] = set()
        self._lock = threading.Lock()

    def has_blob(self, blob: Descriptor) -> bool:
        """Ask the repository."""
        return self.repository.has_blob(blob.digest, blob.size)

    def mount_blob(self, blob: Descriptor, source: Source) -> bool:
        """Let the registry take the blob from another of its repositories."""
        if not isinstance(source, RegistrySource) or source.repository.host != self.repository.host:
            return False
        try:
            return self._mount(blob.digest, source.repository.name)
        except RemoteError:
            return False  # it is copied then, and that will say what is wrong

    def begin_blob(self, size: int | None = None) -> BlobWriter:
        """Send while it is written."""
        return RegistryBlobWriter(self.repository, size, self._keep)

    def put_manifest(self, manifest: Manifest) -> None:
        """Send the manifest under its digest."""
        response = self.repository.put_manifest(manifest, str(manifest.digest))
        if not response.ok:
            raise self.repository.refused(response, f"{self.reference} does not take the manifest")
        with response:
            check_digest(response, manifest.digest)

    def set_reference(self, manifest: Manifest, *, replacing: Digest | None = None) -> None:
        """Send the manifest under the tag."""
        self._tag.move(manifest, replacing=replacing)

    def read_back(self) -> Source:
        """Read the repository."""
        return _ReadBack(self.reference, self.repository)

    def left_behind(self) -> tuple[Digest, ...]:
        """Name what was sent, as long as it is known that the tag does not point to it."""
        return () if self._tag.touched else tuple(sorted(self._sent, key=str))

    def close(self) -> None:
        """Close all connections, unless the session is of others."""
        if self._owns_session:
            self._session.close()

    def _mount(self, digest: Digest, origin: str) -> bool:
        response = self.repository.request(
            "POST",
            self.repository.url(f"blobs/uploads/?mount={digest}&from={origin}"),
            body=b"",
            extra_scopes=(f"repository:{origin}:pull",),
        )
        with response:
            if response.status == 202:  # no mount, but an upload that nobody needs
                self.repository.cancel_upload(response.location)
            return response.status == 201

    def _keep(self, digest: Digest) -> None:
        with self._lock:
            self._sent.add(digest)


class _ReadBack(Source):
    def __init__(self, reference: str, repository: Repository) -> None:
        self.reference = reference
        self._repository = repository

    def _top_manifest(self) -> Manifest:
        raise InputError(f"{self.reference} is not written yet")

    def _manifest_bytes(self, descriptor: Descriptor) -> bytes | None:
        return manifest_bytes(self._repository, descriptor)

    def _open_blob(self, blob: Descriptor) -> RawBlob:
        return RegistryBlob(self._repository, blob)
