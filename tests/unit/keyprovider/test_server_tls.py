"""A server's certificate, and its clients' CA, exchanged while it runs."""

from __future__ import annotations

import logging
import os
import socket
import ssl
from base64 import encodebytes
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.x509.oid import ExtendedKeyUsageOID

from coco_kp.errors import InputError
from coco_kp.keyprovider.address import TcpAddress
from coco_kp.keyprovider.channel import bind
from coco_kp.keyprovider.server import new_server
from coco_kp.keyprovider.server_tls import ServerTls
from coco_kp.keyprovider.service import key_provider
from tests.support import ocicrypt
from tests.support.tls import SERVER_NAME, Authority, Issued, tls_connection

AUTHORITY = Authority()
OTHER = Authority()
SERVER = AUTHORITY.issue_server()
CLIENT = AUTHORITY.issue(x509.DNSName("ci.example.org"))
OTHER_CLIENT = OTHER.issue(x509.DNSName("ci.example.org"))


class Files:
    """The files of a server, which a test exchanges."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key = folder / "tls.crt", folder / "tls.key"
        self.ca = folder / "ca.crt"
        self.write(SERVER)
        self.ca.write_bytes(AUTHORITY.pem)

    def write(self, issued: Issued) -> None:
        """Write a certificate and its key over those that are there, the key first."""
        self.write_key(issued)
        self.certificate.write_bytes(issued.certificate)

    def write_key(self, issued: Issued) -> None:
        """Write a key alone."""
        self.key.touch(0o600)
        self.key.write_bytes(issued.key)

    def tls(self, *, mutual: bool = False) -> ServerTls:
        return ServerTls(self.certificate, self.key, self.ca if mutual else None)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


Listen = Callable[[ServerTls], str]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Yield the address of a server that answers every call."""
    servers: list[grpc.Server] = []
    with ThreadPoolExecutor(4) as pool:

        def start(tls: ServerTls) -> str:
            server = new_server(key_provider(lambda _: b""), pool)
            servers.append(server)
            bound = bind(server, TcpAddress(ip_address("127.0.0.1"), 0), tls.credentials())
            server.start()
            return bound.address

        try:
            yield start
        finally:
            for server in servers:
                server.stop(None).wait()


def code_of_call(channel: grpc.Channel) -> grpc.StatusCode:
    call = channel.unary_unary(ocicrypt.WRAP_KEY, bytes, bytes).future(b"", ocicrypt.TIMEOUT)
    code = call.code()
    assert isinstance(code, grpc.StatusCode)
    return code


def answers(address: str, authority: Authority, client: Issued | None = None) -> bool:
    """Return whether a new connection is answered."""
    with tls_connection(address, authority, client) as channel:
        return code_of_call(channel) is grpc.StatusCode.OK


def serial(address: str) -> int:
    """Return the serial number of the certificate that a new connection gets."""
    with connected(address, ssl_context(verify=False)) as peer:
        der = peer.getpeercert(binary_form=True)
    assert der
    return x509.load_der_x509_certificate(der).serial_number


def ssl_context(
    *, verify: bool = True, client: Issued | None = None, folder: Path | None = None
) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    context.set_alpn_protocols(["h2"])
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if client:
        assert folder
        file = folder / "client.pem"
        file.write_bytes(client.key + client.certificate)
        context.load_cert_chain(file)
    return context


@contextmanager
def connected(
    address: str, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> Iterator[ssl.SSLSocket]:
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), ocicrypt.TIMEOUT) as plain,
        context.wrap_socket(plain, server_hostname=SERVER_NAME, session=session) as peer,
    ):
        yield peer


def serial_of(issued: Issued) -> int:
    return x509.load_pem_x509_certificate(issued.certificate).serial_number


def expiries(caplog: pytest.LogCaptureFixture) -> list[float]:
    """Return the ends of certificates that were told of, as metrics have them."""
    return [
        record.__dict__["fields"]["expires"]
        for record in caplog.records
        if record.getMessage() == "certificate"
    ]


def said(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [
        record.__dict__["fields"]["message"] for record in caplog.records if record.levelno == level
    ]


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "coco_kp")


def test_tls_server_answers_over_tls_alone(files: Files, listen: Listen) -> None:
    address = listen(files.tls())
    assert answers(address, AUTHORITY)
    assert not answers(address, OTHER)
    with ocicrypt.connection(address) as channel:
        assert code_of_call(channel) is grpc.StatusCode.UNAVAILABLE


def test_tls_server_refuses_tls_1_1(files: Files, listen: Listen) -> None:
    address = listen(files.tls())
    context = ssl_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSVersion.TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    # the hello is answered by the end of the connection
    with pytest.raises(ssl.SSLEOFError), connected(address, context):
        pass
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with connected(address, context) as peer:
        assert peer.version() == "TLSv1.2"


def test_tls_server_with_clients_ca_answers_those_with_its_certificates_alone(
    files: Files, listen: Listen
) -> None:
    address = listen(files.tls(mutual=True))
    assert answers(address, AUTHORITY, CLIENT)
    assert not answers(address, AUTHORITY)
    assert not answers(address, AUTHORITY, OTHER_CLIENT)
    expired = AUTHORITY.issue(x509.DNSName("ci.example.org"), days=-1)
    assert not answers(address, AUTHORITY, expired)
    server = AUTHORITY.issue(x509.DNSName("a"), purposes=[ExtendedKeyUsageOID.SERVER_AUTH])
    assert not answers(address, AUTHORITY, server)


def test_tls_server_gives_new_connections_a_renewed_certificate(
    files: Files, listen: Listen, caplog: pytest.LogCaptureFixture
) -> None:
    tls = files.tls()
    address = listen(tls)
    assert serial(address) == serial_of(SERVER)
    renewed = AUTHORITY.issue_server(days=90)
    with tls_connection(address, AUTHORITY) as kept:
        assert code_of_call(kept) is grpc.StatusCode.OK
        files.write(renewed)
        assert serial(address) == serial_of(renewed)
        assert code_of_call(kept) is grpc.StatusCode.OK  # what was begun goes on
    assert serial(address) == serial_of(renewed)
    assert expiries(caplog) == [SERVER.expires, renewed.expires]


def test_tls_look_tells_of_a_renewed_certificate_before_anybody_connects(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    tls = files.tls()
    renewed = AUTHORITY.issue_server(days=90)
    files.write(renewed)
    for _ in range(3):
        tls.look()
    assert expiries(caplog) == [SERVER.expires, renewed.expires]


def test_tls_expiry_is_that_of_the_certificate_of_the_chain_that_ends_first(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    leaf = AUTHORITY.issue_server(days=90)
    files.write(Issued(leaf.certificate + AUTHORITY.pem, leaf.key))
    files.tls()
    assert expiries(caplog) == [Issued(AUTHORITY.pem, b"").expires]


def test_tls_key_that_others_may_read_is_warned_of(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    tls = files.tls()
    assert said(caplog, logging.WARNING) == []
    files.key.unlink()
    files.key.touch(0o644)
    files.write(AUTHORITY.issue_server(days=90))
    tls.look()
    assert said(caplog, logging.WARNING) == [
        f"others may read the TLS key '{files.key}': chmod 600 it"
    ]


def test_tls_server_keeps_its_certificate_while_the_new_one_has_another_key(
    files: Files, listen: Listen, caplog: pytest.LogCaptureFixture
) -> None:
    address = listen(files.tls())
    renewed = AUTHORITY.issue_server()
    files.write_key(renewed)
    for _ in range(3):
        assert serial(address) == serial_of(SERVER)
    (warning,) = said(caplog, logging.WARNING)
    assert warning == (
        f"the old TLS certificate stays: '{files.certificate}' and '{files.key}' are not a "
        "certificate and its key (hint: the certificate of the key comes first in its file)"
    )
    files.write(renewed)
    assert serial(address) == serial_of(renewed)
    files.write_key(SERVER)
    assert serial(address) == serial_of(renewed)
    assert len(said(caplog, logging.WARNING)) == 2  # one for each change


@pytest.mark.parametrize("what", ["certificate", "key", "ca"])
def test_tls_server_keeps_its_certificate_while_a_file_is_gone_or_cut(
    files: Files, listen: Listen, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    address = listen(files.tls(mutual=True))
    path: Path = getattr(files, what)
    whole = path.read_bytes()
    path.unlink()
    assert answers(address, AUTHORITY, CLIENT)
    path.touch(0o600)
    path.write_bytes(whole[: len(whole) // 2])
    assert answers(address, AUTHORITY, CLIENT)
    path.write_bytes(whole)
    assert answers(address, AUTHORITY, CLIENT)
    assert [str(path) in text for text in said(caplog, logging.WARNING)] == [True, True]


def of_version_6(certificate: bytes) -> bytes:
    """Return it with a version that no certificate has, which is no ``ValueError`` to pyca."""
    der = x509.load_pem_x509_certificate(certificate).public_bytes(serialization.Encoding.DER)
    version_3, version_6 = b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05"
    assert version_3 in der
    lines = encodebytes(der.replace(version_3, version_6, 1))
    return b"-----BEGIN CERTIFICATE-----\n" + lines + b"-----END CERTIFICATE-----\n"


def test_tls_look_at_file_that_no_reader_foresaw_keeps_the_old_certificate(
    files: Files, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended the server, whose main thread looks."""
    tls = files.tls()
    monkeypatch.setattr(ServerTls, "_read", lambda _: 1 / 0)
    files.write(AUTHORITY.issue_server())
    tls.look()
    assert said(caplog, logging.WARNING) == ["the old TLS certificate stays: ZeroDivisionError"]
    assert expiries(caplog) == [SERVER.expires]


def test_tls_server_refuses_clients_of_the_old_ca_after_its_exchange(
    files: Files, listen: Listen
) -> None:
    address = listen(files.tls(mutual=True))
    assert answers(address, AUTHORITY, CLIENT)
    files.ca.write_bytes(OTHER.pem)
    assert not answers(address, AUTHORITY, CLIENT)
    assert answers(address, AUTHORITY, OTHER_CLIENT)
    files.ca.write_bytes(AUTHORITY.pem + OTHER.pem)
    assert answers(address, AUTHORITY, CLIENT)
    assert answers(address, AUTHORITY, OTHER_CLIENT)


def test_tls_server_resumes_no_session_of_a_client_of_the_old_ca(
    files: Files, listen: Listen, tmp_path: Path
) -> None:
    """A resumed session shows no certificate anew."""
    address = listen(files.tls(mutual=True))
    context = ssl_context(client=CLIENT, folder=tmp_path)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # its ticket comes with the handshake
    with connected(address, context) as peer:
        session = peer.session
    assert session
    with connected(address, context, session) as peer:
        assert peer.session_reused  # or this test would show nothing
    files.ca.write_bytes(OTHER.pem)
    with pytest.raises(ssl.SSLError), connected(address, context, session):
        pass


def test_tls_server_follows_the_link_that_kubernetes_exchanges(
    tmp_path: Path, listen: Listen
) -> None:
    """A secret's files lead through ``..data``, which is renamed over to exchange all at once."""

    def publish(version: str, issued: Issued, authority: Authority) -> None:
        folder = tmp_path / f"..{version}"
        folder.mkdir()
        issued.write(folder / "tls.crt", folder / "tls.key")
        (folder / "ca.crt").write_bytes(authority.pem)
        for path in folder.iterdir():  # as equal as can be
            os.utime(path, ns=(0, 0))
        (tmp_path / "..data_tmp").symlink_to(folder.name)
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")

    publish("1", SERVER, AUTHORITY)
    names = ("tls.crt", "tls.key", "ca.crt")
    for name in names:
        (tmp_path / name).symlink_to(f"..data/{name}")
    address = listen(ServerTls(*(tmp_path / name for name in names)))
    assert answers(address, AUTHORITY, CLIENT)
    renewed = AUTHORITY.issue_server()
    publish("2", renewed, OTHER)
    assert not answers(address, AUTHORITY, CLIENT)
    assert answers(address, AUTHORITY, OTHER_CLIENT)


def test_tls_server_takes_nothing_that_changed_while_it_was_read(
    files: Files, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tls = files.tls()
    renewed = AUTHORITY.issue_server(days=90)
    files.write_key(renewed)
    read = ServerTls._read

    def overtaken(tls: ServerTls) -> object:
        try:
            return read(tls)
        finally:
            monkeypatch.undo()
            files.write(renewed)

    monkeypatch.setattr(ServerTls, "_read", overtaken)
    tls.look()
    assert expiries(caplog) == [SERVER.expires]
    tls.look()
    assert expiries(caplog) == [SERVER.expires, renewed.expires]
    assert said(caplog, logging.WARNING) == []


def pem_of(key: ec.EllipticCurvePrivateKey | ed448.Ed448PrivateKey, password: bytes = b"") -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption(),
    )


@pytest.mark.parametrize(
    ("which", "content", "message"),
    [
        ("certificate", b"", "'{}' holds no certificates in PEM"),
        ("certificate", SERVER.key, "'{}' holds no certificates in PEM"),
        ("certificate", of_version_6(SERVER.certificate), "'{}' holds no certificates in PEM"),
        ("ca", b"x", "'{}' holds no certificates in PEM"),
        ("key", b"", "'{}' holds no private key in PEM"),
        ("key", SERVER.certificate, "'{}' holds no private key in PEM"),
        ("key", CLIENT.key, "are not a certificate and its key"),
        ("certificate", AUTHORITY.pem + SERVER.certificate, "are not a certificate and its key"),
        (
            "key",
            pem_of(ec.generate_private_key(ec.SECP256R1()), b"password"),
            "the private key in '{}' is encrypted",
        ),
        (
            "key",
            pem_of(ec.generate_private_key(ec.SECP256K1())),
            "the private key in '{}' is of a kind that gRPC does not take",
        ),
        (
            "key",
            pem_of(ed448.Ed448PrivateKey.generate()),
            "the private key in '{}' is of a kind that gRPC does not take",
        ),
        ("key", b" " * (1024 * 1024 + 1), "'{}' is longer than the 1048576 bytes that it may have"),
    ],
)
def test_tls_refuses_files_that_are_not_what_they_should_be(
    files: Files, which: str, content: bytes, message: str
) -> None:
    path: Path = getattr(files, which)
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        files.tls(mutual=True)
    assert message.format(path) in error.value.message


def test_tls_shows_no_key(files: Files) -> None:
    tls = files.tls()
    shown = repr(tls) + repr(tls._material)
    key = serialization.load_pem_private_key(SERVER.key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    for line in SERVER.key.decode().splitlines()[1:-1]:
        assert line not in shown
