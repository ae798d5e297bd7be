"""TLS: own authorities and client certificates, from ``--cert-dir`` and the ``certs.d`` folders."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from coco_kp.errors import InputError, RemoteError
from coco_kp.http import Tls
from coco_kp.model.reference import RegistryReference
from coco_kp.transport import Access
from coco_kp.transport.registry.certificates import tls_settings
from coco_kp.transport.registry.sink import RegistrySink
from coco_kp.transport.registry.source import RegistrySource
from tests.sim.registry import Registry, serve
from tests.support.stored import check, image, store

ONE = image(b"layer one")


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def context(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def tls_host(registry: Registry, context: ssl.SSLContext) -> Iterator[str]:
    with serve(registry, tls=context) as host:
        yield host


def round_trip(host: str, access: Access) -> None:
    name = RegistryReference(host, "team/app", "v1")
    with RegistrySink(name, access) as sink:
        store(sink, ONE)
    with RegistrySource(name, access) as source:
        check(source, ONE)


def test_registry_tls_trusts_ca_in_cert_dir(ca: trustme.CA, tls_host: str, tmp_path: Path) -> None:
    ca.cert_pem.write_to_path(tmp_path / "ca.crt")
    round_trip(tls_host, Access(cert_dir=tmp_path))


@pytest.mark.parametrize("parent", [".config/containers/certs.d"])
def test_registry_tls_trusts_ca_in_certs_d_folder_of_registry(
    ca: trustme.CA, tls_host: str, home: Path, parent: str
) -> None:
    folder = home / parent / tls_host
    folder.mkdir(parents=True)
    ca.cert_pem.write_to_path(folder / "ca.crt")
    round_trip(tls_host, Access())


def test_registry_tls_refuses_certificate_of_unknown_ca_unless_verification_is_off(
    tls_host: str, tmp_path: Path
) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.crt")
    with pytest.raises(RemoteError, match="certificate is not trusted"):
        round_trip(tls_host, Access(cert_dir=tmp_path))
    round_trip(tls_host, Access(cert_dir=tmp_path, tls_verify=False))


def test_registry_tls_presents_client_certificate_from_cert_dir(
    ca: trustme.CA, context: ssl.SSLContext, tls_host: str, tmp_path: Path
) -> None:
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    ca.cert_pem.write_to_path(tmp_path / "ca.crt")
    with pytest.raises(RemoteError):
        round_trip(tls_host, Access(cert_dir=tmp_path))
    client = ca.issue_cert("client.example")
    client.cert_chain_pems[0].write_to_path(tmp_path / "client.cert")
    with pytest.raises(InputError, match="has no key beside it"):
        round_trip(tls_host, Access(cert_dir=tmp_path))
    client.private_key_pem.write_to_path(tmp_path / "client.key")
    round_trip(tls_host, Access(cert_dir=tmp_path))


def test_tls_settings_classify_files_by_suffix(tmp_path: Path) -> None:
    for name in ("b.crt", "a.crt", "x.cert", "x.key", "notes.txt", "y.pem"):
        (tmp_path / name).write_text("")
    assert tls_settings("h", Access(cert_dir=tmp_path)) == Tls(
        (tmp_path / "a.crt", tmp_path / "b.crt"), tmp_path / "x.cert", tmp_path / "x.key"
    )


def test_tls_settings_say_which_of_several_client_certificates_is_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """skopeo takes the one that the server asks for."""
    for name in ("a.cert", "a.key", "b.key"):
        (tmp_path / name).write_text("")
    with pytest.raises(InputError, match="b.key"):
        tls_settings("h", Access(cert_dir=tmp_path))
    assert not caplog.text
    (tmp_path / "b.cert").write_text("")
    assert tls_settings("h", Access(cert_dir=tmp_path)).client_certificate == tmp_path / "a.cert"
    assert f"of the client certificates in '{tmp_path}' only '{tmp_path}/a.cert'" in caplog.text


def test_tls_settings_require_named_cert_dir_to_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        tls_settings("h", Access(cert_dir=tmp_path / "none"))


def test_tls_settings_without_cert_dir_use_system_defaults() -> None:
    assert tls_settings("h.example", Access()) == Tls()
