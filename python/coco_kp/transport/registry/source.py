"""An image in a registry that is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from coco_kp.errors import CocoKpError, IntegrityError
from coco_kp.model.digest import Digest
from coco_kp.model.manifest import MAX_MANIFEST, Descriptor, Manifest, parse_manifest
from coco_kp.model.media_type import DOCKER_SCHEMA1, INDEXES, MANIFESTS
from coco_kp.model.reference import RegistryReference
from coco_kp.transport.access import Access
from coco_kp.transport.base import RawBlob, Source
from coco_kp.transport.registry.configuration import Place
from coco_kp.transport.registry.download import RegistryBlob
from coco_kp.transport.registry.repository import Repository
from coco_kp.transport.registry.session import Session, registries
from coco_kp.transport.registry.upload import check_digest

_KNOWN: Final = (*MANIFESTS, *INDEXES, *DOCKER_SCHEMA1)

T = TypeVar("T")


class RegistrySource(Source):
    """An image in a repository."""

    def __init__(
        self, reference: RegistryReference, access: Access, session: Session | None = None
    ) -> None:
        self.reference = str(reference)
        self._session = session or Session()
        self._owns_session = session is None
        self._places = registries(self._session).configuration.places_to_read(reference, access)
        self.repository = self._at(self._places[0])

    def digest(self) -> Digest:
        """Ask for no more than the digest, where the registry answers that."""
        return self._first(self._digest_at)

    def close(self) -> None:
        """Close all connections, unless the session is of others."""
        if self._owns_session:
            self._session.close()

    def _at(self, place: Place) -> Repository:
        return registries(self._session).repository(place.image, place.access, "pull")

    def _top_manifest(self) -> Manifest:
        return self._first(self._manifest_at)

    def _first(self, ask: Callable[[RegistryReference], T]) -> T:
        """Ask mirrors in turn, then the registry; what answers is where the image is read."""
        failures: list[str] = []
        for number, place in enumerate(self._places):
            if number:
                self.repository = self._at(place)
            try:
                return ask(place.image)
            except CocoKpError as error:
                if number == len(self._places) - 1:
                    if failures:
                        remark = f"mirrors failed, too: {'; '.join(failures)}"
                        raise error.adding(remark) from None
                    raise
                failures.append(error.message)
        raise AssertionError("an image has at least one place")

    def _manifest_at(self, image: RegistryReference) -> Manifest:
        digest = image.digest
        response = self.repository.get_manifest(str(digest or image.tag))
        if response.status != 200:
            raise self.repository.refused(response, self.reference)
        raw = response.document(MAX_MANIFEST)
        if digest is None:
            check_digest(response, Digest.of(raw))
        elif not digest.matches(raw):
            raise IntegrityError(f"the manifest of {self.reference} does not have that digest")
        stated = response.headers.get("Content-Type", "").partition(";")[0].strip()
        return parse_manifest(raw, stated if stated in _KNOWN else None)

    def _digest_at(self, image: RegistryReference) -> Digest:
        found = self.repository.digest(image.tag, self.reference) if image.tag else None
        return found or self._manifest_at(image).digest  # which says what is wrong

    def _manifest_bytes(self, descriptor: Descriptor) -> bytes | None:
        return manifest_bytes(self.repository, descriptor)

    def _open_blob(self, blob: Descriptor) -> RawBlob:
        return RegistryBlob(self.repository, blob)


def manifest_bytes(repository: Repository, descriptor: Descriptor) -> bytes | None:
    """Return the manifest that an index names, None if it is not there. Raises ``RemoteError``."""
    response = repository.get_manifest(str(descriptor.digest))
    if response.status == 404:
        response.close()
        return None
    if response.status != 200:
        raise repository.refused(response)
    return response.document(MAX_MANIFEST)
