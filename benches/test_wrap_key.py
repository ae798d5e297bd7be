"""A WrapKey call: ours beside upstream's server, over a kept channel and a fresh one.

ocicrypt dials anew for each call, so the fresh channel is what users have. ``answer`` is our call
without gRPC: what the rest is made of.
"""

from __future__ import annotations

import json
import os
from base64 import b64encode
from contextlib import ExitStack
from typing import TYPE_CHECKING

import grpc
import pytest
from tests.peers.upstream import upstream_provider
from tests.support.provider import served_address, serving

from coco_kp.keyprovider.call import Call
from coco_kp.keyprovider.messages_pb2 import (
    keyProviderKeyWrapProtocolInput,
    keyProviderKeyWrapProtocolOutput,
)
from coco_kp.keyprovider.service import SERVICE
from coco_kp.model.layer_options import PrivateOptions
from coco_kp.provider import Provider
from coco_kp.service.calls import answer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_benchmark.fixture import BenchmarkFixture


@pytest.fixture
def request_json(tmp_path: Path) -> bytes:
    """The request that ocicrypt sends for a layer whose KEK lies in a file."""
    key = tmp_path / "kek"
    key.write_bytes(os.urandom(32))
    key.chmod(0o600)
    parameters = f"keypath={key}::keyid=kbs:///default/key/key_id1"
    options = PrivateOptions(os.urandom(32), os.urandom(16), "sha256:" + "0" * 64)
    encoded = b64encode(parameters.encode()).decode()
    config = {
        "Parameters": {"attestation-agent": [encoded]},
        "DecryptConfig": {"Parameters": {}},
    }
    optsdata = b64encode(options.to_json()).decode()
    request = {
        "op": "keywrap",
        "keywrapparams": {"ec": config, "optsdata": optsdata},
        "keyunwrapparams": {"dc": None, "annotation": None},
    }
    return json.dumps(request).encode()


@pytest.fixture(params=["ours", "upstream"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where the server under test listens; at its own default verbosity."""
    with ExitStack() as stack:
        if request.param == "ours":
            yield served_address(stack.enter_context(serving(tmp_path)))
        else:
            yield stack.enter_context(upstream_provider(tmp_path)).address()


def call(channel: grpc.Channel, request_json: bytes) -> bytes:
    method = channel.unary_unary(
        f"/{SERVICE}/WrapKey",
        request_serializer=keyProviderKeyWrapProtocolInput.SerializeToString,
        response_deserializer=keyProviderKeyWrapProtocolOutput.FromString,
    )
    message = keyProviderKeyWrapProtocolInput(KeyProviderKeyWrapProtocolInput=request_json)
    packet: bytes = method(message).KeyProviderKeyWrapProtocolOutput
    return packet


@pytest.mark.peer
@pytest.mark.benchmark(group="WrapKey, kept channel", warmup=True)
def test_kept_channel(benchmark: BenchmarkFixture, address: str, request_json: bytes) -> None:
    with grpc.insecure_channel(address) as channel:
        assert b"keywrapresults" in benchmark(call, channel, request_json)


@pytest.mark.peer
@pytest.mark.benchmark(group="WrapKey, fresh channel", warmup=True)
def test_fresh_channel(benchmark: BenchmarkFixture, address: str, request_json: bytes) -> None:
    def dial_and_call() -> bytes:
        # A pool of its own, or the client library would keep the connection behind our back.
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(address, options=options) as channel:
            return call(channel, request_json)

    assert b"keywrapresults" in benchmark(dial_and_call)


@pytest.mark.benchmark(group="WrapKey, without gRPC", warmup=True)
def test_answer(benchmark: BenchmarkFixture, request_json: bytes) -> None:
    assert b"keywrapresults" in benchmark(answer, Provider(), Call(request_json, "keywrap"))
