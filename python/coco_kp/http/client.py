"""Sending requests: who may be spoken to, for how long, and how often."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Literal, Self, cast
from urllib.parse import unquote
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.util import Url, make_headers

from coco_kp.deadline import pause, remaining
from coco_kp.errors import Hint, InputError, RefusedError, UnreachableError
from coco_kp.http.connection import READ_TIMEOUT, HttpPool, HttpsPool, mask_logs
from coco_kp.http.failure import CA_HINT, LATER, failure
from coco_kp.http.pace import Pace
from coco_kp.http.response import Response, credentials_in
from coco_kp.http.retry import NEVER, RETRIED, Retry, retry_after
from coco_kp.http.tls import Tls
from coco_kp.http.url import display_url, is_loopback, origin, parse_target, port_of

CONNECT_TIMEOUT = 15.0
"""Seconds to connect, TLS handshake included."""

CONNECTIONS_PER_HOST = 16

_MOST_PROXIES = 256
"""Servers whose proxies are remembered; a registry may lead to any number of them."""

PlainHttp = Literal["never", "loopback", "allowed"]
"""Where ``http://`` may be spoken."""

_log = logging.getLogger(__name__)


class HttpClient:
    """Sends requests to any number of hosts over kept connections; threads may share it.

    ``headers`` go with every request (never put a credential there: hosts differ). Without
    ``tls``, servers are verified against the system's roots. ``ca_hint`` says how to have another
    authority trusted. With a ``pace``, what a server's ``Retry-After`` says to one request holds
    for all others, of all clients that have it.
    """

    def __init__(
        self,
        *,
        tls: Tls | None = None,
        plain_http: PlainHttp = "never",
        headers: Mapping[str, str] | None = None,
        ca_hint: Hint = CA_HINT,
        pace: Pace | None = None,
        sleep: Callable[[float], None] = pause,
    ) -> None:
        mask_logs()
        tls = tls or Tls()
        # Files are read now, so that a wrong one shows. The system's roots alone take 25 ms: later.
        self._context = None if tls == Tls() else tls.context()
        self._plain_http = plain_http
        self._headers = {"User-Agent": "coco-kp", **(headers or {})}
        self._ca_hint = ca_hint
        self._pace = pace
        self._sleep = sleep
        self._connections: dict[tuple[str, str], urllib3.PoolManager] = {}  # by scheme and proxy
        self._proxies: dict[tuple[str | None, ...], str] = {}  # by scheme, host and port
        self._making = threading.Lock()
        if not tls.verify:
            _log.warning("TLS certificates are not verified, as asked")

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes | memoryview] | None = None,
        retry: Retry = NEVER,
        load: int = 0,
    ) -> Response:
        """Send one request and return the answer, whatever its status, with its body unread.

        A ``body`` of pieces is streamed: chunked, unless ``headers`` has a Content-Length. What its
        iterator raises is raised.
        A deadline (:mod:`coco_kp.deadline`) bounds everything, reading the answer's body included.
        ``retry`` says how often to repeat after broken connections and :data:`RETRIED` statuses;
        only a body that is ``bytes`` can be repeated. The last answer is returned as it is. With
        ``load`` its body is read here, up to so many bytes and one, so that a break in it is
        repeated, too.

        Raises :class:`UnreachableError` where a repeat may help, :class:`RemoteError` where it
        will not, :class:`RefusedError` for plain http where it is not allowed, and
        :class:`InputError` for an invalid URL or header.
        """
        if retry.repeats and not isinstance(body, bytes | None):
            raise ValueError("a streamed body cannot be sent again")
        target = parse_target(url)
        self._check_scheme(target)
        sent = _checked({**self._headers, **(headers or {})})
        while True:
            try:
                response = self._send(method, target, sent, body)
                if load:
                    response.load(load)
            except UnreachableError as exc:
                retry = retry.after()
                if retry.over or retry.pause >= remaining():
                    raise
                reason = exc.message
            else:
                if response.status not in RETRIED:
                    return response
                retry = retry.after(retry_after(response.headers))
                if retry.over or retry.pause >= remaining():
                    return response
                reason = f"{response.request}: {response.outcome}"
                response.close()
            retry.wait(reason, self._sleep)

    def close(self) -> None:
        """Close all idle connections."""
        for pools in self._connections.values():
            pools.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _send(
        self,
        method: str,
        target: Url,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes | memoryview] | None,
    ) -> Response:
        request = f"{method} {display_url(target.url)}"
        if self._pace is not None:
            self._pace.wait(request, origin(target), self._sleep)
        left = remaining()
        if not left:
            raise UnreachableError(f"{request}: no answer in time", LATER)
        try:
            raw = self._pools(target).urlopen(
                method,
                target.url,
                headers=headers,
                body=body if isinstance(body, bytes | None) else _in_time(request, body),
                timeout=urllib3.Timeout(
                    connect=min(CONNECT_TIMEOUT, left), read=min(READ_TIMEOUT, left)
                ),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except _BodyError as exc:
            raise exc.reason from None
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            # Without the cause: urllib3's messages quote targets with their queries.
            if isinstance(exc, urllib3.exceptions.ProxyError):
                error = failure(f"{request} by the proxy {display_url(self._proxy(target))}", exc)
                error.hint = (
                    "check HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, and the proxy itself"
                )
                raise error from None
            raise failure(request, exc, self._ca_hint) from None
        if self._pace is not None and raw.status in RETRIED:
            self._pace.heed(origin(target), raw.headers)
        return Response(raw, request, target.url, credentials_in(headers))

    def _check_scheme(self, target: Url) -> None:
        if target.scheme == "https" or self._plain_http == "allowed":
            return
        if self._plain_http == "loopback" and is_loopback(target.host or ""):
            return
        raise RefusedError(
            f"'{display_url(target.url)}' is plain http: anyone on the way can read and change it",
            "use https, or allow plain http for this host explicitly",
        )

    def _pools(self, target: Url) -> urllib3.PoolManager:
        scheme, proxy = target.scheme or "", self._proxy(target)
        with self._making:
            pools = self._connections.get((scheme, proxy))
            if pools is None:
                if self._context is None and "https" in (scheme, proxy.partition(":")[0]):
                    self._context = Tls().context()
                pools = self._proxied(proxy) if proxy else self._direct()
                pools.pool_classes_by_scheme = {"http": HttpPool, "https": HttpsPool}
                self._connections[scheme, proxy] = pools
            return pools

    def _proxy(self, target: Url) -> str:
        """Return the proxy for a target, empty for none; the environment is seldom asked."""
        place = (target.scheme, target.host, str(port_of(target)))
        proxy = self._proxies.get(place)
        if proxy is None:
            if len(self._proxies) >= _MOST_PROXIES:
                self._proxies.clear()
            proxy = self._proxies[place] = _proxy(target)
        return proxy

    def _direct(self) -> urllib3.PoolManager:
        return urllib3.PoolManager(ssl_context=self._context, maxsize=CONNECTIONS_PER_HOST)

    def _proxied(self, proxy: str) -> urllib3.PoolManager:
        try:
            url = parse_target(proxy, user_info=True)
        except InputError:
            raise InputError(
                "the environment names a proxy that is not an http or https URL",
                "check HTTPS_PROXY, HTTP_PROXY and ALL_PROXY",
            ) from None
        return urllib3.ProxyManager(
            url._replace(auth=None).url,
            proxy_headers=make_headers(proxy_basic_auth=unquote(url.auth)) if url.auth else None,
            ssl_context=self._context,
            maxsize=CONNECTIONS_PER_HOST,
        )


def _proxy(target: Url) -> str:
    """Return the proxy that the environment names for a target, empty for none."""
    host = (target.host or "").strip("[]")
    proxies = getproxies()
    proxy = proxies.get(target.scheme or "") or proxies.get("all") or ""
    # With its port: NO_PROXY may name one.
    passed = is_loopback(host) or proxy_bypass(f"{host}:{port_of(target)}")
    if passed or not proxy:
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def _checked(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Refuse what http.client would refuse too, but with the value in its message."""
    for name, value in headers.items():
        if not re.fullmatch(r"[\x20-\x7e]*", value):
            raise InputError(f"the header '{name}' would have characters that no header may have")
    return headers


def _in_time(request: str, body: Iterable[bytes | memoryview]) -> Iterable[bytes]:
    try:
        for piece in body:
            if not remaining():
                raise UnreachableError(f"{request}: could not be sent in time", LATER)
            # urllib3 sends whatever has the buffer protocol; its annotation says less.
            yield cast("bytes", piece)
    except OSError as error:
        raise _BodyError(error) from error


class _BodyError(Exception):
    """An ``OSError`` of a body's iterator: as it is, it would be taken for the connection's."""

    def __init__(self, reason: OSError) -> None:
        super().__init__()
        self.reason = reason
