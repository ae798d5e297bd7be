"""A session: what many images share on their way to a registry, and what stays apart."""

from __future__ import annotations

import base64
import email.utils
import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from coco_kp.errors import RemoteError
from coco_kp.http.client import CONNECTIONS_PER_HOST
from coco_kp.model.reference import RegistryReference
from coco_kp.transport import Access, Credentials, open_sink, open_source
from coco_kp.transport.registry.client import RegistryClient
from coco_kp.transport.registry.registries import _MOST_KEPT
from coco_kp.transport.registry.session import Session, registries
from tests.sim.http_server import Reply, Request
from tests.sim.registry import Registry, TokenServer, error, serve, serve_tokens
from tests.support.access import PLAIN, REPOSITORY
from tests.support.pauses import Pauses
from tests.support.stored import image, store

ONE = image(b"layer one")
WORKERS = 8


@pytest.fixture(autouse=True)
def stored(registry: Registry, image_name: RegistryReference) -> None:
    with open_sink(image_name, PLAIN) as sink:
        store(sink, ONE)
    registry.seen.clear()


def look(image: RegistryReference, session: Session, access: Access = PLAIN) -> None:
    with open_source(image, access, session) as source:
        assert source.manifest().digest == ONE.top.digest


def many(count: int, do: Callable[[int], object]) -> None:
    """Call ``do`` so often, in several threads that start together."""
    start = threading.Barrier(WORKERS)

    def work(first: int) -> None:
        start.wait(60)
        for number in range(first, count, WORKERS):
            do(number)

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(work, range(WORKERS)))


def test_registry_that_was_not_found_is_not_looked_for_by_all_who_need_it(
    registry: Registry, image_name: RegistryReference, session: Session, pauses: Pauses
) -> None:
    """Each blob of an image looked for it anew, with a second's pause and a warning each."""
    registry.faults.append(lambda request: Reply(404) if request.path == "/v2/" else None)
    for _ in range(3):
        with pytest.raises(RemoteError, match="does not answer as a registry") as found:
            look(image_name, session)
    assert found.value.code == "not-there"
    assert [request.path for request in registry.seen] == ["/v2/"]
    registry.faults.clear()
    pauses.append(1.1)
    look(image_name, session)


def at_manifests(reply: Callable[[Request], Reply | None]) -> Callable[[Request], Reply | None]:
    return lambda request: reply(request) if "/manifests/" in request.path else None


def test_session_asks_once_for_a_token_of_many_images(
    registry: Registry, tokens: TokenServer, image_name: RegistryReference, session: Session
) -> None:
    many(40, lambda _: look(image_name, session))
    assert len(tokens.seen) == 1
    assert len(registry.requests("GET", "/manifests/")) == 40
    assert [request.path for request in registry.seen].count("/v2/") == 1


def test_session_asks_for_a_token_of_each_repository_and_names_no_other(
    registry: Registry, tokens: TokenServer, host: str, session: Session
) -> None:
    manifest = registry.manifests[REPOSITORY, "v1"]
    names = [f"team/{letter}" for letter in "abc"]
    for name in names:
        registry.manifests[name, "v1"] = manifest
        look(RegistryReference(host, name, "v1"), session)
        tokens.issued.clear()  # the next is challenged, with the scope of its repository
        registry.faults = [
            lambda request, name=name: (  # type: ignore[misc]
                Reply(
                    401, {"WWW-Authenticate": f'{tokens.challenge},scope="repository:{name}:pull"'}
                )
                if request.path != "/v2/"
                and not tokens.accepts(
                    request.headers.get("Authorization", "")[7:], f"repository:{name}:pull"
                )
                else None
            )
        ]
        look(RegistryReference(host, name, "v1"), session)
        registry.faults = []
    asked = [request.query["scope"] for request in tokens.seen]
    assert asked == [[f"repository:{name}:pull"] for name in names for _ in range(2)]


def test_session_keeps_connections_of_many_images(
    registry: Registry, image_name: RegistryReference, session: Session
) -> None:
    for _ in range(20):
        look(image_name, session)
    assert len({request.port for request in registry.seen}) == 1


def test_session_bounds_requests_that_are_under_way(
    registry: Registry, image_name: RegistryReference, session: Session
) -> None:
    look(image_name, session)
    under_way, most, lock = 0, 0, threading.Lock()
    enough, more = threading.Event(), threading.Event()

    def slow(request: Request) -> None:
        nonlocal under_way, most
        assert "/manifests/" in request.path
        with lock:
            under_way += 1
            most = max(most, under_way)
            if under_way >= CONNECTIONS_PER_HOST:
                enough.set()
            if under_way > CONNECTIONS_PER_HOST:
                more.set()
        assert enough.wait(60)
        more.wait(0.5)
        with lock:
            under_way -= 1

    registry.before = slow
    with ThreadPoolExecutor(3 * CONNECTIONS_PER_HOST) as pool:
        list(pool.map(lambda _: look(image_name, session), range(3 * CONNECTIONS_PER_HOST)))
    assert most == CONNECTIONS_PER_HOST


@pytest.fixture
def helper(host: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the credential helper of the registry has its answer, and beside it its ``runs``."""
    program, answer = tmp_path / "docker-credential-counting", tmp_path / "answer"
    program.write_text(f"#!/bin/sh\necho run >> '{tmp_path}/runs'\ncat '{answer}'\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (home / ".docker").mkdir()
    (home / ".docker" / "config.json").write_text(json.dumps({"credHelpers": {host: "counting"}}))
    return answer


def test_session_runs_credential_helper_once_for_many_repositories(
    registry: Registry, host: str, session: Session, helper: Path
) -> None:
    helper.write_text(json.dumps({"Username": "user", "Secret": "secret"}))
    registry.basic = ("user", "secret")
    for number in range(24):
        registry.manifests[f"team/app{number}", "v1"] = registry.manifests[REPOSITORY, "v1"]
    many(24, lambda number: look(RegistryReference(host, f"team/app{number}", "v1"), session))
    assert helper.with_name("runs").read_text() == "run\n"


def test_session_lasts_longer_than_a_login_that_a_helper_renews(
    registry: Registry, image_name: RegistryReference, helper: Path
) -> None:
    passed = 0.0
    with Session(clock=lambda: passed) as session:
        for secret in ("first", "second"):
            helper.write_text(json.dumps({"Username": "user", "Secret": secret}))
            registry.basic = ("user", secret)
            look(image_name, session)
            passed += 12 * 3600


def test_session_forgets_the_user_whose_last_need_is_longest_ago(
    host: str, session: Session
) -> None:
    def client(number: int) -> RegistryClient:
        return registries(session).registry(host, Access(Credentials(f"user{number}", "secret")))

    first, second, *_ = [client(number) for number in range(_MOST_KEPT)]
    assert client(0) is first
    client(_MOST_KEPT)
    assert client(0) is first
    assert client(1) is not second


def test_session_tells_credentials_of_a_registry_to_no_other(
    registry: Registry,
    tokens: TokenServer,
    image_name: RegistryReference,
    session: Session,
    home: Path,
) -> None:
    tokens.password = "secret"
    encoded = base64.b64encode(b"user:secret").decode()
    (home / ".docker").mkdir()
    (home / ".docker" / "config.json").write_text(
        json.dumps({"auths": {image_name.host: {"auth": encoded}}})
    )
    other = Registry(manifests=dict(registry.manifests), tokens=TokenServer())
    assert other.tokens is not None
    with serve(other) as its_host, serve_tokens(other.tokens):
        theirs = RegistryReference(its_host, REPOSITORY, "v1")
        many(16, lambda number: look((image_name, theirs)[number % 2], session))
    assert {request.headers.get("Authorization") for request in tokens.seen} == {f"Basic {encoded}"}
    assert {request.headers.get("Authorization") for request in other.tokens.seen} == {None}
    # Both give tokens of the same names: they are told apart by whom they came from.
    assert len(tokens.seen) == len(other.tokens.seen) == 1


def test_session_keeps_users_of_one_registry_apart(
    registry: Registry, image_name: RegistryReference, session: Session
) -> None:
    registry.basic = ("user", "secret")
    known = Access(Credentials("user", "secret"), tls_verify=False)
    look(image_name, session, known)
    with pytest.raises(RemoteError, match="wants a user name"):
        look(image_name, session)
    assert "Authorization" not in registry.seen[-1].headers


@pytest.mark.parametrize("as_date", [False, True])
def test_session_pauses_all_threads_where_registry_asks_for_it(
    registry: Registry, image_name: RegistryReference, as_date: bool
) -> None:
    pause = 3.0
    refused_at: list[float] = []
    came: list[float] = []

    def refuse_once(_: Request) -> Reply | None:
        came.append(time.monotonic())
        if refused_at:
            return None
        refused_at.append(time.monotonic())
        after = email.utils.formatdate(time.time() + pause, usegmt=True) if as_date else "3"
        return Reply(429, {"Retry-After": after})

    with Session() as session:
        look(image_name, session)
        registry.faults = [at_manifests(refuse_once)]
        with pytest.raises(RemoteError, match="429"):
            look(image_name, session, Access(tls_verify=False, retries=0))
        many(WORKERS, lambda _: look(image_name, session))
    # A date has no fractions of a second.
    assert min(came[1:]) - refused_at[0] >= pause - (1.1 if as_date else 0.1)
    assert len(came) == 1 + WORKERS


def test_session_asks_no_more_of_registry_that_wants_a_long_pause(
    registry: Registry, image_name: RegistryReference, session: Session, pauses: list[float]
) -> None:
    look(image_name, session)
    registry.faults = [at_manifests(lambda _: Reply(429, {"Retry-After": "3600"}))]
    with pytest.raises(RemoteError, match="429"):
        look(image_name, session)
    registry.seen.clear()
    with pytest.raises(RemoteError, match=r"not asked, .* no requests for another \d+ s"):
        look(image_name, session)
    assert not registry.seen
    assert not pauses


def test_session_lets_other_registries_be_asked_meanwhile(
    registry: Registry, image_name: RegistryReference, session: Session
) -> None:
    registry.faults = [at_manifests(lambda _: Reply(429, {"Retry-After": "3600"}))]
    with pytest.raises(RemoteError, match="429"):
        look(image_name, session)
    with serve(Registry(manifests=dict(registry.manifests))) as its_host:
        look(RegistryReference(its_host, REPOSITORY, "v1"), session)


class TestPulls:
    """Docker Hub's headers: so many pulls are left in a window of so many seconds."""

    @pytest.fixture
    def hub(self, registry: Registry) -> dict[str, int]:
        """What is left, and how often one more was wanted."""
        counts = {"left": 5, "refused": 0}

        def count(request: Request) -> Reply | None:
            refused = request.method == "GET" and not counts["left"]
            counts["refused"] += refused
            counts["left"] -= request.method == "GET" and not refused
            headers = {
                "ratelimit-limit": "100;w=21600",
                "ratelimit-remaining": f"{counts['left']};w=21600",
            }
            if refused:
                reply = error(429, "TOOMANYREQUESTS", "You have reached your pull rate limit.")
                return Reply(429, headers, reply.body)
            reply = registry.route(request)
            return Reply(reply.status, {**reply.headers, **headers}, reply.body)

        registry.faults = [at_manifests(count)]
        return counts

    def test_session_asks_for_no_pull_that_is_not_left(
        self,
        registry: Registry,
        hub: dict[str, int],
        image_name: RegistryReference,
        session: Session,
    ) -> None:
        look(image_name, session)
        failures = []

        def try_to(_: int) -> None:
            try:
                look(image_name, session)
            except RemoteError as failure:
                failures.append(failure.message)

        many(16, try_to)
        asked = len(registry.requests("GET", "/manifests/"))
        # Those under way are reckoned as not yet counted, so that the last may be left.
        assert hub == {"left": 5 - asked, "refused": 0}
        assert len(failures) == 17 - asked > 0
        assert all("leaves this user no pull for now" in message for message in failures)

    def test_session_goes_on_when_pulls_are_left_again(
        self, hub: dict[str, int], image_name: RegistryReference, session: Session
    ) -> None:
        hub["left"] = 1
        look(image_name, session)
        with pytest.raises(RemoteError, match="no pull"):
            look(image_name, session)
        hub["left"] = 2
        look(image_name, session)
        look(image_name, session)
        assert hub == {"left": 0, "refused": 0}

    def test_session_pulls_images_that_are_not_counted_when_none_is_left(
        self,
        registry: Registry,
        hub: dict[str, int],
        image_name: RegistryReference,
        session: Session,
    ) -> None:
        hub["left"] = 1
        look(image_name, session)
        registry.faults = []
        look(image_name, session)
        look(image_name, session)

    def test_session_asks_for_digests_when_no_pull_is_left(
        self, hub: dict[str, int], image_name: RegistryReference, session: Session
    ) -> None:
        hub["left"] = 1
        look(image_name, session)
        with open_source(image_name, PLAIN, session) as source:
            assert source.digest() == ONE.top.digest


def test_session_mounts_blobs_of_another_repository_with_one_login(
    registry: Registry, tokens: TokenServer, image_name: RegistryReference, session: Session
) -> None:
    tokens.password = "secret"
    access = Access(Credentials("user", "secret"), tls_verify=False)
    target = RegistryReference(image_name.host, "team/other", "v1")
    with ExitStack() as stack:
        source = stack.enter_context(open_source(image_name, access, session))
        sink = stack.enter_context(open_sink(target, access, session))
        for blob in ONE.blobs:
            assert sink.mount_blob(blob, source)
    assert not registry.blobs_sent()
    assert len({request.port for request in registry.seen}) == 1


def test_session_is_closed_by_who_made_it(
    image_name: RegistryReference, session: Session, registry: Registry
) -> None:
    with open_source(image_name, PLAIN, session) as source:
        source.manifest()
    with open_source(image_name, PLAIN, session) as source:
        source.manifest()
    assert len({request.port for request in registry.seen}) == 1
