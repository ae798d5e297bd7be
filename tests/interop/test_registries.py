"""Real registries: TLS, passwords, tokens, and one that is killed in the middle of an upload."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from coco_kp.errors import RemoteError
from coco_kp.model.manifest import describe
from coco_kp.model.reference import RegistryReference
from coco_kp.transport import Access, Credentials, list_repositories, list_tags, read_blob
from coco_kp.transport.registry.session import Session
from coco_kp.transport.registry.sink import RegistrySink
from coco_kp.transport.registry.source import RegistrySource
from tests.peers.registry import DISTRIBUTIONS, registry_daemon
from tests.sim.http_server import Reply, Request, http_server
from tests.sim.link import breaking_link
from tests.support.blobs import copy_blob, in_pieces, put_blob
from tests.support.patience import wait_until
from tests.support.stored import check, image, index, store

pytestmark = pytest.mark.peer

ONE = image(os.urandom(300_000), b"layer two")
LIST = index(ONE, image(b"another"))
PASSWORD = "correct horse"
HTPASSWD = "user:$2b$05$gVbPyfwjRNv8HgWxGg7S7.WTuPg.dl2ikRqQu4xl5wPUKH3cb5rF.\n"
"""The password under bcrypt, as ``htpasswd -B`` writes it."""


@pytest.fixture(params=DISTRIBUTIONS)
def program(request: pytest.FixtureRequest) -> Path:
    return DISTRIBUTIONS[request.param]()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "registry").mkdir()
    return tmp_path / "registry"


def name(address: str, repository: str = "team/app") -> RegistryReference:
    return RegistryReference(address, repository, "v1")


def round_trip(address: str, access: Access) -> None:
    for stored in (ONE, LIST):
        with RegistrySink(name(address), access) as sink:
            store(sink, stored)
            assert sink.left_behind() == ()
        with RegistrySource(name(address), access) as source:
            check(source, stored)


def certificate(ca: trustme.CA, folder: Path) -> dict[str, str]:
    """Make the registry's certificate and give the section of its configuration."""
    issued = ca.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    return {"certificate": str(folder / "cert.pem"), "key": str(folder / "key.pem")}


class TestTls:
    def test_registry_tls_with_private_ca_is_trusted_only_when_given(
        self, program: Path, folder: Path, tmp_path: Path
    ) -> None:
        ca = trustme.CA()
        http = {"addr": "127.0.0.1:0", "tls": certificate(ca, folder)}
        certs = tmp_path / "certs"
        certs.mkdir()
        ca.cert_pem.write_to_path(certs / "ca.crt")
        with registry_daemon(program, folder, http=http) as running:
            round_trip(running.address(), Access(cert_dir=certs))
            round_trip(running.address(), Access(tls_verify=False))
            with pytest.raises(RemoteError, match="certificate is not trusted"):
                round_trip(running.address(), Access())


class TestPasswords:
    @pytest.fixture
    def address(self, program: Path, folder: Path) -> Iterator[str]:
        (folder / "htpasswd").write_text(HTPASSWD)
        auth = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
        with registry_daemon(program, folder, auth=auth) as running:
            yield running.address()

    def test_registry_accepts_user_and_password(self, address: str, tmp_path: Path) -> None:
        round_trip(address, Access(Credentials("user", PASSWORD), tls_verify=False))
        encoded = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
        authfile = tmp_path / "auth.json"
        authfile.write_text(json.dumps({"auths": {address: {"auth": encoded}}}))
        round_trip(address, Access(authfile=authfile, tls_verify=False))

    def test_registry_refuses_wrong_password(self, address: str) -> None:
        access = Access(Credentials("user", "wrong"), tls_verify=False)
        with (
            RegistrySource(name(address), access) as source,
            pytest.raises(RemoteError, match="401 Unauthorized: UNAUTHORIZED"),
        ):
            source.manifest()


class TokenServer:
    """Signs tokens as distribution's specification of them has it (docs/spec/auth/jwt.md)."""

    def __init__(self, folder: Path) -> None:
        self.seen: list[Request] = []
        self.expires: Callable[[int], float] = lambda _number: 300.0
        """Seconds from now at which a token expires, by its number; the registry allows 60 more."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tokens")])
        now = dt.datetime.now(dt.UTC)
        self._certificate = (
            x509.CertificateBuilder(subject, subject, self._key.public_key())
            .serial_number(1)
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.bundle = folder / "tokens.pem"
        self.bundle.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def section(self, realm: str) -> dict[str, Any]:
        return {
            "token": {
                "realm": f"{realm}/token",
                "service": "test",
                "issuer": "tokens",
                "rootcertbundle": str(self.bundle),
                "signingalgorithms": ["ES256"],
            }
        }

    def answer(self, request: Request) -> Reply:
        self.seen.append(request)
        expected = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {expected}":
            return Reply(401)
        now = int(time.time())
        claims = {
            "iss": "tokens",
            "sub": "user",
            "aud": "test",
            "iat": now - 120,
            "nbf": now - 120,
            "exp": int(now + self.expires(len(self.seen))),
            "jti": os.urandom(8).hex(),
            "access": [
                {"type": kind, "name": repository, "actions": actions.split(",")}
                for scope in request.query.get("scope", [])
                for kind, repository, actions in [scope.split(":")]
            ],
        }
        token = self._sign(claims)
        return Reply(200, {}, json.dumps({"token": token, "expires_in": 300}).encode())

    def _sign(self, claims: dict[str, Any]) -> str:
        chain = base64.b64encode(self._certificate.public_bytes(serialization.Encoding.DER))
        header = {"typ": "JWT", "alg": "ES256", "x5c": [chain.decode()]}
        text = ".".join(b64(json.dumps(part).encode()) for part in (header, claims))
        signed = self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256()))
        signature = b"".join(number.to_bytes(32) for number in decode_dss_signature(signed))
        return f"{text}.{b64(signature)}"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class TestTokens:
    ACCESS = Access(Credentials("user", PASSWORD), tls_verify=False)

    @pytest.fixture
    def tokens(self, folder: Path) -> TokenServer:
        return TokenServer(folder)

    @pytest.fixture
    def address(self, program: Path, folder: Path, tokens: TokenServer) -> Iterator[str]:
        with (
            http_server(tokens.answer) as realm,
            registry_daemon(program, folder, auth=tokens.section(realm)) as running,
        ):
            yield running.address()

    def test_registry_accepts_bearer_tokens(self, address: str, tokens: TokenServer) -> None:
        round_trip(address, self.ACCESS)
        assert len(tokens.seen) == 4, "one for each source and each sink"

    def test_session_needs_one_token_for_the_images_of_a_repository(
        self, address: str, tokens: TokenServer
    ) -> None:
        images = [RegistryReference(address, "team/app", f"v{number}") for number in range(6)]
        with Session() as session:
            for each in images:
                with RegistrySink(each, self.ACCESS, session) as sink:
                    store(sink, ONE)
            assert len(tokens.seen) == 1
            for each in images:
                with RegistrySource(each, self.ACCESS, session) as source:
                    check(source, ONE)
            assert sorted(list_tags(images[0], self.ACCESS, session)) == [i.tag for i in images]
            assert list(list_repositories(address, self.ACCESS, session)) == ["team/app"]
        scopes = [request.query["scope"] for request in tokens.seen]
        assert scopes == [
            ["repository:team/app:pull,push"],
            ["repository:team/app:pull"],
            ["registry:catalog:*"],
        ]

    def test_token_server_refuses_wrong_password(self, address: str) -> None:
        with pytest.raises(RemoteError, match="gives no token"):
            round_trip(address, Access(Credentials("user", "wrong"), tls_verify=False))

    @pytest.mark.parametrize("size", [None, 4 << 20])
    def test_bearer_token_that_expires_during_upload_is_renewed(
        self, address: str, tokens: TokenServer, size: int | None
    ) -> None:
        """The first token is good for two more seconds, which the upload outlasts."""
        tokens.expires = lambda number: -57.0 if number == 1 else 300.0
        data = os.urandom(4 << 20)
        blob = describe("x", data)

        def outlast(offset: int) -> None:
            if offset == 1 << 20:
                time.sleep(4)

        with RegistrySink(name(address), self.ACCESS) as sink:
            with sink.begin_blob(size) as writer:
                writer.take(in_pieces(data, 1 << 20, outlast))
                writer.commit(blob.digest, len(data))
            with sink.read_back() as source:
                assert read_blob(source, blob, len(data)) == data
        assert len(tokens.seen) == 2

    def test_bearer_token_for_two_repositories_allows_mount(self, address: str) -> None:
        blob = describe("x", b"data")
        with RegistrySink(name(address), self.ACCESS) as sink:
            put_blob(sink, blob, b"data")
        with (
            RegistrySource(name(address), self.ACCESS) as source,
            RegistrySink(name(address, "team/other"), self.ACCESS) as sink,
        ):
            assert not sink.has_blob(blob)
            assert sink.mount_blob(blob, source)
            assert sink.has_blob(blob)


class TestKilled:
    @pytest.mark.parametrize("size", [None, 64 << 20])
    def test_upload_resumes_after_registry_was_killed(
        self, program: Path, folder: Path, size: int | None
    ) -> None:
        """What had come is still there when it is back, or is sent again: the blob is whole."""
        http = {"addr": f"127.0.0.1:{free_port()}", "secret": "kept over restarts"}
        data = os.urandom(64 << 20)
        blob = describe("x", data)
        access = Access(tls_verify=False)
        with ExitStack() as stack:
            running = stack.enter_context(registry_daemon(program, folder, http=http))
            address = running.address()

            def kill(offset: int) -> None:
                if offset == 32 << 20 and running.process.poll() is None:
                    wait_until(lambda: uploaded(folder) >= 8 << 20)
                    running.process.kill()
                    running.process.wait()
                    again = stack.enter_context(registry_daemon(program, folder, http=http))
                    assert again.address() == address

            sink = stack.enter_context(RegistrySink(name(address), access))
            with sink.begin_blob(size) as writer:
                writer.take(in_pieces(data, 1 << 20, kill))
                writer.commit(blob.digest, len(data))
            with sink.read_back() as source:
                assert read_blob(source, blob, len(data)) == data

    def test_download_resumes_after_registry_was_killed(self, program: Path, folder: Path) -> None:
        http = {"addr": f"127.0.0.1:{free_port()}"}
        data = os.urandom(64 << 20)
        blob = describe("x", data)
        access = Access(tls_verify=False)
        with registry_daemon(program, folder, http=http) as running:
            address = running.address()
            with RegistrySink(name(address), access) as sink:
                put_blob(sink, blob, data)
            source = RegistrySource(name(address), access)
            reader = source.open_blob(blob)
            received = bytearray(reader.read(1 << 20))
            running.process.kill()
            running.process.wait()
        with registry_daemon(program, folder, http=http) as running:
            assert running.address() == address
            while piece := reader.read(1 << 20):
                received += piece
        assert received == data
        source.close()


class TestBrokenLink:
    @pytest.mark.parametrize("size", [None, 200_000])
    def test_upload_makes_progress_over_link_that_breaks_every_30_kb(
        self, program: Path, folder: Path, size: int | None
    ) -> None:
        data = os.urandom(200_000)
        blob = describe("x", data)
        pauses: list[float] = []
        with (
            registry_daemon(program, folder) as running,
            breaking_link(running.address(), 30_000) as link,
            Session(sleep=pauses.append) as session,
            RegistrySink(name(link), Access(tls_verify=False), session) as sink,
        ):
            with sink.begin_blob(size) as writer:
                writer.take(in_pieces(data))
                writer.commit(blob.digest, len(data))
            with RegistrySource(name(running.address()), Access(tls_verify=False)) as source:
                assert read_blob(source, blob, len(data)) == data
        assert len(pauses) > 3, "the link did not break"


class TestMounts:
    def test_blob_mount_transfers_no_bytes(self, program: Path, folder: Path) -> None:
        access = Access(tls_verify=False)
        with registry_daemon(program, folder) as running:
            address = running.address()
            with RegistrySink(name(address), access) as sink:
                store(sink, ONE)
            with (
                RegistrySource(name(address), access) as source,
                RegistrySink(name(address, "team/other"), access) as sink,
            ):
                for blob in ONE.blobs:
                    assert not sink.has_blob(blob)
                    assert sink.mount_blob(blob, source)
                    copy_blob(source, sink, blob)
                sink.put_manifest(ONE.top)
                sink.set_reference(ONE.top)
            with RegistrySource(name(address, "team/other"), access) as source:
                check(source, ONE)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def uploaded(folder: Path) -> int:
    """Bytes that the registry has of unfinished uploads."""
    return sum(file.stat().st_size for file in folder.glob("storage/**/_uploads/*/data"))
