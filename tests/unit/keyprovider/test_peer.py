"""Who calls: the names of certificates, and what each kind of connection proves."""

from __future__ import annotations

from base64 import encodebytes
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtensionOID

from coco_kp.keyprovider.address import TcpAddress, UnixAddress
from coco_kp.keyprovider.call import Call
from coco_kp.keyprovider.channel import bind
from coco_kp.keyprovider.peer import certificate_names
from coco_kp.keyprovider.server import new_server
from coco_kp.keyprovider.service import key_provider
from coco_kp.model.client import CertificateNames, ClientIdentity
from tests.support import ocicrypt
from tests.support.tls import Authority, tls_connection

AUTHORITY = Authority()
SPIFFE = "spiffe://example.org/ns/team-a/sa/ci"


def dns(name: str) -> x509.GeneralName:
    return x509.DNSName(name)


def uri(name: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(name)


@pytest.mark.parametrize(
    ("names", "common_names", "expected", "shown"),
    [
        ([uri(SPIFFE)], [], CertificateNames(uris=(SPIFFE,)), f"uri:{SPIFFE}"),
        (
            [dns("CI.Example.org"), dns("b")],
            ["cn"],
            CertificateNames(("ci.example.org", "b")),
            "dns:ci.example.org",
        ),
        (
            [dns("a"), uri("urn:b")],
            ["cn"],
            CertificateNames(("a",), ("urn:b",)),
            "uri:urn:b",
        ),
        ([], ["team-a"], CertificateNames(common_name="team-a"), "cn:team-a"),
        ([], ["team-a", "team-b"], CertificateNames(), "a certificate without a name"),
        ([], [], CertificateNames(), "a certificate without a name"),
        # names of other kinds are none, and keep the common name out
        ([x509.RFC822Name("a@example.org")], ["cn"], CertificateNames(), None),
        ([x509.IPAddress(ip_address("127.0.0.1"))], ["cn"], CertificateNames(), None),
        ([x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))], ["cn"], CertificateNames(), None),
        # an X.509-SVID has one URI
        ([uri(SPIFFE), uri("SPIFFE://other/b")], [], CertificateNames(), None),
        ([uri("urn:a"), uri("urn:b")], [], CertificateNames(uris=("urn:a", "urn:b")), None),
    ],
)
def test_certificate_names_are_read_by_their_kind(
    names: list[x509.GeneralName],
    common_names: list[str],
    expected: CertificateNames,
    shown: str | None,
) -> None:
    found = certificate_names(AUTHORITY.issue(*names, common_names=common_names).certificate)
    assert found == expected
    assert shown in {None, str(found)}


def unreadable(how: str) -> bytes:
    """Return a certificate whose subjectAltName no reader should make anything of."""
    dns_name, x400_address, cut = b"\x30\x03\x82\x01a", b"\x30\x02\xa3\x00", b"\x30\x09\x82\x01a"
    san, ian = ExtensionOID.SUBJECT_ALTERNATIVE_NAME, ExtensionOID.ISSUER_ALTERNATIVE_NAME
    match how:
        case "empty":
            return b""
        case "no DER":
            return b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        case "cut":
            return AUTHORITY.issue(extensions=[(san, cut)], common_names=["cn"]).certificate
        case "of a kind that is unknown":
            return AUTHORITY.issue(extensions=[(san, x400_address)]).certificate
        case "of a version that is none":
            return altered(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05")
        case "with a subject that is no text":
            return altered(b"team-a", b"team\xff\xff")
    twice = [(san, dns_name), (ian, dns_name)]
    issued = x509.load_pem_x509_certificate(AUTHORITY.issue(extensions=twice).certificate)
    der = issued.public_bytes(serialization.Encoding.DER)
    same = der.replace(b"\x06\x03\x55\x1d\x12", b"\x06\x03\x55\x1d\x11")
    return x509.load_der_x509_certificate(same).public_bytes(serialization.Encoding.PEM)


def altered(was: bytes, now: bytes) -> bytes:
    """Return a certificate without subjectAltName, for ``team-a``, with these bytes exchanged."""
    issued = x509.load_pem_x509_certificate(AUTHORITY.issue(common_names=["team-a"]).certificate)
    der = issued.public_bytes(serialization.Encoding.DER)
    assert was in der
    lines = encodebytes(der.replace(was, now, 1))
    return b"-----BEGIN CERTIFICATE-----\n" + lines + b"-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    "how",
    [
        "empty",
        "no DER",
        "cut",
        "of a kind that is unknown",
        "of a version that is none",
        "with a subject that is no text",
        "there twice",
    ],
)
def test_certificate_that_cannot_be_read_names_nobody(how: str) -> None:
    pem = unreadable(how)
    assert certificate_names(pem) == CertificateNames()


Listen = Callable[..., str]


@pytest.fixture
def seen() -> list[ClientIdentity]:
    return []


@pytest.fixture
def listen(seen: list[ClientIdentity]) -> Iterator[Listen]:
    """Yield the address of a server that notes who calls."""

    def note(call: Call) -> bytes:
        seen.append(call.client)
        return b""

    servers: list[grpc.Server] = []
    with ThreadPoolExecutor(4) as pool:

        def start(
            address: TcpAddress | UnixAddress, credentials: grpc.ServerCredentials | None = None
        ) -> str:
            server = new_server(key_provider(note), pool)
            servers.append(server)
            bound = bind(server, address, credentials).address
            server.start()
            return bound

        try:
            yield start
        finally:
            for server in servers:
                server.stop(None).wait()


def call(channel: grpc.Channel) -> None:
    channel.unary_unary(ocicrypt.WRAP_KEY, bytes, bytes)(b"", timeout=ocicrypt.TIMEOUT)


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
def test_caller_over_plain_tcp_is_known_by_address_alone(
    listen: Listen, seen: list[ClientIdentity], ip: str
) -> None:
    with ocicrypt.connection(listen(TcpAddress(ip_address(ip), 0))) as channel:
        call(channel)
    assert seen == [ClientIdentity("tcp", ip)]
    assert str(seen[0]) == f"ip:{ip}"


def test_caller_over_ipv4_to_a_listener_of_ipv6_has_its_ipv4_address(
    listen: Listen, seen: list[ClientIdentity]
) -> None:
    port = listen(TcpAddress(ip_address("::"), 0)).rpartition(":")[2]
    with ocicrypt.connection(f"127.0.0.1:{port}") as channel:
        call(channel)
    assert seen == [ClientIdentity("tcp", "127.0.0.1")]


def test_caller_over_a_unix_socket_has_no_name(
    listen: Listen, seen: list[ClientIdentity], tmp_path: Path
) -> None:
    with ocicrypt.connection(listen(UnixAddress(tmp_path / "kp.sock"))) as channel:
        call(channel)
    assert seen == [ClientIdentity("unix")]
    assert str(seen[0]) == "unix"


@pytest.mark.parametrize("demanded", [True, False])
def test_caller_over_tls_has_the_names_of_a_certificate_that_was_demanded(
    listen: Listen, seen: list[ClientIdentity], demanded: bool
) -> None:
    server, client = AUTHORITY.issue_server(), AUTHORITY.issue(uri(SPIFFE))
    credentials = grpc.ssl_server_credentials(
        [(server.key, server.certificate)], AUTHORITY.pem if demanded else None, demanded
    )
    address = listen(TcpAddress(ip_address("127.0.0.1"), 0), credentials)
    with tls_connection(address, AUTHORITY, client) as channel:
        call(channel)
        call(channel)
    names = CertificateNames(uris=(SPIFFE,)) if demanded else None
    assert seen == [ClientIdentity("tls", "127.0.0.1", names)] * 2
