"""A session with Vault or OpenBao: where it is, who we are, and what its refusals mean.

The environment is that of Vault's own command line: ``VAULT_ADDR``, ``VAULT_NAMESPACE``,
``VAULT_CACERT``, ``VAULT_CLIENT_CERT`` and ``VAULT_CLIENT_KEY``. The token is that of
``VAULT_TOKEN`` or ``~/.vault-token``; else AppRole gives one (``VAULT_ROLE_ID`` and
``VAULT_SECRET_ID``, or files in ``VAULT_ROLE_ID_FILE`` and ``VAULT_SECRET_ID_FILE``), else
Kubernetes (``VAULT_K8S_ROLE`` and the pod's service account).
"""

from __future__ import annotations

import io
import os
import re
import ssl
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import hvac
import requests
import urllib3
from hvac import exceptions
from urllib3.util import Url

from coco_kp.errors import Hint, InputError, KekError, RefusedError, RemoteError
from coco_kp.files import home, is_there, read_small, reason
from coco_kp.http import display_url, is_loopback
from coco_kp.http.failure import failure
from coco_kp.http.url import parse_target
from coco_kp.keys.stores.deadline import in_time
from coco_kp.keys.stores.interface import TIMEOUT
from coco_kp.observe import asking
from coco_kp.redact import masked, shown

PORT: Final = 8200
"""Where Vault listens unless configured; for a key reference that names a host alone."""

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")

Answer = Mapping[str, Any]
"""A JSON object; empty for an answer without a body."""

_ANSWER_LIMIT: Final = 1024 * 1024  # bytes
_TOKEN_LIMIT: Final = 64 * 1024  # bytes
_TOKEN_HINT: Final = (
    "run `vault login`, or set VAULT_TOKEN, or VAULT_ROLE_ID and VAULT_SECRET_ID (AppRole), or "
    "VAULT_K8S_ROLE (Kubernetes)"
)
_CA_HINT: Final = Hint("name the certificate of the server's own authority with VAULT_CACERT")
_OFF: Final = {"", "0", "f", "false"}  # what Go's ParseBool, which Vault's command uses, takes so


class VaultSession:
    """Sends requests to one Vault, logging in when that is due. Threads may share it."""

    def __init__(self, host: str = "") -> None:
        """Name the server, ``HOST[:PORT]``, or leave that to ``VAULT_ADDR``.

        Raises ``InputError`` or ``RefusedError`` for an address that cannot be used.
        """
        self._url = _address(host)
        self._logging_in = threading.Lock()
        self._client: hvac.Client | None = None

    @property
    def address(self) -> str:
        """The server's, for messages."""
        return display_url(self._url.url)

    def ask(
        self, what: str, call: Callable[[hvac.Client], object], *, quote: bool = True
    ) -> Answer:
        """Return Vault's answer to ``call``, which sends one request; ``what`` says what for.

        Where Vault says that there is no such path (404) or that the request is wrong (400), hvac's
        own ``InvalidPath`` or ``InvalidRequest`` passes: what it means depends on the request. All
        else is a ``RemoteError``, or a ``KekError`` where there is no token. ``quote`` is False for
        requests that carry a key: then no error repeats Vault's words.
        """
        subject = f"Vault at {self.address} did not {what}"
        with asking("vault"):
            return in_time(lambda: self._ask(subject, call, quote), subject)

    def close(self) -> None:
        """Close all idle connections; who asks again logs in again."""
        client, self._client = self._client, None
        if client is not None:
            client.adapter.close()

    def _ask(self, subject: str, call: Callable[[hvac.Client], object], quote: bool) -> Answer:
        client = self._logged_in(None)
        try:
            return _send(subject, lambda: call(client), quote)
        except exceptions.Forbidden as refusal:
            if _token_lives(client):
                raise _denied(subject, refusal, quote) from None
        renewed = self._logged_in(client)
        if renewed.token == client.token:
            raise RemoteError(
                f"{subject}: the token has expired, was revoked, or is that of another Vault",
                f"get a new one: {_TOKEN_HINT}",
            )
        try:
            return _send(subject, lambda: call(renewed), quote)
        except exceptions.Forbidden as refusal:
            raise _denied(subject, refusal, quote) from None

    def _logged_in(self, stale: hvac.Client | None) -> hvac.Client:
        """Return a client with a token, another than ``stale`` if there may be a better one."""
        with self._logging_in:
            if self._client is None or self._client is stale:
                client = _client(self._url)
                self._log_in(client)
                self._client = client
            return self._client

    def _log_in(self, client: hvac.Client) -> None:
        environment = os.environ
        if token := environment.get("VAULT_TOKEN", "").strip() or _token_of_helper():
            client.token = _header(token, "the Vault token")
        elif "VAULT_ROLE_ID" in environment or "VAULT_ROLE_ID_FILE" in environment:
            role, secret = _variable_or_file("VAULT_ROLE_ID"), _variable_or_file("VAULT_SECRET_ID")
            self._log_in_by("AppRole", lambda: client.auth.approle.login(role, secret))
        elif role := environment.get("VAULT_K8S_ROLE", ""):
            account = _text(SERVICE_ACCOUNT, "the service account's token")
            self._log_in_by("Kubernetes", lambda: client.auth.kubernetes.login(role, account))
        else:
            raise KekError(f"there is no token for Vault at {self.address}", _TOKEN_HINT)

    def _log_in_by(self, method: str, login: Callable[[], object]) -> None:
        subject = f"Vault at {self.address} did not accept the login by {method}"
        try:
            # Vault's words stay out: they may repeat what was sent.
            _send(subject, login, quote=False)
        except (exceptions.InvalidRequest, exceptions.Forbidden):
            raise RemoteError(
                f"{subject}: it knows no such role, or refuses the proof",
                "VAULT_SECRET_ID may have expired or been used up"
                if method == "AppRole"
                else "the role must be bound to this pod's service account and namespace",
            ) from None
        except exceptions.InvalidPath:
            raise RemoteError(
                f"{subject}: this method is not enabled",
                f"run `vault auth enable {method.lower()}`",
            ) from None


def words(error: exceptions.VaultError) -> str:
    """Return Vault's own words, fit for a message: short, and nothing that could be a key."""
    said = error.errors if isinstance(error.errors, list) else [error.text or ""]
    return shown(masked(" ".join("; ".join(map(str, said)).split())))


def _send(subject: str, request: Callable[[], object], quote: bool) -> Answer:
    """Send a request. Forbidden, InvalidPath and InvalidRequest pass; all else is ours."""
    try:
        return _object(subject, request())
    except (exceptions.Forbidden, exceptions.InvalidPath, exceptions.InvalidRequest):
        raise
    except (exceptions.VaultDown, exceptions.VaultNotInitialized) as refusal:
        raise _down(subject, refusal) from None
    except exceptions.RateLimitExceeded:
        raise RemoteError(
            f"{subject}: too many requests", "a quota of Vault's limits them: try again later"
        ) from None
    except exceptions.VaultError as refusal:
        said = f": {words(refusal)}" if quote else ""
        raise RemoteError(f"{subject}{said}", "the log of Vault says more") from None
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise failure(subject, error, ca_hint=_CA_HINT) from None
    except (AttributeError, KeyError, TypeError, ValueError):
        # hvac takes JSON of any form for Vault's.
        raise _no_vault(subject) from None


def _denied(subject: str, refusal: exceptions.Forbidden, quote: bool) -> RemoteError:
    said = f" ({words(refusal)})" if quote else ""
    return RemoteError(
        f"{subject}: permission denied{said}",
        "the policies of the token must allow it: see `vault token capabilities PATH`",
    )


def _token_lives(client: hvac.Client) -> bool:
    """Return whether Vault knows the token: it answers both faults with "permission denied"."""
    try:
        _send("", client.auth.token.lookup_self, quote=False)
    except exceptions.Forbidden:
        return False
    except (RemoteError, exceptions.InvalidPath, exceptions.InvalidRequest):
        pass  # the first refusal stands
    return True


def _object(subject: str, answer: object) -> Answer:
    if isinstance(answer, requests.Response):
        if answer.status_code == HTTPStatus.NO_CONTENT:
            return {}
        if answer.is_redirect:
            raise RemoteError(
                f"{subject}: it redirects to another server",
                "redirects are not followed, since the token would go along: set VAULT_ADDR to the "
                "active server",
            )
    if not isinstance(answer, dict):
        raise _no_vault(subject)
    return answer


def _no_vault(subject: str) -> RemoteError:
    return RemoteError(
        f"{subject}: what answers there does not speak Vault's protocol",
        "check host, port and path of its address",
    )


def _down(subject: str, refusal: exceptions.VaultError) -> RemoteError:
    said = f"{refusal.errors or refusal.text}".lower()
    if "sealed" in said:
        return RemoteError(
            f"{subject}: Vault is sealed", "its operators must unseal it: `vault operator unseal`"
        )
    if isinstance(refusal, exceptions.VaultNotInitialized) or "not initialized" in said:
        return RemoteError(f"{subject}: Vault is not initialized", "run `vault operator init`")
    return RemoteError(f"{subject}: it is down for maintenance", "try again later")


def _address(host: str) -> Url:
    if os.environ.get("VAULT_SKIP_VERIFY", "").lower() not in _OFF:
        raise RefusedError(
            "VAULT_SKIP_VERIFY is set: a key would go to, or come from, whoever poses as Vault",
            f"unset it, and {_CA_HINT.text}",
        )
    if host:
        url = parse_target(f"https://{host}")
        return url if url.port else url._replace(port=PORT)
    text = os.environ.get("VAULT_ADDR", "")
    if not text:
        raise InputError("no Vault is named", "set VAULT_ADDR, or write vault://HOST/MOUNT/PATH")
    try:
        url = parse_target(text)
    except InputError as error:
        raise error.within("VAULT_ADDR") from None
    if url.scheme != "https" and not is_loopback(url.host or ""):
        raise RefusedError(
            f"VAULT_ADDR '{display_url(text)}' is plain http: anyone on the way can read token and "
            "key",
            "use https",
        )
    return url


def _client(url: Url) -> hvac.Client:
    session = requests.Session()
    # Of the environment, only the proxy; not ~/.netrc, nor another set of trusted authorities.
    session.trust_env = False
    if not is_loopback(url.host or ""):
        session.proxies = requests.utils.get_environ_proxies(url.url)
    session.verify = _authorities()
    if certificate := os.environ.get("VAULT_CLIENT_CERT"):
        session.cert = (certificate, os.environ.get("VAULT_CLIENT_KEY") or certificate)
    session.hooks["response"].append(_bounded)
    return hvac.Client(
        url=url.url.rstrip("/"),
        token="",  # hvac would look for one by itself
        session=session,
        timeout=TIMEOUT,
        allow_redirects=False,  # requests would pass the token on to any host
        namespace=os.environ.get("VAULT_NAMESPACE") or None,
    )


def _authorities() -> str | bool:
    """Return the file or directory of trusted authorities: the system's, which requests ignores."""
    system = ssl.get_default_verify_paths()
    named = os.environ.get("VAULT_CACERT") or os.environ.get("VAULT_CAPATH")
    if named:
        try:
            Path(named).stat()
        except OSError as error:
            raise InputError(
                f"VAULT_CACERT or VAULT_CAPATH names {shown(named)}: {reason(error)}"
            ) from error
    return named or system.cafile or system.capath or True


def _bounded(response: requests.Response, **_: object) -> None:
    """Read an answer's body, which requests would do to any length."""
    body = response.raw.read(_ANSWER_LIMIT + 1, decode_content=True)
    if len(body) > _ANSWER_LIMIT:
        response.close()
        raise RemoteError(f"an answer of Vault's is longer than {_ANSWER_LIMIT} bytes")
    response.raw = io.BytesIO(body)


def _token_of_helper() -> str:
    """Return the token that `vault login` left, empty if there is none."""
    path = home() / ".vault-token"
    return _text(path, "the token file") if is_there(path) else ""


def _variable_or_file(name: str) -> str:
    if value := os.environ.get(name, "").strip():
        return value
    if file := os.environ.get(f"{name}_FILE", ""):
        return _text(Path(file), f"the file of {name}_FILE")
    raise KekError(f"neither {name} nor {name}_FILE is set", "AppRole needs both IDs")


def _text(path: Path, what: str) -> str:
    try:
        text = read_small(path, _TOKEN_LIMIT, KekError).decode("ascii").strip()
    except UnicodeDecodeError:
        raise KekError(f"{what}, {shown(str(path))}, is not text") from None
    return text


def _header(token: str, what: str) -> str:
    """Refuse what no header may have, before http.client does so with the token in its words."""
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise KekError(f"{what} has characters that no token has")
    return token
