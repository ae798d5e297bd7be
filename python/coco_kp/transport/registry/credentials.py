"""Who the user is to a registry: auth files, and helpers they name (containers-auth.json(5)).

With ``--authfile`` or ``REGISTRY_AUTH_FILE`` only that file is read; else podman's and skopeo's
files, then docker's. In each file: ``credHelpers`` for the registry, then ``auths`` (the longest
name that matches the repository), then ``credsStore``. ``null`` stands for nothing, as for Go's
readers. A helper that is named for the registry must work; a ``credsStore`` that does not is passed
over with a warning, as docker does: it may belong to another machine (Docker Desktop, WSL), and the
image be public.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from coco_kp.deadline import remaining
from coco_kp.errors import InputError, RemoteError
from coco_kp.files import home, is_there, read_small
from coco_kp.model.encoding import decode_base64, parse_json_object
from coco_kp.model.reference import DOCKER_HUB
from coco_kp.transport.access import Access, Credentials, parse_credentials
from coco_kp.transport.registry.credential_helpers import IDENTITY_TOKEN, CredentialHelpers

_MAX_FILE: Final = 1024 * 1024
_HUB_SERVER: Final = "https://index.docker.io/v1/"
"""The name under which Docker's files and helpers keep the Hub's credentials."""
_HUB_NAMES: Final = (DOCKER_HUB, "index.docker.io", "registry-1.docker.io")

_log = logging.getLogger(__name__)


class Logins:
    """What auth files say, each read once, and helpers, each asked now and then.

    Threads may share it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._helpers = CredentialHelpers(clock)
        self._paths: dict[str | os.PathLike[str] | None, tuple[Path, ...]] = {}
        self._files: dict[Path, Mapping[str, object]] = {}
        self._said: set[str] = set()

    def find(self, host: str, repository: str, access: Access) -> Credentials | None:
        """Find the credentials for a repository, or where it is empty for a registry itself.

        None where there are none. Raises ``InputError`` for a file, ``RemoteError`` for a helper
        that is broken.
        """
        if access.credentials is not None:
            return access.credentials
        with self._lock:
            if access.authfile not in self._paths:
                self._paths[access.authfile] = tuple(_files(access))
            paths = self._paths[access.authfile]
        for path in paths:
            if found := self._from_file(path, host, repository):
                return found
        return None

    def _document(self, path: Path, what: str) -> Mapping[str, object]:
        with self._lock:
            if path not in self._files:
                self._files[path] = parse_json_object(read_small(path, _MAX_FILE), what)
            return self._files[path]

    def _from_file(self, path: Path, host: str, repository: str) -> Credentials | None:
        what = f"the auth file '{path}'"
        document = self._document(path, what)
        helpers = _object(document, "credHelpers", what)
        for name in _HUB_NAMES if host == DOCKER_HUB else (host,):
            if helper := helpers.get(name):
                return self._helpers.ask(helper, _server(host))
        auths = _object(document, "auths", what)
        for name in _names(host, repository):
            for key, entry in auths.items():
                if _normal(key) == name and (found := _from_entry(entry, key, path)):
                    return found
        store = document.get("credsStore")
        try:
            return self._helpers.ask(store, _server(host)) if store else None
        except RemoteError as error:
            if not remaining():  # nobody waits for what would come without them
                raise
            self._warn(f"no credentials from the credsStore of {what}: {error.message}")
            return None

    def _warn(self, message: str) -> None:
        """Say it, but not for each image again."""
        with self._lock:
            new = message not in self._said
            self._said.add(message)
        if new:
            _log.warning("%s", message)


def _files(access: Access) -> Iterator[Path]:
    named = access.authfile or os.environ.get("REGISTRY_AUTH_FILE")
    if named:
        yield Path(named)
        return
    own = home()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    config = os.environ.get("XDG_CONFIG_HOME")
    docker = os.environ.get("DOCKER_CONFIG")
    candidates = (
        Path(runtime or f"/run/containers/{os.getuid()}") / ("containers" if runtime else ""),
        (Path(config) if config else own / ".config") / "containers",
    )
    for path in (
        *(folder / "auth.json" for folder in candidates),
        (Path(docker) if docker else own / ".docker") / "config.json",
    ):
        if is_there(path):
            yield path


def _names(host: str, repository: str) -> Iterator[str]:
    """Yield the keys under which a file may keep the credentials, the closest first."""
    name = f"{host}/{repository}" if repository else host
    while name:
        yield name
        name = name.rpartition("/")[0]


def _normal(key: str) -> str:
    """Docker writes keys as URLs, and the Hub under three names."""
    if "://" in key:
        key = key.partition("://")[2].partition("/")[0]
    host, slash, rest = key.partition("/")
    return f"{DOCKER_HUB if host in _HUB_NAMES else host}{slash}{rest}"


def _server(host: str) -> str:
    return _HUB_SERVER if host == DOCKER_HUB else host


def _from_entry(entry: object, key: str, path: Path) -> Credentials | None:
    what = f"'{key}' in the auth file '{path}'"
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise InputError(f"{what} is not an object")
    token = entry.get("identitytoken")
    if isinstance(token, str) and token:
        return Credentials(IDENTITY_TOKEN, "", token, origin=f"'{path}'")
    auth = entry.get("auth")
    if not isinstance(auth, str) or not auth:
        return None
    auth = auth.replace("\n", "").replace("\r", "")  # as Go's base64 skips them
    try:
        pair = decode_base64(auth, f"'auth' of {what}").decode().rstrip("\0")
    except UnicodeDecodeError:
        raise InputError(f"'auth' of {what} is not text") from None
    return parse_credentials(pair, f"'{path}'")


def _object(document: Mapping[str, object], name: str, what: str) -> dict[str, object]:
    value = document.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"'{name}' of {what} is not an object")
    return value
