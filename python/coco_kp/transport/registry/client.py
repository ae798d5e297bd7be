"""Requests to one registry: where it is, who we are to it, and where it sends us on to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from coco_kp.errors import RemoteError
from coco_kp.http import HttpClient, Response, same_origin
from coco_kp.model.digest import Digest
from coco_kp.model.reference import DOCKER_HUB, RegistryReference
from coco_kp.transport.access import Access
from coco_kp.transport.registry.auth import Authorizer
from coco_kp.transport.registry.certificates import tls_settings
from coco_kp.transport.registry.credentials import find_credentials
from coco_kp.transport.registry.refusal import ATTEMPTS, refused

_HUB_API: Final = "registry-1.docker.io"
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS: Final = 5


class RegistryClient:
    """Speaks the distribution protocol (OCI distribution-spec) for one repository.

    ``actions`` is what its tokens allow: ``pull`` or ``pull,push``. Threads may share it.
    """

    def __init__(
        self,
        image: RegistryReference,
        access: Access,
        actions: str,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.host = image.host
        self.repository = image.repository
        self.scope = f"repository:{image.repository}:{actions}"
        self._insecure = not access.tls_verify
        self._http = HttpClient(
            tls=tls_settings(image.host, access),
            plain_http="allowed" if self._insecure else "never",
            sleep=sleep,
        )
        credentials = find_credentials(image, access)
        self._auth = Authorizer(self._http, image.host, credentials)
        self._base = ""
        self._contact = threading.Lock()
        self._sleep = sleep

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def url(self, path: str) -> str:
        """Give the URL of ``path`` in the repository, such as ``blobs/uploads/``."""
        return f"{self.base()}/v2/{self.repository}/{path}"

    def base(self) -> str:
        """Find the registry, once: scheme and host of its API."""
        with self._contact:
            if not self._base:
                self._base = self._find()
            return self._base

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        extra_scopes: tuple[str, ...] = (),
        attempts: int = ATTEMPTS,
    ) -> Response:
        """Send a request with what authorization the registry wants; any status comes back.

        A URL elsewhere, where a registry may send us, is asked without authorization.
        """
        own = same_origin(url, self.base())
        scopes = (self.scope, *extra_scopes)
        repeatable = isinstance(body, bytes | None)

        def send(authorization: Mapping[str, str]) -> Response:
            sent = {**(headers or {}), **authorization}
            tries = attempts if repeatable else 1
            return self._http.request(method, url, headers=sent, body=body, attempts=tries)

        authorization = self._auth.headers(scopes) if own else {}
        response = send(authorization)
        if response.status == 401 and own and self._auth.learn(response, authorization):
            if not repeatable:
                return response
            response.close()
            return send(self._auth.headers(scopes))
        return response

    def get(self, path: str, headers: Mapping[str, str], method: str = "GET") -> Response:
        """Read from the repository, through redirects; any status but those comes back."""
        url = self.url(path)
        for _ in range(_MAX_REDIRECTS):
            response = self.request(method, url, headers=headers)
            if response.status not in _REDIRECTS:
                return response
            with response:
                url = response.location
        raise RemoteError(f"{method} {self.url(path)}: redirected more than {_MAX_REDIRECTS} times")

    def has_blob(self, digest: Digest, size: int | None = None) -> bool:
        """Ask whether the repository has a blob, of ``size`` bytes if that is known."""
        with self.get(f"blobs/{digest}", {}, "HEAD") as response:
            if response.status == 404:
                return False
            if response.status != 200:
                raise refused(response)
            length = response.headers.get("Content-Length")
            return size is None or length is None or length == str(size)

    def pause(self, failures: int) -> None:
        """Wait before the next try, the longer the more of them failed."""
        self._sleep(2.0 ** (failures - 2))

    def _find(self) -> str:
        host = _HUB_API if self.host == DOCKER_HUB else self.host
        if not self._insecure:
            # Two attempts: a wrong name should not be waited for as long as a later restart.
            return self._ping(f"https://{host}", attempts=2)
        try:
            return self._ping(f"https://{host}", attempts=1)
        except RemoteError as secure:
            try:
                return self._ping(f"http://{host}", attempts=2)
            except RemoteError:
                raise secure from None

    def _ping(self, base: str, attempts: int) -> str:
        with self._http.request("GET", f"{base}/v2/", attempts=attempts) as response:
            if response.status == 401:
                self._auth.learn(response, {})
            elif response.status != 200:
                raise refused(response, f"{self.host} does not answer as a registry")
            return base
