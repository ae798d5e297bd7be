"""Who we are to a registry: Basic, tokens that are renewed, identity tokens; who is not told."""

from __future__ import annotations

import os
from urllib.parse import parse_qs

import pytest

from coco_kp.errors import RemoteError
from coco_kp.model.manifest import describe
from coco_kp.model.reference import RegistryReference
from coco_kp.transport import Access, Credentials
from coco_kp.transport.registry.session import Session
from coco_kp.transport.registry.sink import RegistrySink
from coco_kp.transport.registry.source import RegistrySource
from tests.sim.http_server import Reply, Request, http_server
from tests.sim.registry import Registry, TokenServer, error, unauthorized
from tests.support.access import PLAIN, REPOSITORY
from tests.support.blobs import copy_blob, in_pieces, put_blob
from tests.support.stored import check, image, store

ONE = image(b"layer one")
PASSWORD = "correct horse"
KNOWN = Access(Credentials("user", PASSWORD), tls_verify=False)


def write(image: RegistryReference, access: Access = PLAIN) -> None:
    with RegistrySink(image, access) as sink:
        store(sink, ONE)


def read(image: RegistryReference, access: Access = PLAIN) -> None:
    with RegistrySource(image, access) as source:
        check(source, ONE)


def refused(image: RegistryReference, access: Access, words: str) -> RemoteError:
    """Read an image, and return the error that this must end in."""
    with pytest.raises(RemoteError, match=words) as caught:
        read(image, access)
    return caught.value


class TestBasic:
    @pytest.fixture(autouse=True)
    def basic(self, registry: Registry) -> None:
        registry.basic = ("user", PASSWORD)

    def test_basic_auth_sends_password(self, image_name: RegistryReference) -> None:
        write(image_name, KNOWN)
        read(image_name, KNOWN)

    @pytest.mark.parametrize(
        ("origin", "hint"),
        [("", "log in"), ("'/my/auth.json'", "credentials from '/my/auth.json' were refused")],
    )
    def test_basic_auth_does_not_retry_wrong_password_and_says_where_it_is_from(
        self, registry: Registry, image_name: RegistryReference, origin: str, hint: str
    ) -> None:
        access = Access(Credentials("user", "another", origin=origin), tls_verify=False)
        error = refused(image_name, access, "401 Unauthorized: UNAUTHORIZED")
        assert len(registry.requests("GET", "manifests")) == 1
        assert hint in error.hint
        assert "another" not in str(error)

    @pytest.mark.parametrize(
        "challenges", [("Negotiate", 'Basic realm="x"'), ('Negotiate, Basic realm="x"',)]
    )
    def test_basic_auth_is_chosen_among_other_schemes(
        self, registry: Registry, image_name: RegistryReference, challenges: tuple[str, ...]
    ) -> None:
        registry.challenges = challenges
        write(image_name, KNOWN)

    def test_basic_auth_without_password_asks_for_credentials(
        self, image_name: RegistryReference
    ) -> None:
        error = refused(image_name, PLAIN, "wants a user name and a password")
        assert error.code == "login-needed"
        assert error.fields == {"side": ""}

    def test_basic_auth_error_does_not_show_password_that_registry_repeated(
        self, registry: Registry, image_name: RegistryReference
    ) -> None:
        def echo(request: Request) -> Reply:
            authorization = request.headers.get("Authorization")
            if authorization is None:
                return unauthorized('Basic realm="x"')
            return error(403, "X", f"{authorization} {PASSWORD}")

        registry.faults = [echo]
        refusal = refused(image_name, KNOWN, "403 Forbidden")
        assert "***" in refusal.message
        assert PASSWORD not in str(refusal)
        assert "dXNlcjpjb3JyZWN0" not in str(refusal)


class TestTokens:
    @pytest.mark.parametrize("password", [None, PASSWORD])
    def test_bearer_token_is_fetched_once_for_the_required_scope(
        self, tokens: TokenServer, image_name: RegistryReference, password: str | None
    ) -> None:
        tokens.password = password
        access = KNOWN if password else PLAIN
        write(image_name, access)
        (request,) = tokens.seen
        assert request.query == {
            "scope": [f"repository:{REPOSITORY}:pull,push"],
            "service": ['sim, "registry"'],
        }
        assert ("Authorization" in request.headers) is (password is not None)
        read(image_name, access)
        assert tokens.seen[1].query["scope"] == [f"repository:{REPOSITORY}:pull"]

    def test_token_server_refusing_password_is_reported_without_it(
        self, tokens: TokenServer, image_name: RegistryReference
    ) -> None:
        tokens.password = "another"
        access = Access(Credentials("user", PASSWORD, origin="a helper"), tls_verify=False)
        error = refused(image_name, access, r"gives no token: .*401 .*wrong password")
        assert PASSWORD not in str(error)
        assert "scope" not in error.message, "a query was shown"
        assert "the credentials from a helper were refused" in error.hint

    def test_identity_token_is_exchanged_for_bearer_token(
        self, tokens: TokenServer, image_name: RegistryReference
    ) -> None:
        tokens.identity_token = "refresh-me"
        write(image_name, Access(Credentials("<token>", "", "refresh-me"), tls_verify=False))
        (request,) = tokens.seen
        assert request.method == "POST"
        assert "refresh-me" not in request.path
        assert parse_qs(request.body.decode()) == {
            "grant_type": ["refresh_token"],
            "refresh_token": ["refresh-me"],
            "client_id": ["coco-kp"],
            "service": ['sim, "registry"'],
            "scope": [f"repository:{REPOSITORY}:pull,push"],
        }

    def test_bearer_token_is_renewed_before_it_expires(
        self, tokens: TokenServer, registry: Registry, image_name: RegistryReference
    ) -> None:
        passed = 0.0
        with (
            Session(clock=lambda: passed) as session,
            RegistrySink(image_name, PLAIN, session) as sink,
        ):
            put_blob(sink, describe("x", b"1"), b"1")
            assert len(tokens.issued) == 1
            passed = tokens.life * 0.9
            put_blob(sink, describe("x", b"2"), b"2")
        assert len(tokens.issued) == 2
        refused = [
            r for r in registry.seen if r.path != "/v2/" and "Authorization" not in r.headers
        ]
        assert not refused

    @pytest.mark.parametrize("size", [None, 300_000])
    def test_bearer_token_that_expires_during_upload_is_renewed(
        self,
        tokens: TokenServer,
        registry: Registry,
        sink: RegistrySink,
        size: int | None,
    ) -> None:
        """The clock of the server runs ahead: it refuses a token that still looks good."""
        data = os.urandom(300_000)
        blob = describe("x", data)

        def forget(offset: int) -> None:
            if offset == 100_000 and len(tokens.seen) == 1:
                tokens.issued = dict.fromkeys(tokens.issued, (0.0, ()))

        with sink.begin_blob(size) as writer:
            writer.take(in_pieces(data, between=forget))
            writer.commit(blob.digest, len(data))
        assert registry.blobs[REPOSITORY, str(blob.digest)] == data
        assert len(tokens.seen) == 2

    def test_bearer_token_that_does_not_suffice_is_not_renewed_again(
        self, tokens: TokenServer, registry: Registry, image_name: RegistryReference
    ) -> None:
        registry.faults = [
            lambda r: unauthorized(tokens.challenge) if "manifests" in r.path else None
        ]
        refused(image_name, PLAIN, "401 Unauthorized")
        assert len(registry.requests("GET", "manifests")) == 2

    def test_bearer_token_for_mount_covers_both_repositories(
        self, tokens: TokenServer, registry: Registry, image_name: RegistryReference
    ) -> None:
        blob = describe("x", b"data")
        other = RegistryReference(image_name.host, "team/other", "v1")
        registry.blobs[REPOSITORY, str(blob.digest)] = b"data"
        with RegistrySource(image_name, PLAIN) as source, RegistrySink(other, PLAIN) as sink:
            copy_blob(source, sink, blob)
        assert not registry.blobs_sent()
        assert tokens.seen[-1].query["scope"] == [
            "repository:team/other:pull,push",
            f"repository:{REPOSITORY}:pull",
        ]

    def test_bearer_token_request_includes_scope_named_by_registry(
        self, tokens: TokenServer, registry: Registry, image_name: RegistryReference
    ) -> None:
        challenge = f'{tokens.challenge},scope="repository:renamed/app:pull"'
        registry.faults = [lambda r: unauthorized(challenge) if r.path == "/v2/" else None]
        refused(image_name, PLAIN, "404 Not Found")
        assert tokens.seen[0].query["scope"] == [
            f"repository:{REPOSITORY}:pull",
            "repository:renamed/app:pull",
        ]

    @pytest.mark.parametrize(
        "answer",
        [
            *(b"", b"{}", b"[]", b'{"token":5}', b'{"token":""}', b'{"token":"a b"}'),
            *(b'{"token":"a\\r\\nX: y"}', b'{"token":"\xc3\xa4"}', b'{"token":"a","token":"b"}'),
        ],
    )
    def test_bearer_token_that_is_malformed_is_refused(
        self, registry: Registry, image_name: RegistryReference, answer: bytes
    ) -> None:
        with http_server(lambda _: Reply(200, {}, answer)) as base:
            registry.faults = [lambda _: unauthorized(f'Bearer realm="{base}"')]
            refused(image_name, PLAIN, "answer of the token server")

    @pytest.mark.parametrize(
        "life",
        [b"0", b"-1", b"null", b'"x"', b"true", b"1e99", pytest.param(b"9" * 400, id="no float")],
    )
    def test_bearer_token_with_senseless_expiry_lasts_a_minute(
        self, registry: Registry, image_name: RegistryReference, life: bytes
    ) -> None:
        answer = b'{"access_token":"abc","expires_in":%b}' % life
        with http_server(lambda _: Reply(200, {}, answer)) as base:
            challenge = unauthorized(f'Bearer realm="{base}"')
            registry.faults = [
                lambda r: None if r.headers.get("Authorization") == "Bearer abc" else challenge
            ]
            write(image_name)
        assert (REPOSITORY, "v1") in registry.manifests

    @pytest.mark.parametrize("realm", ["", "ftp://h/", "http://u:p@127.0.0.1/", "token"])
    def test_bearer_token_is_not_fetched_from_unusable_realm(
        self, registry: Registry, image_name: RegistryReference, realm: str
    ) -> None:
        registry.faults = [lambda _: unauthorized(f'Bearer realm="{realm}"')]
        refused(image_name, KNOWN, "names no usable token server")

    def test_credentials_repr_shows_no_secret(self) -> None:
        assert PASSWORD not in repr(KNOWN)
        assert "refresh" not in repr(Credentials("<token>", "", "refresh-me"))


@pytest.mark.parametrize(
    ("header", "words"),
    [
        *((header, "401 Unauthorized") for header in ("", "Negotiate", 'Digest realm="x"')),
        ("Bearer", "names no usable token server"),
    ],
)
def test_auth_refuses_unknown_challenge_without_sending_credentials(
    registry: Registry, image_name: RegistryReference, header: str, words: str
) -> None:
    registry.faults = [lambda _: unauthorized(header)]
    refused(image_name, KNOWN, words)
    assert not [r for r in registry.seen if "Authorization" in r.headers]
