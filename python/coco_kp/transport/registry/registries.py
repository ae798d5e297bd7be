"""What a session knows of registries, for all images that are opened with it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from coco_kp.errors import Hint
from coco_kp.http import HttpClient, Pace, PlainHttp, Tls
from coco_kp.http.client import CONNECTIONS_PER_HOST
from coco_kp.model.reference import RegistryReference
from coco_kp.transport.access import Access, Credentials
from coco_kp.transport.registry.advice import trusting
from coco_kp.transport.registry.certificates import tls_settings
from coco_kp.transport.registry.client import RegistryClient
from coco_kp.transport.registry.configuration import Configuration
from coco_kp.transport.registry.credentials import Logins
from coco_kp.transport.registry.repository import Repository

_MOST_KEPT: Final = 64
"""Users of registries that are kept; the one that was needed the longest ago is forgotten. Each
login that a helper renews is one, with tokens of its own."""


class Registries:
    """Logins, connections, tokens and limits; threads may share them.

    Whoever made them closes them, after all sources and sinks that use them.
    """

    def __init__(
        self,
        *,
        sleep: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        self._sleep, self._clock = sleep, clock
        self._lock = threading.Lock()
        self._logins = Logins(clock)
        self._pace = Pace(clock)
        self._turns: dict[str, threading.Semaphore] = {}
        self._configuration: Configuration | None = None
        self._http: dict[tuple[Tls, PlainHttp, Hint], HttpClient] = {}
        self._clients: dict[tuple[str, Access, Credentials | None], RegistryClient] = {}

    @property
    def configuration(self) -> Configuration:
        """What ``registries.conf`` says. Raises ``InputError`` for an invalid file."""
        with self._lock:
            if self._configuration is None:
                self._configuration = Configuration()
            return self._configuration

    def repository(self, image: RegistryReference, access: Access, actions: str) -> Repository:
        """Return the repository of an image, for ``actions``; nothing is asked of it yet."""
        credentials = self._logins.find(image.host, image.repository, access)
        return Repository(self._client(image.host, access, credentials), image.repository, actions)

    def registry(self, host: str, access: Access) -> RegistryClient:
        """Return a registry itself, for what is asked of no repository."""
        return self._client(host, access, self._logins.find(host, "", access))

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for http in self._http.values():
                http.close()

    def _client(self, host: str, access: Access, credentials: Credentials | None) -> RegistryClient:
        key = (host, access, credentials)
        with self._lock:
            client = self._clients.pop(key, None)
            if client is None:
                http = self._client_of_http(host, access)
                turns = self._turns.setdefault(host, threading.Semaphore(CONNECTIONS_PER_HOST))
                client = RegistryClient(
                    host, access, credentials, http, turns, self._sleep, self._clock
                )
            self._clients[key] = client
            if len(self._clients) > _MOST_KEPT:
                del self._clients[next(iter(self._clients))]
            return client

    def _client_of_http(self, host: str, access: Access) -> HttpClient:
        tls = tls_settings(host, access)
        plain_http: PlainHttp = "allowed" if access.tls_verify is False else "never"
        key = (tls, plain_http, trusting(access, host))
        http = self._http.get(key)
        if http is None:
            http = HttpClient(
                tls=tls,
                plain_http=plain_http,
                ca_hint=key[-1],
                pace=self._pace,
                sleep=self._sleep,
            )
            self._http[key] = http
        return http
