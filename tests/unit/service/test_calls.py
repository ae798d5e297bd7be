"""One call, whichever door it came through; and the door of cmd mode."""

from __future__ import annotations

import io
import json
import logging
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest

from coco_kp.errors import CocoKpError, InputError, KekError, NotAllowedError
from coco_kp.keyprovider.call import Call, MalformedRequestError
from coco_kp.keyprovider.stdio import answer_stdio
from coco_kp.keys.wrapper import SAMPLE_WARNING
from coco_kp.model.client import CertificateNames, ClientIdentity
from coco_kp.model.clients import Clients, Grant
from coco_kp.model.encoding import MAX_MESSAGE, encode_base64
from coco_kp.model.pattern import parse_pattern
from coco_kp.model.protocol import Operation
from coco_kp.observe import UNWRITTEN
from coco_kp.provider import Provider
from coco_kp.service.calls import answer
from tests.support import ocicrypt
from tests.support.kbcs import kbcs_with
from tests.vectors import load_vectors

GCM = next(vector for vector in load_vectors("packets")["good"] if vector["name"] == "gcm")
PRIVATE_OPTIONS = GCM["optsdata"].encode()
WRAP = ocicrypt.wrap_request("sample=true", PRIVATE_OPTIONS)
PACKET = ocicrypt.wrapped_packet(answer(Provider(), Call(WRAP)))
UNWRAP = ocicrypt.unwrap_request("sample", PACKET)

ANSWER = partial(answer, Provider())

Event = tuple[int, str, dict[str, str | float]]


class Log(logging.Handler):
    """Keeps events, but how long they took."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []

    def emit(self, record: logging.LogRecord) -> None:
        fields = {
            name: value for name, value in vars(record)["fields"].items() if name != "seconds"
        }
        self.events.append((record.levelno, record.getMessage(), fields))


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> Iterator[list[Event]]:
    """What the calls of the test log."""
    logger, log = logging.getLogger("coco_kp"), Log()
    caplog.set_level(UNWRITTEN, logger.name)
    logger.addHandler(log)
    yield log.events
    logger.removeHandler(log)


@pytest.mark.parametrize("door_knows", [True, False])
def test_answer_logs_one_event_with_kid_per_call(events: list[Event], door_knows: bool) -> None:
    kid = "kbs:///default/test-key/1"
    answer(Provider(), Call(WRAP, "keywrap" if door_knows else None))
    answer(Provider(), Call(UNWRAP, "keyunwrap" if door_knows else None))
    assert events == [
        (UNWRITTEN, "began", {"method": "keywrap" if door_knows else "call"}),
        (logging.WARNING, "warning", {"message": SAMPLE_WARNING}),
        (logging.INFO, "answered", {"method": "keywrap", "code": "OK", "kid": kid}),
        (UNWRITTEN, "began", {"method": "keyunwrap" if door_knows else "call"}),
        (logging.INFO, "answered", {"method": "keyunwrap", "code": "OK", "kid": kid}),
    ]


@pytest.mark.parametrize(
    ("call", "method", "code", "error", "message"),
    [
        (
            Call(b""),
            "call",
            "INVALID_ARGUMENT",
            MalformedRequestError,
            "the request is not valid JSON",
        ),
        (
            Call(b"{}"),
            "call",
            "INVALID_ARGUMENT",
            MalformedRequestError,
            "'op' of the request is not keywrap or keyunwrap",
        ),
        (
            Call(b"", "keywrap", malformed="no protobuf"),
            "keywrap",
            "INVALID_ARGUMENT",
            MalformedRequestError,
            "no protobuf",
        ),
        (
            Call(ocicrypt.wrap_request("sample=1", PRIVATE_OPTIONS)),
            "keywrap",
            "FAILED_PRECONDITION",
            InputError,
            "sample is '1', not true or false",
        ),
        (
            Call(ocicrypt.unwrap_request("sample", GCM["packet"].encode())),
            "keyunwrap",
            "FAILED_PRECONDITION",
            KekError,
            "the key of kbs:///default/key/key_id1 does not open the packet",
        ),
    ],
)
def test_answer_logs_one_event_per_refusal_and_raises_it(
    events: list[Event],
    call: Call,
    method: str,
    code: str,
    error: type[CocoKpError],
    message: str,
) -> None:
    with pytest.raises(error) as caught:
        answer(Provider(), call)
    assert caught.value.message == message
    assert events[1:] == [
        (logging.INFO, "refused", {"method": method, "code": code, "message": str(caught.value)})
    ]


def test_answer_logs_kind_of_an_unforeseen_error_and_raises_it(
    events: list[Event],
) -> None:
    class Broken(Provider):
        def wrap(self, *_: object) -> NoReturn:
            raise ZeroDivisionError("the layer key")

    with pytest.raises(ZeroDivisionError):
        answer(Broken(), Call(WRAP))
    assert events[-1] == (
        logging.ERROR,
        "bug",
        {"method": "keywrap", "code": "INTERNAL", "message": "ZeroDivisionError"},
    )


def test_answer_logs_reason_that_the_caller_is_not_told(events: list[Event]) -> None:
    request = ocicrypt.wrap_request("keypath=/absent::keyid=/a/b/c", PRIVATE_OPTIONS)
    with pytest.raises(KekError) as error:
        answer(Provider(files_untold=True), Call(request))
    assert "no such file" not in str(error.value)
    assert "no such file" in str(events[-1][2]["message"])


def test_answer_reads_parameters_under_the_providers_own_name(events: list[Event]) -> None:
    answer(Provider(name="attestation-agent"), Call(WRAP))
    with pytest.raises(InputError, match="no parameters for this provider"):
        answer(Provider(name="other"), Call(WRAP))
    assert events[-1][1] == "refused"


def test_answer_logs_warning_as_separate_event(events: list[Event], tmp_path: Path) -> None:
    kek = tmp_path / "kek"
    kek.write_bytes(bytes(32))
    kek.chmod(0o644)
    parameters = f"keypath={kek}::keyid=kbs:///default/key/1"
    answer(Provider(), Call(ocicrypt.wrap_request(parameters, PRIVATE_OPTIONS)))
    warning, answered = (event for event in events if event[0] >= logging.INFO)
    assert warning[:2] == (logging.WARNING, "warning")
    assert "chmod 600" in str(warning[2]["message"])
    assert answered[:2] == (logging.INFO, "answered")


def test_malformed_request_error_differs_from_input_error() -> None:
    """gRPC has another status for it; both are bad input for a command."""
    assert MalformedRequestError.exit_code == InputError.exit_code
    assert not issubclass(MalformedRequestError, InputError)


def test_answer_stdio_wraps_and_unwraps() -> None:
    wrapped, opened = io.BytesIO(), io.BytesIO()
    answer_stdio(ANSWER, io.BytesIO(WRAP), wrapped)
    packet = ocicrypt.wrapped_packet(wrapped.getvalue())
    request = ocicrypt.unwrap_request("sample", packet)
    answer_stdio(ANSWER, io.BytesIO(request), opened)
    numbers = json.loads(opened.getvalue())["keyunwrapresults"]["optsdata"]
    assert bytes(numbers) == PRIVATE_OPTIONS


@pytest.mark.parametrize("request_", [b"", b"{}", WRAP[:-1], WRAP + WRAP, WRAP + b"x"])
def test_answer_stdio_writes_nothing_when_request_is_refused(request_: bytes) -> None:
    sink = io.BytesIO()
    with pytest.raises(CocoKpError):
        answer_stdio(ANSWER, io.BytesIO(request_), sink)
    assert sink.getvalue() == b""


class Endless(io.RawIOBase):
    """A client that never stops sending."""

    def __init__(self) -> None:
        self.given = 0

    def read(self, size: int = -1) -> bytes:
        assert size >= 0, "read to an end that never comes"
        self.given += size
        return b" " * size


def test_answer_stdio_reads_no_more_than_the_limit() -> None:
    source = Endless()
    with pytest.raises(MalformedRequestError, match="more than the 4194304 allowed"):
        answer_stdio(ANSWER, source, io.BytesIO())  # type: ignore[arg-type]
    assert source.given == MAX_MESSAGE + 1


TEAM_A = ClientIdentity("tls", "192.0.2.7", CertificateNames(dns=("team-a",)))
CLIENTS = Clients(
    {"dns:team-a": Grant(frozenset({"keywrap"}), (parse_pattern("kbs:///default/*/*"),), ())}
)


def by_team_a(request: bytes, clients: Clients | None = CLIENTS) -> bytes:
    return answer(Provider(), Call(request, client=TEAM_A), clients=clients)


@pytest.mark.parametrize("clients", [None, CLIENTS])
def test_answer_wraps_for_a_client_and_logs_its_name(
    events: list[Event], clients: Clients | None
) -> None:
    by_team_a(WRAP, clients)
    assert events[-1] == (
        logging.INFO,
        "answered",
        {
            "method": "keywrap",
            "client": "dns:team-a",
            "code": "OK",
            "kid": "kbs:///default/test-key/1",
        },
    )


@pytest.mark.parametrize("clients", [None, CLIENTS])
def test_answer_refuses_to_unwrap_for_a_client_before_it_reads_the_packet(
    events: list[Event], clients: Clients | None
) -> None:
    with pytest.raises(NotAllowedError, match="'dns:team-a' may not unwrap here"):
        by_team_a(ocicrypt.unwrap_request("sample", b"no packet"), clients)
    level, name, fields = events[-1]
    assert (level, name) == (logging.INFO, "refused")
    assert (fields["client"], fields["code"]) == ("dns:team-a", "PERMISSION_DENIED")


def test_answer_refuses_a_client_keys_that_it_may_not_name(tmp_path: Path) -> None:
    absent = f"keypath={tmp_path}/absent::keyid=/default/key/1"
    with pytest.raises(NotAllowedError, match="with the key that it names"):
        by_team_a(ocicrypt.wrap_request(absent, PRIVATE_OPTIONS))
    other = f"keypath={tmp_path}/absent::keyid=/other/key/1"
    with pytest.raises(NotAllowedError, match="for the key ID 'kbs:///other/key/1'"):
        by_team_a(ocicrypt.wrap_request(other, PRIVATE_OPTIONS))


@pytest.mark.parametrize(
    ("kid", "grant", "kbc", "refused"),
    [
        ("kbs:///team-b/key/1", "kbs:///team-b/*/*", "offline_fs", ""),
        ("kbs://kbs.example.org/team-b/key/1", "kbs://*/team-b/*/*", "offline_fs", ""),
        ("kbs+external:///team-b/key/1", "kbs+external:///team-b/key/*", "cc", ""),
        # whoever may unwrap at one address would have written it into any packet
        (
            "kbs://a.example.org/team-b/key/1",
            "kbs://a.example.org/*/*/*",
            "offline_fs",
            "kbs:///team-b/key/1",
        ),
        (
            "kbs+external:///team-b/key/1",
            "kbs+external:///*/*/*",
            "offline_fs",
            "kbs:///team-b/key/1",
        ),
        (
            "kbs://b.example.org/team-b/key/1",
            "kbs:///team-b/*/*",
            "offline_fs",
            "kbs://b.example.org/team-b/key/1",
        ),
    ],
)
def test_answer_lets_a_client_unwrap_only_with_keys_that_are_its_own_by_every_name(
    tmp_path: Path, kid: str, grant: str, kbc: str, refused: str
) -> None:
    packet = packet_of(tmp_path, kid)
    clients = Clients({"dns:team-a": Grant(frozenset({"keyunwrap"}), (parse_pattern(grant),), ())})
    provider = Provider(kbcs=kbcs_with(tmp_path / "keys.json"))
    call = Call(ocicrypt.unwrap_request(kbc, packet), client=TEAM_A)
    if refused:
        with pytest.raises(NotAllowedError, match=f"for the key ID '{re.escape(refused)}'"):
            answer(provider, call, clients=clients)
    elif kbc == "cc":
        with pytest.raises(InputError, match="needs the address of the KBS"):
            answer(provider, call, clients=clients)
    else:
        answer(provider, call, clients=clients)


def packet_of(folder: Path, kid: str) -> bytes:
    """Return a packet for this key ID, and leave its key in a keys file."""
    kek = os.urandom(32)
    key = folder / "kek"
    key.write_bytes(kek)
    key.chmod(0o600)
    keys = folder / "keys.json"
    keys.write_text(json.dumps({"team-b/key/1": encode_base64(kek)}))
    keys.chmod(0o600)
    request = ocicrypt.wrap_request(f"keypath={key}::keyid={kid}", PRIVATE_OPTIONS)
    return ocicrypt.wrapped_packet(answer(Provider(), Call(request)))


@pytest.mark.parametrize(
    ("request_", "operation"),
    [
        (ocicrypt.wrap_request("no parameters", PRIVATE_OPTIONS), None),
        (b"no request, which takes time to find out", "keywrap"),
        (b"no request, which takes time to find out", "keyunwrap"),
    ],
)
def test_answer_refuses_a_client_that_no_list_names_before_it_reads_anything(
    request_: bytes, operation: Operation | None
) -> None:
    stranger = ClientIdentity("tls", "192.0.2.7", CertificateNames(dns=("team-b",)))
    with pytest.raises(NotAllowedError, match="'dns:team-b' is not a client of this provider"):
        answer(Provider(), Call(request_, operation, stranger), clients=CLIENTS)
