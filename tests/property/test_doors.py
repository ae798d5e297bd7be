"""Whatever comes through a door, it gets an answer or a refusal, and the door holds."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

import grpc
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coco_kp.errors import CocoKpError
from coco_kp.keyprovider.server import new_server
from coco_kp.keyprovider.service import key_provider
from coco_kp.keyprovider.stdio import answer_stdio
from coco_kp.provider import Provider
from coco_kp.service.calls import answer
from tests.property.strategies import (
    REQUESTS,
    altered,
    json_objects,
    retyped,
)
from tests.support import ocicrypt

METHODS: Final = [ocicrypt.WRAP_KEY, ocicrypt.UNWRAP_KEY]
REFUSALS: Final = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION}

requests = (
    st.binary()
    | altered(REQUESTS)
    | retyped(REQUESTS)
    | json_objects.map(json.dumps).map(str.encode)
)


@pytest.fixture(scope="module")
def channel() -> Iterator[grpc.Channel]:
    with ThreadPoolExecutor(4) as pool:
        server = new_server(key_provider(partial(answer, Provider())), pool)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with ocicrypt.connection(f"127.0.0.1:{port}") as channel:
            yield channel
        server.stop(None).wait()


def call(channel: grpc.Channel, method: str, message: bytes) -> bytes | None:
    """Send a message as it is on the wire; give its answer, or None if it was refused."""
    try:
        answered: bytes = channel.unary_unary(method, bytes, bytes)(message, timeout=10)
    except grpc.RpcError as error:
        code, text = error.code(), error.details() or ""
    else:
        return answered
    assert code in REFUSALS, text
    assert text.isprintable()
    return None


@pytest.mark.parametrize("method", METHODS)
@given(st.binary())
@example(b"")
@example(b"\x0a\xff\xff\xff\xff\x0f")
@example(b"\x0b" * 200)
def test_grpc_server_answers_or_refuses_any_bytes(
    channel: grpc.Channel, method: str, message: bytes
) -> None:
    assert call(channel, method, message) is None


@pytest.mark.parametrize("method", METHODS)
@given(requests)
def test_grpc_server_answers_or_refuses_any_request(
    channel: grpc.Channel, method: str, request_: bytes
) -> None:
    answered = call(channel, method, ocicrypt.encode_message(request_))
    if answered is not None:
        results = json.loads(ocicrypt.decode_message(answered))
        assert results.keys() <= {"keywrapresults", "keyunwrapresults"}


@given(requests)
def test_answer_stdio_answers_or_refuses_any_request(request_: bytes) -> None:
    sink = io.BytesIO()
    try:
        answer_stdio(partial(answer, Provider()), io.BytesIO(request_), sink)
    except CocoKpError:
        assert sink.getvalue() == b""
    else:
        assert json.loads(sink.getvalue()).keys() <= {"keywrapresults", "keyunwrapresults"}
