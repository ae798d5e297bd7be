"""The Authorization header of a registry: Basic, or Bearer tokens that are renewed in time.

Distribution's token protocol (``docs/spec/auth/token.md``, ``oauth.md``): the registry's challenge
names a token server (``realm``), which exchanges the user's credentials for a token that opens
certain repositories (``scope``) for some minutes.
"""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlencode

from coco_kp.errors import DeniedError, InputError, RemoteError
from coco_kp.http import HttpClient, Response, Retry, display_url
from coco_kp.http.url import parse_target
from coco_kp.model.encoding import parse_json_object
from coco_kp.transport.access import Access, Credentials
from coco_kp.transport.registry.advice import logging_in
from coco_kp.transport.registry.challenge import Challenge, parse_challenges
from coco_kp.transport.registry.refusal import refused
from coco_kp.transport.registry.tokens import Scopes, Token, Tokens

_MAX_TOKEN: Final = 64 * 1024
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]+")
_DEFAULT_LIFE: Final = 60
"""Seconds that a token lives where its server does not say (token.md)."""

_LONGEST_LIFE: Final = 10**9
"""Seconds, over 30 years; what is longer is no length of time, nor need it fit into a float."""

_USED_LIFE: Final = 0.8
"""Part of a token's life after which a new one is fetched: requests take time."""


class Authorizer:
    """Knows what one registry asks for, and keeps its tokens; threads may share it."""

    def __init__(
        self,
        http: HttpClient,
        registry: str,
        access: Access,
        credentials: Credentials | None,
        retry: Retry,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._http = http
        self._access = access
        self._registry = registry
        self._credentials = credentials
        self._retry = retry
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._asked_first = ""
        """The scope that the registry named before it knew what it would be asked for."""
        self._tokens = Tokens(f"the token server of {registry}", clock)

    def headers(self, scopes: Scopes) -> dict[str, str]:
        """Return the header for a request that needs ``scopes``; empty before any challenge."""
        challenge = self._challenge
        if challenge is None:
            return {}
        if self._credentials is not None and self._credentials.registry_token:
            return {"Authorization": f"Bearer {self._credentials.registry_token}"}
        if challenge.scheme == "basic":
            return {"Authorization": self._basic()}

        def fetch(asked: str) -> Token:
            return self._fetch(challenge, (*scopes, asked or self._asked_first))

        token = self._tokens.get(scopes, fetch)
        return {"Authorization": f"Bearer {token.value}"}

    def learn(self, response: Response, used: Mapping[str, str], scopes: Scopes) -> bool:
        """Take in the challenge of a 401; return whether another try makes sense.

        ``used`` are the headers that were not good enough for a request that needs ``scopes``.
        """
        challenges = parse_challenges(response.headers.get("WWW-Authenticate", ""))
        known = {challenge.scheme: challenge for challenge in reversed(challenges)}
        challenge = known.get("bearer") or known.get("basic")
        if challenge is None:
            return False
        spent = used.get("Authorization", "").partition(" ")[2]
        asked = challenge.parameters.get("scope", "")
        with self._lock:
            first, self._challenge = self._challenge is None, challenge
            self._asked_first = asked if first else self._asked_first
            if self._credentials is not None and self._credentials.registry_token:
                return not used
            if challenge.scheme == "basic":
                return not used and self._credentials is not None
        self._tokens.drop(scopes, spent, asked)
        return first or bool(used)

    def _basic(self) -> str:
        if self._credentials is None or self._credentials.identity_token:
            hint = logging_in(self._access)
            raise DeniedError(
                f"{self._registry} wants a user name and a password",
                hint.text,
                code=hint.code,
                **dict(hint.fields),
            )
        pair = f"{self._credentials.username}:{self._credentials.password}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"

    def _fetch(self, challenge: Challenge, scopes: Scopes) -> Token:
        realm = self._realm(challenge)
        service = challenge.parameters.get("service")
        query = [("scope", scope) for scope in dict.fromkeys(scopes) if scope]
        query += [("service", service)] if service else []
        if self._credentials is not None and self._credentials.identity_token:
            response = self._exchange(realm, query)
        else:
            headers = {} if self._credentials is None else {"Authorization": self._basic()}
            separator = "&" if "?" in realm else "?"
            url = f"{realm}{separator}{urlencode(query)}"
            response = self._http.request(
                "GET", url, headers=headers, retry=self._retry, load=_MAX_TOKEN
            )
        if not response.ok:
            what = f"the token server of {self._registry} gives no token"
            raise refused(response, self._access, what, self._credentials)
        return self._read(response)

    def _realm(self, challenge: Challenge) -> str:
        realm = challenge.parameters.get("realm", "")
        try:
            return parse_target(realm).url
        except InputError as exc:
            raise RemoteError(
                f"{self._registry} names no usable token server: {exc.message}"
            ) from None

    def _exchange(self, realm: str, query: list[tuple[str, str]]) -> Response:
        """Ask with an identity token, which is an OAuth2 refresh token (oauth.md)."""
        assert self._credentials is not None  # noqa: S101 - for the type checker
        scope = " ".join(value for name, value in query if name == "scope")
        form = {
            "grant_type": "refresh_token",
            "refresh_token": self._credentials.identity_token,
            "client_id": "coco-kp",
            **dict(query),
            "scope": scope,
        }
        return self._http.request(
            "POST",
            realm,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            body=urlencode(form).encode(),
            retry=self._retry,
            load=_MAX_TOKEN,
        )

    def _read(self, response: Response) -> Token:
        start = self._clock()
        what = f"the answer of the token server {display_url(response.url)}"
        try:
            document = parse_json_object(response.document(_MAX_TOKEN), what)
        except InputError as error:
            raise RemoteError(error.message) from None
        value = document.get("token") or document.get("access_token")
        if not isinstance(value, str) or not _TOKEN.fullmatch(value):
            raise RemoteError(f"{what} has no usable token")
        life = document.get("expires_in")
        seconds = life if isinstance(life, int) and 0 < life <= _LONGEST_LIFE else _DEFAULT_LIFE
        return Token(value, start + seconds * _USED_LIFE)
