"""Requests to one registry: where it is, who we are to it, and where it sends us on to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from coco_kp.errors import RefusedError, RemoteError, TlsFailedError
from coco_kp.http import NEVER, HttpClient, Response, Retry, display_url, same_origin
from coco_kp.model.digest import Digest
from coco_kp.model.manifest import Manifest
from coco_kp.model.reference import DOCKER_HUB, RegistryReference
from coco_kp.transport.access import Access
from coco_kp.transport.registry.advice import allowing_plain_http, trusting
from coco_kp.transport.registry.auth import Authorizer
from coco_kp.transport.registry.certificates import tls_settings
from coco_kp.transport.registry.credentials import find_credentials
from coco_kp.transport.registry.refusal import refused

_HUB_API: Final = "registry-1.docker.io"
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SAME_METHOD: Final = frozenset({307, 308})
_MAX_REDIRECTS: Final = 5
_READING: Final = ("GET", "HEAD")

Body = bytes | Callable[[], Iterable[bytes | memoryview]] | None


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
        self._access = access
        self._http = HttpClient(
            tls=tls_settings(image.host, access),
            plain_http="allowed" if access.tls_verify is False else "never",
            ca_hint=trusting(access, image.host),
            sleep=sleep,
        )
        self.retry = Retry(access.retries)
        self.sleep = sleep
        credentials = find_credentials(image, access)
        self._credentials = credentials
        self._auth = Authorizer(self._http, image.host, access, credentials, self.retry)
        self._base = ""
        self._contact = threading.Lock()

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
        body: Body = None,
        extra_scopes: tuple[str, ...] = (),
        retry: Retry | None = None,
        load: int = 0,
    ) -> Response:
        """Send a request with what authorization the registry wants; any status comes back.

        A body that is streamed is a function that starts it: it may be sent again where the
        registry redirects, but not after a failure. A URL elsewhere, where a registry may send us,
        is asked without authorization. Redirects are followed: of GET and HEAD anywhere, of others
        within the origin and if they keep the method, since what is written goes nowhere else.
        ``retry`` and ``load`` are those of :meth:`HttpClient.request`.
        """

        def send(url: str) -> Response:
            return self._authorized(
                method, url, headers or {}, body, extra_scopes, retry or self.retry, load
            )

        return _redirected(method, url, send, elsewhere=method in _READING)

    def get(self, path: str, headers: Mapping[str, str], load: int = 0) -> Response:
        """Read from the repository; any status but redirects comes back."""
        return self.request("GET", self.url(path), headers=headers, load=load)

    def put_manifest(
        self, manifest: Manifest, name: str, *, retry: Retry | None = None
    ) -> Response:
        """Send a manifest under ``name``, its digest or a tag; any status comes back."""
        headers = {"Content-Type": manifest.media_type}
        url = self.url(f"manifests/{name}")
        return self.request("PUT", url, headers=headers, body=manifest.raw, retry=retry)

    def refused(self, response: Response, what: str = "") -> RemoteError:
        """Make the error for an answer of the wrong status, and close it."""
        return refused(response, self._access, what, self._credentials)

    def has_blob(self, digest: Digest, size: int | None = None) -> bool:
        """Ask whether the repository has a blob, of ``size`` bytes if that is known."""
        with self.request("HEAD", self.url(f"blobs/{digest}")) as response:
            if response.status == 404:
                return False
            if not response.ok:
                raise self.refused(response)
            length = response.headers.get("Content-Length")
            return size is None or length is None or length == str(size)

    def _authorized(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body,
        extra_scopes: tuple[str, ...],
        retry: Retry,
        load: int,
    ) -> Response:
        own = same_origin(url, self.base())
        scopes = (self.scope, *extra_scopes)
        streamed = callable(body)

        def send(authorization: Mapping[str, str]) -> Response:
            return self._http.request(
                method,
                url,
                headers={**headers, **authorization},
                body=body() if callable(body) else body,
                retry=NEVER if streamed else retry,
                load=load,
            )

        try:
            authorization = self._auth.headers(scopes) if own else {}
            response = send(authorization)
            if response.status == 401 and own and self._auth.learn(response, authorization):
                if streamed:
                    return response
                response.close()
                return send(self._auth.headers(scopes))
        except RefusedError as error:  # our own URLs of the registry are none
            raise RefusedError(
                f"{self.host} itself named a place that is not used: {error.message}",
                "set the registry's public URL to https (its proxy may have to send "
                f"X-Forwarded-Proto), or allow plain http {allowing_plain_http(self._access)}",
            ) from None
        return response

    def _find(self) -> str:
        # One repeat: a wrong name should not be waited for as long as a later restart.
        once = Retry(min(1, self.retry.repeats))
        host = _HUB_API if self.host == DOCKER_HUB else self.host
        if self._access.tls_verify is not False:
            try:
                return self._ping(f"https://{host}", once)
            except TlsFailedError as error:
                how = allowing_plain_http(self._access)
                hint = f"if the registry speaks plain http, allow that {how}"
                raise TlsFailedError(error.message, hint) from None
        try:
            return self._ping(f"https://{host}", NEVER)
        except RemoteError as secure:
            try:
                return self._ping(f"http://{host}", once)
            except RemoteError as plain:
                raise type(plain)(
                    f"{secure.message}; over plain http: {plain.message}", plain.hint or secure.hint
                ) from None

    def _ping(self, base: str, retry: Retry) -> str:
        def send(url: str) -> Response:
            return self._http.request("GET", url, retry=retry)

        with _redirected("GET", f"{base}/v2/", send, elsewhere=False) as response:
            if response.status == 401:
                self._auth.learn(response, {})
            elif not response.ok:
                raise refused(response, self._access, f"{self.host} does not answer as a registry")
            return base


def _redirected(
    method: str, url: str, send: Callable[[str], Response], *, elsewhere: bool
) -> Response:
    """Send and go where the answer points to; ``elsewhere`` allows other origins."""
    followed = _REDIRECTS if method in _READING else _SAME_METHOD
    start = url
    for _ in range(_MAX_REDIRECTS):
        response = send(url)
        if response.status not in followed:
            return response
        try:
            location = response.location
        except RemoteError:
            response.close()
            raise
        if not elsewhere and not same_origin(location, url):
            return response
        response.close()
        url = location
    raise RemoteError(f"{method} {display_url(start)}: redirected more than {_MAX_REDIRECTS} times")
