"""Whatever a registry answers: what was asked for, or an error of ours; never a hang."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coco_kp.errors import CocoKpError
from coco_kp.http import client, connection
from coco_kp.model.manifest import describe
from coco_kp.model.reference import RegistryReference
from coco_kp.transport import read_blob
from coco_kp.transport.registry.session import Session
from coco_kp.transport.registry.sink import RegistrySink
from coco_kp.transport.registry.source import RegistrySource
from tests.sim.http_server import BreakOff, Reply, Request
from tests.sim.registry import Registry, serve
from tests.support.access import PLAIN, REPOSITORY
from tests.support.blobs import put_blob
from tests.support.stored import image, store

DATA = os.urandom(1000)
BLOB = describe("x", DATA)
ONE = image(b"layer one")

HEADERS = {
    "Location": ["", "/v2/", "?x=y", "//", "http://127.0.0.1:1/x", "ftp://h/", "http://[", "\xff"],
    "Range": ["", "0-0", "0-499", "0-999", "bytes=0-9", "5-1", "0-" + "9" * 20, "x"],
    "Content-Range": ["", "bytes 0-999/1000", "bytes 500-", "x"],
    "Content-Type": ["", "application/vnd.oci.image.index.v1+json", "text/html", ";"],
    "Docker-Content-Digest": ["", "sha256:x", "sha512:x", str(BLOB.digest)],
    "WWW-Authenticate": ["", "Basic", 'Basic realm="x"', "Bearer", 'Bearer realm="x://"', "=,"],
    "Retry-After": ["", "0", "5", "99999", "x"],
    "Transfer-Encoding": ["chunked", "x"],
    "Content-Length": ["", "-1", "x", "10"],
}
REPLIES = st.builds(
    Reply,
    status=st.sampled_from(
        [200, 201, 202, 204, 206, 301, 307, 400, 401, 403, 404, 416, 429, 500, 503, 299, 999]
    ),
    headers=st.fixed_dictionaries({}, optional={k: st.sampled_from(v) for k, v in HEADERS.items()}),
    body=st.sampled_from(
        [b"", b"{}", b"[]", b"\xff", DATA, DATA[:10], ONE.top.raw, b"5\r\nabcde\r\n"]
    ),
    truncate=st.none() | st.integers(0, 20),
)
ANSWERS = st.lists(st.none() | REPLIES | st.just(BreakOff()), max_size=12)


@pytest.fixture(autouse=True, scope="module")
def impatience() -> Iterator[None]:
    """A registry that promises more than it sends is waited for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "READ_TIMEOUT", 0.1)
        patch.setattr(connection, "READ_TIMEOUT", 0.1)
        yield


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(answers=ANSWERS)
def test_registry_source_returns_content_or_our_error_for_any_answers(
    answers: list[Reply | BreakOff | None],
) -> None:
    registry = misbehaving(answers)
    registry.blobs[REPOSITORY, str(BLOB.digest)] = DATA
    registry.manifests[REPOSITORY, "v1"] = ("", ONE.top.raw)
    with (
        serve(registry) as host,
        Session(sleep=no_time) as session,
        RegistrySource(name(host), PLAIN, session) as source,
        contextlib.suppress(CocoKpError),
    ):
        assert read_blob(source, BLOB, 1 << 20) == DATA
        source.manifest()


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(answers=ANSWERS)
def test_registry_sink_raises_only_our_errors_for_any_answers(
    answers: list[Reply | BreakOff | None],
) -> None:
    registry = misbehaving(answers)
    with (
        serve(registry) as host,
        Session(sleep=no_time) as session,
        RegistrySink(name(host), PLAIN, session) as sink,
        contextlib.suppress(CocoKpError),
    ):
        put_blob(sink, BLOB, DATA)
        store(sink, ONE)


def misbehaving(answers: list[Reply | BreakOff | None]) -> Registry:
    """A registry that gives these answers first, each None being a good one."""
    left = list(answers)

    def fault(_request: Request) -> Reply | BreakOff | None:
        return left.pop(0) if left else None

    return Registry(faults=[fault])


def name(host: str) -> RegistryReference:
    return RegistryReference(host, REPOSITORY, "v1")


def no_time(_seconds: float) -> None:
    """Wait for nothing."""
