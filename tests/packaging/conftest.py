"""What pipelines have: an image, a key, and a registry that the machine trusts."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.packaging.login import HTPASSWD
from tests.peers.debian import debian_bin
from tests.peers.registry import registry_daemon
from tests.support.image import Image, tar, write_image
from tests.support.key import Key, make_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return write_image(tmp_path / "app", [tar({"motd": b"hello"}), tar({"data": bytes(100_000)})])


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return make_key(tmp_path / "keys")


@pytest.fixture
def trusted_registry(tmp_path: Path) -> Iterator[str]:
    """The ``host:port`` of a registry with TLS that a user trusts whose home is ``tmp_path``."""
    with registry_trusted_in(tmp_path) as address:
        yield address


@pytest.fixture
def password_registry(tmp_path: Path) -> Iterator[str]:
    """The same, which asks for `tests.packaging.login.LOGIN`."""
    htpasswd = tmp_path / "htpasswd"
    htpasswd.write_text(HTPASSWD)
    auth = {"htpasswd": {"realm": "test", "path": str(htpasswd)}}
    with registry_trusted_in(tmp_path, auth=auth) as address:
        yield address


@contextmanager
def registry_trusted_in(home: Path, **sections: object) -> Iterator[str]:
    folder = home / "registry"
    folder.mkdir()
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(folder / "cert.pem")
    tls = {"certificate": str(folder / "cert.pem"), "key": str(folder / "cert.pem")}
    sections = {"http": {"addr": "127.0.0.1:0", "tls": tls}, **sections}
    with registry_daemon(debian_bin() / "docker-registry", folder, **sections) as running:
        trusted = home / ".config/containers/certs.d" / running.address()
        trusted.mkdir(parents=True)
        authority.cert_pem.write_to_path(trusted / "ca.crt")
        yield running.address()
