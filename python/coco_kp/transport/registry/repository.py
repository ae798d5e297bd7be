"""One repository of a registry: its blobs, manifests and tags (OCI distribution-spec)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from coco_kp.errors import InputError, RemoteError
from coco_kp.http import NEVER, Response, Retry, same_origin
from coco_kp.model.digest import Digest, parse_digest
from coco_kp.model.manifest import MAX_MANIFEST, Manifest
from coco_kp.model.media_type import INDEXES, MANIFESTS
from coco_kp.transport.registry.client import Body, RegistryClient

_ACCEPT: Final = {"Accept": ", ".join((*MANIFESTS, *INDEXES))}


class Repository:
    """The repository ``name`` of the registry that ``client`` speaks to.

    ``actions`` is what its tokens allow: ``pull`` or ``pull,push``. Threads may share it.
    """

    def __init__(self, client: RegistryClient, name: str, actions: str) -> None:
        self.name = name
        self.host = client.host
        self.retry = client.retry
        self.sleep = client.sleep
        self.refused = client.refused
        self._pulls = client.pulls
        self._client = client
        self._scope = f"repository:{name}:{actions}"

    def url(self, path: str) -> str:
        """Return the URL of ``path`` in the repository, such as ``blobs/uploads/``."""
        return f"{self._client.base()}/v2/{self.name}/{path}"

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        extra_scopes: tuple[str, ...] = (),
        retry: Retry | None = None,
        load: int = 0,
    ) -> Response:
        """Send a request as :meth:`RegistryClient.request` does; any status comes back."""
        return self._client.request(
            method,
            url,
            scopes=(self._scope, *extra_scopes),
            headers=headers,
            body=body,
            retry=retry,
            load=load,
        )

    def get_blob(self, digest: Digest, headers: Mapping[str, str]) -> Response:
        """Read a blob; any status but redirects comes back."""
        return self.request("GET", self.url(f"blobs/{digest}"), headers=headers)

    def get_manifest(self, name: str) -> Response:
        """Read a manifest by its digest or a tag; any status but redirects comes back.

        Raises ``RemoteError`` where the registry counts pulls, and leaves none.
        """
        before = self._pulls.begin()
        if before is None:
            before = self._pull_that_is_left(name)
        headers: Mapping[str, str] = {}
        try:
            url = self.url(f"manifests/{name}")
            response = self.request("GET", url, headers=_ACCEPT, load=MAX_MANIFEST)
            headers = response.headers
            return response
        finally:
            self._pulls.end(before, headers)

    def put_manifest(
        self, manifest: Manifest, name: str, *, retry: Retry | None = None
    ) -> Response:
        """Send a manifest under ``name``, its digest or a tag; any status comes back."""
        headers = {"Content-Type": manifest.media_type}
        url = self.url(f"manifests/{name}")
        return self.request("PUT", url, headers=headers, body=manifest.raw, retry=retry)

    def cancel_upload(self, location: str) -> None:
        """Let the registry forget an upload; elsewhere, where a registry may name one, delete none.

        Raises ``RemoteError`` where it does not answer.
        """
        if same_origin(location, self._client.base()):
            self.request("DELETE", location, retry=NEVER).close()

    def has_blob(self, digest: Digest, size: int | None = None) -> bool:
        """Ask whether the repository has a blob, of ``size`` bytes if that is known."""
        with self.request("HEAD", self.url(f"blobs/{digest}")) as response:
            if response.status == 404:
                return False
            if not response.ok:
                raise self.refused(response)
            length = response.headers.get("Content-Length")
            return size is None or length is None or length == str(size)

    def digest(self, tag: str, what: str) -> Digest | None:
        """Return the digest of the manifest that a tag points to; None where there is no such tag.

        Its headers are asked for (HEAD), which costs nothing where pulls are counted. Raises
        ``RemoteError`` in which ``what`` says what failed.
        """
        with self._head(tag) as response:
            stated = response.headers.get("Docker-Content-Digest", "")
        if response.ok and stated.startswith("sha256:"):
            try:
                return parse_digest(stated)
            except InputError:
                raise RemoteError(
                    f"{response.request}: the registry states an invalid digest"
                ) from None
        # Not every registry answers HEAD, or says a digest; one that fails says so here.
        response = self.get_manifest(tag)
        if response.status == 404:
            response.close()
            return None
        if response.status != 200:
            raise self.refused(response, what)
        return Digest.of(response.document(MAX_MANIFEST))

    def _pull_that_is_left(self, name: str) -> int:
        """Begin a pull where none was left; the headers alone cost none, and say what is now."""
        ended = self._pulls.ended
        with self._head(name) as response:
            before = self._pulls.renew(ended, response.headers)
        if before is None:
            raise RemoteError(
                f"{response.request}: the registry leaves this user no pull for now",
                "log in as a user who has more, or run again later",
            )
        return before

    def _head(self, name: str) -> Response:
        return self.request("HEAD", self.url(f"manifests/{name}"), headers=_ACCEPT)
