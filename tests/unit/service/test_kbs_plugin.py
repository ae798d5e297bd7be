"""The KBS plugin's gRPC door, over a real connection."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256

import grpc
import pytest
from grpc_health.v1 import health_pb2

from coco_kp.errors import InputError, KekError, UnreachableError
from coco_kp.keyprovider.server import new_server
from coco_kp.keys.stores.interface import WrappingKey
from coco_kp.service.kbs_plugin import kbs_plugin
from coco_kp.service.kbs_plugin_pb2 import (
    NeedsEncryptionRequest,
    NeedsEncryptionResponse,
    PluginRequest,
    PluginResponse,
    ValidateAuthRequest,
    ValidateAuthResponse,
)
from coco_kp.service.unwrapping import Unwrapping
from tests.support.kbs_plugin import SERVICE, TIMEOUT, ask, ct, send
from tests.support.traces import traces
from tests.support.wrapping_key import LocalKey

MASTER = LocalKey(bytes(range(32)))
KEK = sha256(b"kek").digest()
CIPHERTEXT = MASTER.encrypt(KEK, {"coco-kp": "prod"})
GOOD = {"path": ["prod"], "query": {"ct": ct(CIPHERTEXT)}, "method": "GET"}


@dataclass(frozen=True)
class FailingKey(LocalKey):
    """A KMS in trouble."""

    error: Exception

    def decrypt(self, *_: object) -> bytes:
        raise self.error


Serve = Callable[[dict[str, WrappingKey]], grpc.Channel]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[grpc.Server] = []
    channels: list[grpc.Channel] = []
    with ThreadPoolExecutor(64) as pool:

        def start(keys: dict[str, WrappingKey]) -> grpc.Channel:
            server = new_server(kbs_plugin(Unwrapping(keys)), pool)
            port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            servers.append(server)
            channels.append(grpc.insecure_channel(f"127.0.0.1:{port}"))
            return channels[-1]

        try:
            yield start
        finally:
            for channel in channels:
                channel.close()
            for server in servers:
                server.stop(None).wait()


@pytest.fixture
def channel(serve: Serve) -> grpc.Channel:
    return serve({"prod": MASTER, "team/prod": MASTER})


def handled(channel: grpc.Channel, **changes: object) -> PluginResponse:
    request = PluginRequest(**{**GOOD, **changes})  # type: ignore[arg-type]
    return PluginResponse.FromString(send(channel, "Handle", request.SerializeToString()))


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str, dict[str, object]]]:
    found = []
    for record in caplog.records:
        fields = dict(record.__dict__["fields"])
        assert fields.pop("seconds", 0.0) >= 0
        found.append((record.levelno, record.getMessage(), fields))
    return found


def test_plugin_answers_with_the_kek(channel: grpc.Channel) -> None:
    assert ask(channel, "prod", CIPHERTEXT) == PluginResponse(body=KEK, status_code=200)


def test_plugin_answers_for_a_name_of_several_parts(channel: grpc.Channel) -> None:
    ciphertext = MASTER.encrypt(KEK, {"coco-kp": "team/prod"})
    assert ask(channel, "team/prod", ciphertext).body == KEK


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "POST"},
        {"method": "get"},
        {"method": ""},
        {"body": b"x"},
        {"query": {}},
        {"query": {"ct": ""}},
        {"query": {"CT": ct(CIPHERTEXT)}},
        {"query": {"ct": ct(CIPHERTEXT), "x": "1"}},
        {"query": {"ct": ct(CIPHERTEXT) + "="}},
        {"query": {"ct": ct(CIPHERTEXT)[:-1]}},
        {"query": {"ct": ct(CIPHERTEXT)[:-4]}},
        {"query": {"ct": "A" * 1200}},
        {"query": {"ct": ct(MASTER.encrypt(KEK, {"coco-kp": "test"}))}},
        {"query": {"ct": ct(MASTER.encrypt(KEK, {}))}},
        {"query": {"ct": ct(MASTER.encrypt(KEK[:31], {"coco-kp": "prod"}))}},
        {"query": {"ct": ct(LocalKey(bytes(32)).encrypt(KEK, {"coco-kp": "prod"}))}},
        {"path": []},
        {"path": [""]},
        {"path": ["prod", ""]},
        {"path": ["Prod"]},
        {"path": ["test"]},
        {"path": ["prod", "x"]},
        {"path": ["coco-kp", "prod"]},
        {"path": ["team/prod"]},
        {"path": ["team", "prod"]},  # this name's key, but the other's ciphertext
        {"path": ["p" * 1100]},
    ],
)
def test_plugin_refuses_all_other_requests_alike(
    channel: grpc.Channel, changes: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "coco_kp")
    assert handled(channel, **changes) == PluginResponse(status_code=404)
    ((level, outcome, fields),) = logged(caplog)
    assert (level, outcome) == (logging.INFO, "refused")
    assert fields["message"]
    assert ask(channel, "prod", CIPHERTEXT).body == KEK  # the server lives


def test_plugin_with_one_slash_more_in_a_part_is_not_another_name(serve: Serve) -> None:
    """The KBS's policy looks at parts: two paths must not be one name."""
    channel = serve({"team/prod": MASTER})
    ciphertext = ct(MASTER.encrypt(KEK, {"coco-kp": "team/prod"}))
    assert handled(channel, path=["team", "prod"], query={"ct": ciphertext}).body == KEK
    assert handled(channel, path=["team/prod"], query={"ct": ciphertext}).status_code == 404


@pytest.mark.parametrize(
    ("error", "status", "outcome", "said"),
    [
        (KekError("the PIN is locked", "unlock it"), 503, "failed", "the PIN is locked (hint: unl"),
        (UnreachableError("no answer"), 503, "failed", "no answer"),
        (InputError("no region is set"), 503, "failed", "no region is set"),
        (ValueError("KEK"), 500, "bug", "ValueError"),
    ],
)
def test_plugin_tells_the_log_alone_what_is_wrong_with_kms(
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
    outcome: str,
    said: str,
) -> None:
    caplog.set_level(logging.DEBUG, "coco_kp")
    channel = serve({"prod": FailingKey(b"", error)})
    assert ask(channel, "prod", CIPHERTEXT) == PluginResponse(status_code=status)
    ((level, event, fields),) = logged(caplog)
    assert (level, event, fields["name"]) == (logging.ERROR, outcome, "prod")
    assert str(fields["message"]).startswith(said)


def test_plugin_logs_name_and_digest_and_no_key(
    channel: grpc.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "coco_kp")
    ask(channel, "prod", CIPHERTEXT)
    digest = f"sha256:{sha256(CIPHERTEXT).hexdigest()}"
    assert logged(caplog) == [(logging.INFO, "answered", {"name": "prod", "digest": digest})]
    assert not [trace for trace in traces(KEK) if trace in caplog.text.encode()]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("no\nsuch", "'no?such'"),
        ("a" * 300, f"'{'a' * 120}…'"),
        (KEK.hex(), "(64 characters that look like a key)"),
    ],
)
def test_plugin_shows_a_strange_name_as_somebody_elses_words(
    channel: grpc.Channel, caplog: pytest.LogCaptureFixture, name: str, shown: str
) -> None:
    caplog.set_level(logging.DEBUG, "coco_kp")
    ask(channel, name, CIPHERTEXT)
    ((_, _, fields),) = logged(caplog)
    assert fields["name"] == shown


def test_plugin_asks_no_key_about_what_no_key_id_can_hold(
    channel: grpc.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "coco_kp")
    assert ask(channel, "n" * 1100, CIPHERTEXT).status_code == 404
    ((_, _, fields),) = logged(caplog)
    assert "longer than a key ID" in str(fields["message"])


@pytest.mark.parametrize(
    ("method", "admin"),
    [("GET", False), ("POST", True), ("PUT", True), ("DELETE", True), ("get", True), ("", True)],
)
def test_plugin_lets_attested_guests_read_and_nobody_write(
    channel: grpc.Channel, method: str, admin: bool
) -> None:
    request = ValidateAuthRequest(path=["prod"], method=method).SerializeToString()
    answer = ValidateAuthResponse.FromString(send(channel, "ValidateAuth", request))
    assert answer.requires_admin_auth is admin


@pytest.mark.parametrize("method", ["GET", "POST", ""])
def test_plugin_has_every_answer_encrypted_to_the_guest(channel: grpc.Channel, method: str) -> None:
    request = NeedsEncryptionRequest(method=method).SerializeToString()
    answer = NeedsEncryptionResponse.FromString(send(channel, "NeedsEncryption", request))
    assert answer.requires_payload_encryption


@pytest.mark.parametrize("method", ["Handle", "ValidateAuth", "NeedsEncryption"])
@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"\xff\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
        (b"\x0a\x7fshort", grpc.StatusCode.INVALID_ARGUMENT),
        (b"\x22\x01\xff", grpc.StatusCode.INVALID_ARGUMENT),  # a method that is not UTF-8
        (bytes(17 * 1024), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_plugin_refuses_messages_of_no_form(
    channel: grpc.Channel, method: str, message: bytes, code: grpc.StatusCode
) -> None:
    with pytest.raises(grpc.RpcError) as error:
        send(channel, method, message)
    assert error.value.code() is code
    assert ask(channel, "prod", CIPHERTEXT).body == KEK


def test_plugin_answers_unknown_method_with_unimplemented(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as error:
        send(channel, "Wrap", b"")
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_plugin_answers_a_burst_of_one_request_a_layer(channel: grpc.Channel) -> None:
    with ThreadPoolExecutor(64) as guests:
        answers = list(guests.map(lambda _: ask(channel, "prod", CIPHERTEXT), range(200)))
    assert all(answer.body == KEK for answer in answers)


@pytest.mark.parametrize("service", ["", SERVICE])
def test_plugin_health_check_reports_serving(channel: grpc.Channel, service: str) -> None:
    request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    check = channel.unary_unary("/grpc.health.v1.Health/Check", bytes, bytes)
    answer = health_pb2.HealthCheckResponse.FromString(check(request, timeout=TIMEOUT))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
