"""Who the user is to a registry: auth files and credential helpers (containers-auth.json(5)).

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
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from coco_kp.errors import InputError, RemoteError, shown
from coco_kp.files import home, is_there, reason
from coco_kp.model.encoding import decode_base64, parse_json_object
from coco_kp.model.reference import DOCKER_HUB, RegistryReference
from coco_kp.transport.access import Access, Credentials, parse_credentials
from coco_kp.transport.files import read_small

_MAX_FILE: Final = 1024 * 1024
_HELPER_SECONDS: Final = 60
_HELPER_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_HUB_SERVER: Final = "https://index.docker.io/v1/"
"""The name under which Docker's files and helpers keep the Hub's credentials."""
_HUB_NAMES: Final = (DOCKER_HUB, "index.docker.io", "registry-1.docker.io")
_IDENTITY_TOKEN: Final = "<token>"
"""The user name by which a helper says that the secret is an identity token."""

_log = logging.getLogger(__name__)


def find_credentials(image: RegistryReference, access: Access) -> Credentials | None:
    """Find the credentials for an image's repository; None where there are none.

    Raises ``InputError`` for a file, ``RemoteError`` for a helper that is broken.
    """
    if access.credentials is not None:
        return access.credentials
    for path in _files(access):
        if found := _from_file(path, image):
            return found
    return None


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


def _from_file(path: Path, image: RegistryReference) -> Credentials | None:
    what = f"the auth file '{path}'"
    document = parse_json_object(read_small(path, _MAX_FILE), what)
    helpers = _object(document, "credHelpers", what)
    for host in _HUB_NAMES if image.host == DOCKER_HUB else (image.host,):
        if helper := helpers.get(host):
            return _ask_helper(helper, _server(image))
    auths = _object(document, "auths", what)
    for name in _names(image):
        for key, entry in auths.items():
            if _normal(key) == name and (found := _from_entry(entry, key, path)):
                return found
    store = document.get("credsStore")
    try:
        return _ask_helper(store, _server(image)) if store else None
    except RemoteError as error:
        _log.warning("no credentials from the credsStore of %s: %s", what, error.message)
        return None


def _names(image: RegistryReference) -> Iterator[str]:
    """Give the keys under which a file may keep the credentials, the closest first."""
    name = f"{image.host}/{image.repository}"
    while name:
        yield name
        name = name.rpartition("/")[0]


def _normal(key: str) -> str:
    """Docker writes keys as URLs, and the Hub under three names."""
    if "://" in key:
        key = key.partition("://")[2].partition("/")[0]
    host, slash, rest = key.partition("/")
    return f"{DOCKER_HUB if host in _HUB_NAMES else host}{slash}{rest}"


def _server(image: RegistryReference) -> str:
    return _HUB_SERVER if image.host == DOCKER_HUB else image.host


def _from_entry(entry: object, key: str, path: Path) -> Credentials | None:
    what = f"'{key}' in the auth file '{path}'"
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise InputError(f"{what} is not an object")
    token = entry.get("identitytoken")
    if isinstance(token, str) and token:
        return Credentials(_IDENTITY_TOKEN, "", token, origin=f"'{path}'")
    auth = entry.get("auth")
    if not isinstance(auth, str) or not auth:
        return None
    auth = auth.replace("\n", "").replace("\r", "")  # as Go's base64 skips them
    try:
        pair = decode_base64(auth, f"'auth' of {what}").decode().rstrip("\0")
    except UnicodeDecodeError:
        raise InputError(f"'auth' of {what} is not text") from None
    return parse_credentials(pair, f"'{path}'")


def _ask_helper(helper: object, server: str) -> Credentials | None:
    """Ask ``docker-credential-<helper> get`` (the protocol of docker-credential-helpers)."""
    if not isinstance(helper, str) or not _HELPER_NAME.fullmatch(helper):
        raise InputError(f"{shown(str(helper))} is not the name of a credential helper")
    program = f"docker-credential-{helper}"
    try:
        result = subprocess.run(
            [program, "get"],
            input=server.encode(),
            capture_output=True,
            timeout=_HELPER_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise RemoteError(
            f"the credential helper {program} is not installed",
            "install it, log in anew, or pass credentials explicitly",
        ) from None
    except OSError as error:
        raise RemoteError(f"{program} cannot be run: {reason(error)}") from None
    except subprocess.TimeoutExpired:
        raise RemoteError(f"{program} did not answer in {_HELPER_SECONDS} s") from None
    if result.returncode != 0:
        if b"credentials not found" in result.stdout:
            return None
        # Its output is not quoted: a broken helper may have printed the secret.
        raise RemoteError(f"{program} failed with exit code {result.returncode}")
    try:
        answer = parse_json_object(result.stdout, f"the answer of {program}")
    except InputError as error:
        raise RemoteError(error.message) from None
    username, secret = answer.get("Username"), answer.get("Secret")
    if not isinstance(username, str) or not isinstance(secret, str):
        raise RemoteError(f"{program} answered without a user name and secret")
    if username == _IDENTITY_TOKEN:
        return Credentials(username, "", secret, origin=program)
    return Credentials(username, secret, origin=program)


def _object(document: dict[str, object], name: str, what: str) -> dict[str, object]:
    value = document.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"'{name}' of {what} is not an object")
    return value
