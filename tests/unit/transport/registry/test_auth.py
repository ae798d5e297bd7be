"""Who we are to a registry: Basic, tokens that are renewed, identity tokens; who is not told."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from urllib.parse import parse_qs

import pytest

from coco_kp.errors import InputError, RemoteError
from coco_kp.model.manifest import describe
from coco_kp.model.reference import RegistryReference
from coco_kp.transport import Access, Credentials
from coco_kp.transport.registry.session import Session
from coco_kp.transport.registry.sink import RegistrySink
from coco_kp.transport.registry.source import RegistrySource
from tests.sim.http_server import Reply, http_server
from tests.sim.registry import Registry, TokenServer, serve_tokens, unauthorized
from tests.support.access import PLAIN, REPOSITORY
from tests.support.blobs import copy_blob, in_pieces, put_blob
from tests.support.stored import check, image, store

ONE = image(b"layer one")
PASSWORD = "correct horse"
KNOWN = Access(Credentials("user", PASSWORD), tls_verify=False)


@pytest.fixture
def tokens(registry: Registry) -> Iterator[TokenServer]:
    registry.tokens = TokenServer()
    with serve_tokens(registry.tokens):
        yield registry.tokens


class TestBasic:
    def test_basic_auth_sends_password(
        self, registry: Registry, image_name: RegistryReference
    ) -> None:
        registry.basic = ("user", PASSWORD)
        with RegistrySink(image_name, KNOWN) as sink:
            store(sink, ONE)
        with RegistrySource(image_name, KNOWN) as source:
            check(source, ONE)

    def test_basic_auth_does_not_retry_wrong_password(
        self, registry: Registry, image_name: RegistryReference
    ) -> None:
        registry.basic = ("user", "another")
        with (
            RegistrySource(image_name, KNOWN) as source,
            pytest.raises(RemoteError, match="401 Unauthorized: UNAUTHORIZED") as caught,
        ):
            source.manifest()
        assert len(registry.requests("GET", "manifests")) == 1
        assert "log in" in caught.value.hint
        assert PASSWORD not in str(caught.value)

    @pytest.mark.parametrize(
        "challenges", [("Negotiate", 'Basic realm="x"'), ('Negotiate, Basic realm="x"',)]
    )
    def test_basic_auth_is_chosen_among_other_schemes(
        self, registry: Registry, image_name: RegistryReference, challenges: tuple[str, ...]
    ) -> None:
        registry.basic, registry.challenges = ("user", PASSWORD), challenges
        with RegistrySink(image_name, KNOWN) as sink:
            store(sink, ONE)

    def test_basic_auth_refusal_says_where_password_is_from(
        self, registry: Registry, image_name: RegistryReference
    ) -> None:
        registry.basic = ("user", "another")
        access = Access(Credentials("user", PASSWORD, origin="'/my/auth.json'"), tls_verify=False)
        with (
            RegistrySource(image_name, access) as source,
            pytest.raises(RemoteError, match="401 Unauthorized") as caught,
        ):
            source.manifest()
        assert "the credentials from '/my/auth.json' were refused" in caught.value.hint

    def test_basic_auth_without_password_asks_for_credentials(
        self, registry: Registry, image_name: RegistryReference
    ) -> None:
        registry.basic = ("user", PASSWORD)
        with (
            RegistrySource(image_name, PLAIN) as source,
            pytest.raises(RemoteError, match="wants a user name and a password") as caught,
        ):
            source.manifest()
        assert caught.value.code == "login-needed"
        assert caught.value.fields == {"side": ""}

    def test_basic_auth_error_does_not_show_password_that_registry_repeated(
        self, registry: Registry, image_name: RegistryReference
    ) -> None:
        def echo(request: object) -> Reply | None:
            authorization = getattr(request, "headers", {}).get("Authorization")
            if authorization is None:
                return unauthorized('Basic realm="x"')
            body = json.dumps({"errors": [{"code": "X", "message": f"{authorization} {PASSWORD}"}]})
            return Reply(403, {}, body.encode())

        registry.faults = [echo]
        with (
            RegistrySource(image_name, KNOWN) as source,
            pytest.raises(RemoteError, match="403 Forbidden") as caught,
        ):
            source.manifest()
        assert "***" in caught.value.message
        assert PASSWORD not in str(caught.value)
        assert "dXNlcjpjb3JyZWN0" not in str(caught.value)


class TestTokens:
    @pytest.mark.parametrize("password", [None, PASSWORD])
    def test_bearer_token_is_fetched_once_for_the_required_scope(
        self, tokens: TokenServer, image_name: RegistryReference, password: str | None
    ) -> None:
        tokens.password = password
        with RegistrySink(image_name, KNOWN if password else PLAIN) as sink:
            store(sink, ONE)
        (request,) = tokens.seen
        assert request.query == {
            "scope": [f"repository:{REPOSITORY}:pull,push"],
            "service": ['sim, "registry"'],
        }
        assert ("Authorization" in request.headers) is (password is not None)
        with RegistrySource(image_name, KNOWN if password else PLAIN) as source:
            check(source, ONE)
        assert tokens.seen[1].query["scope"] == [f"repository:{REPOSITORY}:pull"]

    def test_token_server_refusing_password_is_reported_without_it(
        self, tokens: TokenServer, image_name: RegistryReference
    ) -> None:
        tokens.password = "another"
        with (
            RegistrySource(image_name, KNOWN) as source,
            pytest.raises(RemoteError, match=r"gives no token: .*401 .*wrong password") as caught,
        ):
            source.manifest()
        assert PASSWORD not in str(caught.value)
        assert "scope" not in caught.value.message, "a query was shown"

    def test_token_server_refusal_says_where_password_is_from(
        self, tokens: TokenServer, image_name: RegistryReference
    ) -> None:
        tokens.password = "another"
        access = Access(Credentials("user", PASSWORD, origin="a helper"), tls_verify=False)
        with (
            RegistrySource(image_name, access) as source,
            pytest.raises(RemoteError, match="gives no token") as caught,
        ):
            source.manifest()
        assert "the credentials from a helper were refused" in caught.value.hint

    def test_identity_token_is_exchanged_for_bearer_token(
        self, tokens: TokenServer, image_name: RegistryReference
    ) -> None:
        tokens.identity_token = "refresh-me"
        access = Access(Credentials("<token>", "", "refresh-me"), tls_verify=False)
        with RegistrySink(image_name, access) as sink:
            store(sink, ONE)
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
        with (
            RegistrySource(image_name, PLAIN) as source,
            pytest.raises(RemoteError, match="401 Unauthorized"),
        ):
            source.manifest()
        assert len(registry.requests("GET", "manifests")) == 2

    def test_bearer_token_for_mount_covers_both_repositories(
        self, tokens: TokenServer, registry: Registry, image_name: RegistryReference
    ) -> None:
        blob = describe("x", b"data")
        other = RegistryReference(image_name.host, "team/other", "v1")
        registry.blobs[REPOSITORY, str(blob.digest)] = b"data"
        with RegistrySource(image_name, PLAIN) as source, RegistrySink(other, PLAIN) as sink:
            copy_blob(source, sink, blob)
        assert not registry.requests("PATCH")
        assert tokens.seen[-1].query["scope"] == [
            "repository:team/other:pull,push",
            f"repository:{REPOSITORY}:pull",
        ]

    def test_bearer_token_request_includes_scope_named_by_registry(
        self, tokens: TokenServer, registry: Registry, image_name: RegistryReference
    ) -> None:
        challenge = f'{tokens.challenge},scope="repository:renamed/app:pull"'
        registry.faults = [lambda r: unauthorized(challenge) if r.path == "/v2/" else None]
        with RegistrySource(image_name, PLAIN) as source, pytest.raises(RemoteError):
            source.manifest()
        assert tokens.seen[0].query["scope"] == [
            f"repository:{REPOSITORY}:pull",
            "repository:renamed/app:pull",
        ]

    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b"{}",
            b"[]",
            b'{"token":5}',
            b'{"token":""}',
            b'{"token":"a b"}',
            b'{"token":"a\\r\\nX: y"}',
            b'{"token":"\xc3\xa4"}',
            b'{"token":"a","token":"b"}',
        ],
    )
    def test_bearer_token_that_is_malformed_is_refused(
        self, registry: Registry, image_name: RegistryReference, answer: bytes
    ) -> None:
        with http_server(lambda _: Reply(200, {}, answer)) as base:
            registry.faults = [lambda _: unauthorized(f'Bearer realm="{base}"')]
            with (
                RegistrySource(image_name, PLAIN) as source,
                pytest.raises((RemoteError, InputError), match="answer of the token server"),
            ):
                source.manifest()

    @pytest.mark.parametrize("life", [b"0", b"-1", b"null", b'"x"', b"true", b"1e99"])
    def test_bearer_token_with_senseless_expiry_lasts_a_minute(
        self, registry: Registry, image_name: RegistryReference, life: bytes
    ) -> None:
        answer = b'{"access_token":"abc","expires_in":%b}' % life
        with http_server(lambda _: Reply(200, {}, answer)) as base:
            challenge = unauthorized(f'Bearer realm="{base}"')
            registry.faults = [
                lambda r: None if r.headers.get("Authorization") == "Bearer abc" else challenge
            ]
            with RegistrySink(image_name, PLAIN) as sink:
                store(sink, ONE)
        assert (REPOSITORY, "v1") in registry.manifests

    @pytest.mark.parametrize("realm", ["", "ftp://h/", "http://u:p@127.0.0.1/", "token"])
    def test_bearer_token_is_not_fetched_from_unusable_realm(
        self, registry: Registry, image_name: RegistryReference, realm: str
    ) -> None:
        registry.faults = [lambda _: unauthorized(f'Bearer realm="{realm}"')]
        with (
            RegistrySource(image_name, KNOWN) as source,
            pytest.raises(RemoteError, match="names no usable token server"),
        ):
            source.manifest()

    def test_credentials_repr_shows_no_secret(self) -> None:
        assert PASSWORD not in repr(KNOWN)
        assert "refresh" not in repr(Credentials("<token>", "", "refresh-me"))


@pytest.mark.parametrize("header", ["", "Negotiate", "Bearer", 'Digest realm="x"'])
def test_auth_refuses_unknown_challenge_without_sending_credentials(
    registry: Registry, image_name: RegistryReference, header: str
) -> None:
    registry.faults = [lambda _: unauthorized(header)]
    with RegistrySource(image_name, KNOWN) as source, pytest.raises((RemoteError, InputError)):
        source.manifest()
    assert not [r for r in registry.seen if "Authorization" in r.headers]
