"""Requests to one registry: where it is, who we are to it, and where it sends us on to."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Final

from coco_kp.deadline import remaining
from coco_kp.errors import RefusedError, RemoteError, TlsFailedError
from coco_kp.http import NEVER, HttpClient, Response, Retry, display_url, same_origin
from coco_kp.http.response import SAID_LIMIT
from coco_kp.model.reference import DOCKER_HUB
from coco_kp.transport.access import Access, Credentials
from coco_kp.transport.registry.advice import allowing_named_http, allowing_plain_http
from coco_kp.transport.registry.auth import Authorizer
from coco_kp.transport.registry.pulls import Pulls
from coco_kp.transport.registry.refusal import refused
from coco_kp.transport.registry.turns import in_turn

_HUB_API: Final = "registry-1.docker.io"
_FAILURE_SECONDS: Final = 1.0
"""How long a registry that was not found is not looked for again."""
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SAME_METHOD: Final = frozenset({307, 308})
_MAX_REDIRECTS: Final = 5
_READING: Final = ("GET", "HEAD")

Body = bytes | Callable[[], Iterable[bytes | memoryview]] | None


class RegistryClient:
    """Speaks to one registry (OCI distribution-spec) as one user, over ``http``.

    ``turns`` bounds how many requests are under way at a time. Streams do not count: one may wait
    for another, and there are no more of them than threads that read or write blobs. Threads may
    share it. Whoever made ``http`` closes it.
    """

    def __init__(
        self,
        host: str,
        access: Access,
        credentials: Credentials | None,
        http: HttpClient,
        turns: threading.Semaphore,
        sleep: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        self.host = host
        self.retry = Retry(access.retries)
        self.sleep = sleep
        self.pulls = Pulls()
        self._access = access
        self._http = http
        self._turns = turns
        self._credentials = credentials
        self._auth = Authorizer(http, host, access, credentials, self.retry, clock)
        self._base = ""
        self._contact = threading.Lock()
        self._clock = clock
        self._failure: RemoteError | None = None
        self._failed_until = -math.inf

    def base(self) -> str:
        """Find the registry, once: scheme and host of its API.

        Of threads that need it together none looks for what another has just looked for in vain.
        """
        with in_turn(self._contact, self.host):
            if not self._base:
                if self._failure is not None and self._clock() < self._failed_until:
                    raise self._failure.again()
                try:
                    self._base = self._find()
                except RemoteError as error:
                    if remaining():  # nobody gave it up
                        self._failure = error.again()
                        self._failed_until = self._clock() + _FAILURE_SECONDS
                    raise
            return self._base

    def request(
        self,
        method: str,
        url: str,
        *,
        scopes: tuple[str, ...],
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        retry: Retry | None = None,
        load: int = 0,
    ) -> Response:
        """Send a request with what authorization the registry wants; any status comes back.

        ``scopes`` are what a token for it has to open (distribution's ``docs/spec/auth/scope.md``).
        A body that is streamed is a function that starts it: it may be sent again where the
        registry redirects, but not after a failure. A URL elsewhere, where a registry may send us,
        is asked without authorization. Redirects are followed: of GET and HEAD anywhere, of others
        within the origin and if they keep the method, since what is written goes nowhere else.
        ``retry`` and ``load`` are those of :meth:`HttpClient.request`.
        """

        def send(url: str) -> Response:
            return self._authorized(
                method, url, scopes, headers or {}, body, retry or self.retry, load
            )

        return _redirected(method, url, send, elsewhere=method in _READING)

    def refused(self, response: Response, what: str = "") -> RemoteError:
        """Make the error for an answer of the wrong status, and close it."""
        return refused(response, self._access, what, self._credentials)

    def _authorized(
        self,
        method: str,
        url: str,
        scopes: tuple[str, ...],
        headers: Mapping[str, str],
        body: Body,
        retry: Retry,
        load: int,
    ) -> Response:
        own = same_origin(url, self.base())
        streamed = callable(body)
        short = not streamed and (method != "GET" or load > 0)

        def send(authorization: Mapping[str, str]) -> Response:
            with in_turn(self._turns, self.host) if short else nullcontext():
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
            if response.status == 401 and own and self._auth.learn(response, authorization, scopes):
                if streamed:
                    return response
                response.close()
                return send(self._auth.headers(scopes))
        except RefusedError as error:  # our own URLs of the registry are none
            hint = allowing_named_http(self._access)
            raise RefusedError(
                f"{self.host} itself named a place that is not used: {error.message}",
                hint.text,
                code=hint.code,
                **dict(hint.fields),
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
                hint = allowing_plain_http(self._access)
                raise TlsFailedError(
                    error.message, hint.text, code=hint.code, **dict(hint.fields)
                ) from None
        try:
            return self._ping(f"https://{host}", NEVER)
        except RemoteError as secure:
            try:
                return self._ping(f"http://{host}", once)
            except RemoteError as plain:
                both = f"{secure.message}; over plain http"
                raise plain.within(both, secure.hint) from None

    def _ping(self, base: str, retry: Retry) -> str:
        def send(url: str) -> Response:
            # With its body, which would else cost the connection.
            return self._http.request("GET", url, retry=retry, load=SAID_LIMIT)

        with _redirected("GET", f"{base}/v2/", send, elsewhere=False) as response:
            if response.status == 401:
                self._auth.learn(response, {}, ())
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
