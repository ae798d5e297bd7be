"""The gRPC door, over a real connection."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from coco_kp.errors import IntegrityError, RemoteError, UnreachableError
from coco_kp.keyprovider import server as grpc_server
from coco_kp.keyprovider.address import TcpAddress, UnixAddress
from coco_kp.keyprovider.call import SERVICE, Call
from coco_kp.keyprovider.channel import bind
from coco_kp.keyprovider.server import new_server
from coco_kp.keyprovider.service import key_provider
from coco_kp.keyprovider.waiting import MOST
from coco_kp.model.encoding import MAX_MESSAGE
from coco_kp.model.protocol import parse_request
from coco_kp.provider import Provider
from coco_kp.service import calls
from tests.support import ocicrypt
from tests.support.grpc_server import serving as serving_at
from tests.support.http2 import calls_that_take_no_answer
from tests.support.ocicrypt import UNWRAP_KEY, WRAP_KEY
from tests.support.patience import PATIENCE, wait_until
from tests.vectors import load_vectors

GCM = next(vector for vector in load_vectors("packets")["good"] if vector["name"] == "gcm")
PRIVATE_OPTIONS = GCM["optsdata"].encode()
PACKET = GCM["packet"].encode()

LARGE = ocicrypt.wrap_request("sample=true", PRIVATE_OPTIONS) + b" " * 20_000
"""What is more than any client of ours sends."""

Serve = Callable[[Provider], AbstractContextManager[grpc.Channel]]


@pytest.fixture
def serve() -> Serve:
    """Yield a client's channel to a server with the given provider."""

    @contextmanager
    def serving(provider: Provider) -> Iterator[grpc.Channel]:
        service = key_provider(partial(calls.answer, provider))
        with serving_at(service) as address, ocicrypt.connection(address) as channel:
            yield channel

    return serving


def wrap_request(*parameters: str) -> bytes:
    return with_parameters(
        ocicrypt.wrap_request("", PRIVATE_OPTIONS), "keywrapparams", "ec", parameters
    )


def unwrap_request(packet: bytes, *kbcs: str) -> bytes:
    return with_parameters(ocicrypt.unwrap_request("", packet), "keyunwrapparams", "dc", kbcs)


def with_parameters(request: bytes, call: str, config: str, elements: tuple[str, ...]) -> bytes:
    """Put these parameters in the place of the request's own."""
    document = json.loads(request)
    encoded = [b64encode(element.encode()).decode() for element in elements]
    document[call][config]["Parameters"] = {"attestation-agent": encoded}
    return json.dumps(document).encode()


def refusal(channel: grpc.Channel, method: str, request: bytes) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as error:
        ocicrypt.send(channel, method, request)
    return error.value.code(), error.value.details() or ""


def health_of(channel: grpc.Channel, service: str) -> int:
    request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    check = channel.unary_unary("/grpc.health.v1.Health/Check", bytes, bytes)
    answer = check(request, timeout=ocicrypt.TIMEOUT)
    return int(health_pb2.HealthCheckResponse.FromString(answer).status)


def test_grpc_server_wraps_and_unwraps(serve: Serve) -> None:
    with serve(Provider()) as channel:
        packet = ocicrypt.wrap(channel, "sample=true", PRIVATE_OPTIONS)
        assert ocicrypt.unwrap(channel, "sample_kbc::null", packet) == PRIVATE_OPTIONS


@pytest.mark.parametrize("message", [b"\xff\xff\xff", b"\x0a\x7fshort", b"\x08"])
def test_grpc_server_answers_invalid_protobuf_with_invalid_argument(
    serve: Serve, message: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(Provider()) as channel, pytest.raises(grpc.RpcError) as error:
        channel.unary_unary(WRAP_KEY, bytes, bytes)(message, timeout=ocicrypt.TIMEOUT)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.value.details() == "the request is not a protobuf message"
    assert not [record for record in caplog.records if record.exc_info]  # no traceback


@pytest.mark.parametrize(
    ("method", "request_", "code", "text"),
    [
        (WRAP_KEY, b"{", "INVALID_ARGUMENT", "the request is not valid JSON"),
        (WRAP_KEY, b'{"op":"keyunwrap"}', "INVALID_ARGUMENT", "'op' of the request is keyunwrap"),
        (
            UNWRAP_KEY,
            wrap_request("sample=true"),
            "INVALID_ARGUMENT",
            "'op' of the request is keywrap",
        ),
        (WRAP_KEY, wrap_request(), "FAILED_PRECONDITION", "the request has no parameters"),
        (WRAP_KEY, wrap_request("sample=True"), "FAILED_PRECONDITION", "sample is 'True'"),
        (WRAP_KEY, wrap_request("a=b", "c=d"), "FAILED_PRECONDITION", "names 2 recipients"),
        (
            WRAP_KEY,
            wrap_request("keypath=/absent/kek::keyid=/a/b/c"),
            "PERMISSION_DENIED",
            "'/absent/kek' is outside the directory",
        ),
        (
            WRAP_KEY,
            wrap_request("keypath=absent::keyid=/a/b/c"),
            "FAILED_PRECONDITION",
            "absent': no such file",
        ),
        (UNWRAP_KEY, unwrap_request(b"x", "sample"), "FAILED_PRECONDITION", "not valid JSON"),
        (
            UNWRAP_KEY,
            unwrap_request(PACKET, "sample"),
            "FAILED_PRECONDITION",
            "the key of kbs:///default/key/key_id1 does not open the packet",
        ),
    ],
)
def test_grpc_server_maps_each_refusal_to_a_status(
    serve: Serve, tmp_path: Path, method: str, request_: bytes, code: str, text: str
) -> None:
    with serve(Provider(key_dir=tmp_path)) as channel:
        status, details = refusal(channel, method, request_)
        assert status is grpc.StatusCode[code]
        assert text in details
        ocicrypt.wrap(channel, "sample=true", PRIVATE_OPTIONS)  # the server lives


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UnreachableError("no answer", "wait"), "UNAVAILABLE", "no answer (hint: wait)"),
        (IntegrityError("altered"), "FAILED_PRECONDITION", "altered"),
        (ValueError("symkey AAEC"), "INTERNAL", "unexpected error in coco-kp: ValueError"),
    ],
)
def test_grpc_server_maps_each_exception_to_a_status(
    error: Exception, code: str, text: str
) -> None:
    def fail(_call: Call) -> bytes:
        raise error

    with serving_at(key_provider(fail)) as address, ocicrypt.connection(address) as channel:
        assert refusal(channel, WRAP_KEY, b"{}") == (grpc.StatusCode[code], text)


def test_grpc_server_limits_length_of_status_text(serve: Serve) -> None:
    """Clients refuse headers of more than 8 KiB, and would show that instead of the text."""
    kbcs = [f"sample::{'😀' * 200}" for _ in range(8)]
    with serve(Provider()) as channel:
        status, details = refusal(channel, UNWRAP_KEY, unwrap_request(PACKET, *kbcs))
    assert status is grpc.StatusCode.FAILED_PRECONDITION
    assert details.startswith("no KBC opened the packet: 'sample_kbc::😀😀")
    assert 1990 < len(details.encode()) <= 2000


def test_grpc_server_refuses_message_of_more_than_4_mib(serve: Serve) -> None:
    overhead = len(ocicrypt.encode_message(bytes(2**21))) - 2**21
    largest = b" " * (MAX_MESSAGE - overhead)
    with serve(Provider()) as channel:
        assert refusal(channel, WRAP_KEY, largest)[0] is grpc.StatusCode.INVALID_ARGUMENT
        too_large = refusal(channel, WRAP_KEY, largest + b" ")
    assert too_large[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("service", ["", "keyprovider.KeyProviderService"])
def test_grpc_server_health_check_reports_serving(serve: Serve, service: str) -> None:
    with serve(Provider()) as channel:
        assert health_of(channel, service) == health_pb2.HealthCheckResponse.SERVING


def test_grpc_server_answers_unknown_method_with_unimplemented(serve: Serve) -> None:
    with serve(Provider()) as channel:
        for method in ("/keyprovider.KeyProviderService/UnwrapKey", "/keyprovider.Other/WrapKey"):
            assert refusal(channel, method, b"{}")[0] is grpc.StatusCode.UNIMPLEMENTED


def test_grpc_server_cuts_off_call_that_never_ends(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_server, "_LONGEST_CONNECTION", 0.2)
    monkeypatch.setattr(grpc_server, "_LONGEST_CALL", 0.2)
    never = threading.Event()
    with serve(Provider()) as channel:
        stalled = ocicrypt.begin_wrap(channel, "sample=true", PRIVATE_OPTIONS, never)
        try:
            assert stalled.exception(ocicrypt.TIMEOUT / 2) is not None
        finally:
            never.set()
        assert stalled.code() is grpc.StatusCode.UNAVAILABLE
        ocicrypt.wrap(channel, "sample=true", PRIVATE_OPTIONS)


def test_grpc_server_parses_one_large_request_at_a_time(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, most = [0], [0]

    def counted(*arguments: Any) -> Any:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.01)
        try:
            return parse_request(*arguments)
        finally:
            inside[0] -= 1

    monkeypatch.setattr(calls, "parse_request", counted)
    with serve(Provider()) as channel, ThreadPoolExecutor(8) as clients:
        requests = [LARGE] * 16
        answers = list(clients.map(partial(ocicrypt.send, channel, WRAP_KEY), requests))
    assert len(set(answers)) == 16
    assert most == [1]


def test_grpc_server_answers_while_a_large_request_is_parsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A request of 4 MiB takes a second: one client's kept all others waiting, past every
    deadline."""
    reading, go_on = threading.Event(), threading.Event()

    def slow(request: bytes, *arguments: Any) -> Any:
        if request == LARGE:
            reading.set()
            assert go_on.wait(PATIENCE)
        return parse_request(request, *arguments)

    monkeypatch.setattr(calls, "parse_request", slow)
    service = key_provider(partial(calls.answer, Provider(), longest=0.5))
    with (
        serving_at(service) as address,
        ocicrypt.connection(address) as channel,
        ThreadPoolExecutor(1) as clients,
    ):
        first = clients.submit(ocicrypt.send, channel, WRAP_KEY, LARGE)
        try:
            assert reading.wait(PATIENCE)
            ocicrypt.wrap(channel, "sample=true", PRIVATE_OPTIONS)
            status, text = refusal(channel, WRAP_KEY, LARGE)
        finally:
            go_on.set()
        assert first.result(PATIENCE)
    assert status is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "other large requests are still being read" in text


def test_grpc_server_unix_socket_is_accessible_to_owner_only(tmp_path: Path) -> None:
    mode_before = file_mode(tmp_path / "before")
    with ThreadPoolExecutor(1) as pool:
        server = new_server(key_provider(partial(calls.answer, Provider())), pool)
        path = tmp_path / "kp.sock"
        assert bind(server, UnixAddress(path)).address == f"unix://{path}"
        assert path.stat().st_mode & 0o777 == 0o600
        assert file_mode(tmp_path / "after") == mode_before  # the umask is as it was
        server.stop(None).wait()


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_grpc_server_unix_socket_has_the_mode_it_was_given(tmp_path: Path, mode: int) -> None:
    with ThreadPoolExecutor(1) as pool:
        server = new_server(key_provider(partial(calls.answer, Provider())), pool)
        path = tmp_path / "kp.sock"
        bind(server, UnixAddress(path, mode))
        assert path.stat().st_mode & 0o777 == mode
        server.stop(None).wait()


def test_grpc_server_unix_socket_has_its_group_before_others_may_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[str, int]] = []
    path = tmp_path / "kp.sock"

    def chown(path: Path, user: int, group: int, *, follow_symlinks: bool) -> None:
        assert (user, follow_symlinks) == (-1, False)
        assert path.stat().st_mode & 0o777 == 0o600
        steps.append(("group", group))

    def chmod(_path: Path, mode: int) -> None:
        steps.append(("mode", mode))

    monkeypatch.setattr(os, "chown", chown)
    monkeypatch.setattr(Path, "chmod", chmod)
    with ThreadPoolExecutor(1) as pool:
        server = new_server(key_provider(partial(calls.answer, Provider())), pool)
        bind(server, UnixAddress(path, 0o660, 4711))
        server.stop(None).wait()
    assert steps == [("group", 4711), ("mode", 0o660)]


def test_unix_address_admit_reports_what_the_system_refuses(tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match="cannot give unix://.*: no such file"):
        UnixAddress(tmp_path / "kp.sock", 0o660, os.getegid()).admit(tmp_path / "unnamed")


def file_mode(new: Path) -> int:
    new.touch()
    return new.stat().st_mode


def test_grpc_server_bound_to_port_0_reports_actual_port() -> None:
    with ThreadPoolExecutor(1) as pool:
        server = new_server(key_provider(partial(calls.answer, Provider())), pool)
        address = bind(server, TcpAddress(ip_address("127.0.0.1"), 0)).address
        assert address.startswith("127.0.0.1:")
        assert not address.endswith(":0")
        server.stop(None).wait()


def serving_script(tmp_path: Path, body: str = "") -> Path:
    """Write a program that serves, with this at module level before it does."""
    script = tmp_path / "serving.py"
    script.write_text(f"""
import os, signal, sys, threading, time
from functools import partial
from coco_kp.keyprovider import server
from coco_kp.keyprovider.address import parse_address
from coco_kp.keyprovider.call import SERVICE
from coco_kp.keyprovider.service import key_provider
from coco_kp.observe import configure
from coco_kp.provider import Provider
from coco_kp.service.calls import answer

handler = partial(answer, Provider())
{body}
configure("text", 10)
ready = partial(print, flush=True)
server.serve(key_provider(handler), parse_address(sys.argv[1]), server.Moments(ready))
""")
    return script


@contextmanager
def serving_process(
    script: Path, address: str = "127.0.0.1:0", stderr: int = subprocess.DEVNULL
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = ["setpriv", "--pdeathsig", "KILL", sys.executable, str(script), address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process:
        try:
            assert process.stdout
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


HUNG = """
hung = threading.Event()
def handler(call):
    if call.operation == "keyunwrap":
        while True:  # nothing wakes it
            time.sleep(1)
    return answer(Provider(), call)
server._GRACE = 0.5
"""


def test_server_with_hung_calls_ends_after_grace(tmp_path: Path) -> None:
    with (
        serving_process(serving_script(tmp_path, HUNG)) as (process, address),
        ocicrypt.connection(address) as channel,
    ):
        unwrap = channel.unary_unary(UNWRAP_KEY, ocicrypt.encode_message, bytes)
        calls = [unwrap.future(unwrap_request(PACKET, "sample")) for _ in range(8)]
        ocicrypt.wrap(channel, "sample=true", PRIVATE_OPTIONS)
        process.terminate()
        assert process.wait(PATIENCE) == 0
        assert {call.code() for call in calls} <= {
            grpc.StatusCode.CANCELLED,
            grpc.StatusCode.UNAVAILABLE,
        }


def test_process_that_hangs_at_the_end_is_ended_by_the_system(tmp_path: Path) -> None:
    body = HUNG + "server._LAST = 0.5\nserver._end = lambda *_: time.sleep(1000)\n"
    with serving_process(serving_script(tmp_path, body)) as (process, _):
        process.terminate()
        assert process.wait(PATIENCE) == -signal.SIGALRM


def test_server_answers_and_ends_when_nobody_reads_its_log(tmp_path: Path) -> None:
    """All calls stood still once the pipe was full, and so did the end."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with (
        serving_process(serving_script(tmp_path), stderr=writing) as (process, address),
        ocicrypt.connection(address) as channel,
    ):
        for _ in range(200):
            ocicrypt.wrap(channel, "sample=true", PRIVATE_OPTIONS)
        process.terminate()
        assert process.wait(PATIENCE) == 0
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "unix"])
def test_server_that_is_told_to_end_cuts_off_no_call(tmp_path: Path, address: str) -> None:
    """Of 7,061 calls 51 were CANCELLED: they had arrived, and gRPC had not yet handed them over."""
    address = f"unix://{tmp_path}/kp.sock" if address == "unix" else address
    codes: list[str] = []
    request = ocicrypt.encode_message(wrap_request("sample=true"))

    def call_until_it_ends(bound: str) -> None:
        with ocicrypt.connection(bound) as channel:
            wrap = channel.unary_unary(WRAP_KEY, bytes, bytes)
            while True:
                try:
                    wrap(request, timeout=ocicrypt.TIMEOUT)
                    codes.append("OK")
                except grpc.RpcError as error:
                    codes.append(f"{error.code().name}: {error.details()}")
                    return

    with serving_process(serving_script(tmp_path)) as (process, bound):
        clients = [threading.Thread(target=call_until_it_ends, args=(bound,)) for _ in range(64)]
        for client in clients:
            client.start()
        wait_until(lambda: len(codes) > 1000)
        process.terminate()
        for client in clients:
            client.join()
    ends = [code for code in codes if code != "OK"]
    assert len(ends) == 64
    assert all(code.startswith("UNAVAILABLE: failed to connect") for code in ends), set(ends)


@pytest.mark.parametrize("method", ["Watch", "Check"])
def test_server_answers_and_ends_while_a_client_takes_no_answer(
    tmp_path: Path, method: str
) -> None:
    """Nor is a lock held for him, which all who ask for the health would wait for."""
    ready = f"{SERVICE}/ready"
    request = health_pb2.HealthCheckRequest(service=ready).SerializeToString()
    path = f"/grpc.health.v1.Health/{method}"
    with (
        serving_process(serving_script(tmp_path)) as (process, address),
        calls_that_take_no_answer(address, path, request, request),
        ocicrypt.connection(address) as channel,
    ):
        wait_until(lambda: health_of(channel, ready) == health_pb2.HealthCheckResponse.SERVING)
        process.terminate()
        assert process.wait(PATIENCE / 4) == 0


CHECK = "/grpc.health.v1.Health/Check"


@pytest.mark.parametrize("method", [WRAP_KEY, CHECK])
@pytest.mark.parametrize(("connections", "calls"), [(1, 620), (11, 100)])
def test_server_answers_others_while_a_client_sends_no_requests(
    tmp_path: Path, method: str, connections: int, calls: int
) -> None:
    """620 calls that were begun kept health checks out, for up to 180 s."""
    with (
        serving_process(serving_script(tmp_path)) as (process, address),
        ocicrypt.half_open_calls(address, method, connections, calls) as begun,
        ocicrypt.connection(address) as channel,
    ):
        if connections > 1:  # those without a place wait at the client
            wait_until(lambda: sum(call.done() for call in begun) >= len(begun) - MOST)
        assert health_of(channel, SERVICE) == health_pb2.HealthCheckResponse.SERVING
        ocicrypt.wrap(channel, "sample=true", PRIVATE_OPTIONS)
        assert threads_of(process) < 600
        process.terminate()
        assert process.wait(PATIENCE) == 0


def threads_of(process: subprocess.Popen[str]) -> int:
    return len(list(Path(f"/proc/{process.pid}/task").iterdir()))


def test_connection_has_no_more_than_its_calls_at_work(tmp_path: Path) -> None:
    """One client's calls that hung took every place, and others of the machine found none."""
    body = HUNG + "server._MOST_AT_WORK = 150\n"
    with (
        serving_process(serving_script(tmp_path, body)) as (_, address),
        ocicrypt.connection(address) as greedy,
        ocicrypt.connection(address) as other,
    ):
        unwrap = greedy.unary_unary(UNWRAP_KEY, ocicrypt.encode_message, bytes)
        calls = [unwrap.future(unwrap_request(PACKET, "sample")) for _ in range(300)]
        ocicrypt.wrap(other, "sample=true", PRIVATE_OPTIONS)
        assert not any(call.done() for call in calls)


def test_connection_with_all_its_calls_at_work_is_refused_none(tmp_path: Path) -> None:
    """gRPC refused every tenth: it counted calls that had ended."""
    with (
        serving_process(serving_script(tmp_path)) as (_, address),
        ocicrypt.connection(address) as channel,
    ):
        wrap = channel.unary_unary(WRAP_KEY, ocicrypt.encode_message, bytes)
        for _ in range(10):
            calls = [wrap.future(wrap_request("sample=true")) for _ in range(150)]
            assert {call.exception(PATIENCE) for call in calls} == {None}


def test_server_refuses_calls_beyond_its_places_but_no_health_check(tmp_path: Path) -> None:
    body = HUNG + "server._MOST_AT_WORK = 4\n"
    with (
        serving_process(serving_script(tmp_path, body)) as (_, address),
        ocicrypt.connection(address) as channel,
    ):
        unwrap = channel.unary_unary(UNWRAP_KEY, ocicrypt.encode_message, bytes)
        calls = [unwrap.future(unwrap_request(PACKET, "sample")) for _ in range(5)]
        wait_until(lambda: any(call.done() for call in calls))
        (refused,) = (call for call in calls if call.done())
        assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "4 calls are at work here" in refused.details()
        assert health_of(channel, SERVICE) == health_pb2.HealthCheckResponse.SERVING


def test_server_ends_a_call_whose_request_does_not_come(tmp_path: Path) -> None:
    body = "server.Waiting = partial(server.Waiting, longest=0.1)\n"
    with (
        serving_process(serving_script(tmp_path, body)) as (_, address),
        ocicrypt.half_open_calls(address, WRAP_KEY, 1, 1) as (call,),
    ):
        assert call.exception(PATIENCE)
        assert call.code() is grpc.StatusCode.CANCELLED


FEW_FILES = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
server._LONGEST_HANDSHAKE = 0.5
"""


def test_connections_that_say_nothing_take_the_servers_files_for_a_moment_only(
    tmp_path: Path,
) -> None:
    """Each of them was kept for two minutes, in which nobody else was answered."""
    with serving_process(serving_script(tmp_path, FEW_FILES)) as (_, address), ExitStack() as idle:
        host, _, port = address.rpartition(":")
        for _ in range(80):
            idle.enter_context(socket.create_connection((host, int(port)), PATIENCE))
        with ocicrypt.connection(address) as channel:
            ocicrypt.wrap(channel, "sample=true", PRIVATE_OPTIONS)


NO_THREAD = """
start, failed = threading.Thread.start, []
def start_but_once(thread):
    if thread.name == "call" and not failed:
        failed.append(thread)
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = start_but_once
"""


def test_server_that_had_no_thread_for_a_call_answers_it_and_later_ones(tmp_path: Path) -> None:
    """It never answered again, and lived: no watchdog saw it."""
    with (
        serving_process(serving_script(tmp_path, NO_THREAD)) as (_, address),
        ocicrypt.connection(address) as channel,
    ):
        now = threading.Event()
        now.set()
        waiting = ocicrypt.begin_wrap(channel, "sample=true", PRIVATE_OPTIONS, now)
        ocicrypt.wrap(channel, "sample=true", PRIVATE_OPTIONS)
        assert waiting.result(ocicrypt.TIMEOUT)


def test_grpc_server_offers_no_watch_of_its_health(serve: Serve) -> None:
    with serve(Provider()) as channel:
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch", bytes, bytes)
        with pytest.raises(grpc.RpcError) as error:
            next(watch(b"", timeout=ocicrypt.TIMEOUT))
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("message", "code"), [(b"\xff", "INVALID_ARGUMENT"), (b"\x0a\x03foo", "NOT_FOUND")]
)
def test_grpc_server_refuses_strange_health_checks_without_a_word(
    serve: Serve, message: bytes, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A traceback of grpcio's would be written by the call, whoever reads stderr or not."""
    with serve(Provider()) as channel:
        status, _ = refusal(channel, "/grpc.health.v1.Health/Check", message)
        assert status is grpc.StatusCode[code]
    assert not caplog.records


def test_unix_socket_of_ending_server_can_be_taken_before_its_calls_end(tmp_path: Path) -> None:
    script, address = serving_script(tmp_path), f"unix://{tmp_path}/kp.sock"
    with (
        serving_process(script, address) as (old, _),
        ocicrypt.connection(address) as channel,
    ):
        go_on = threading.Event()
        running = ocicrypt.begin_wrap(channel, "sample=true", PRIVATE_OPTIONS, go_on)
        ocicrypt.wrap(channel, "sample=true", PRIVATE_OPTIONS)
        old.terminate()
        wait_until(lambda: not (tmp_path / "kp.sock").exists())
        with serving_process(script, address):
            go_on.set()
            assert old.wait(PATIENCE) == 0
            assert ocicrypt.wrapped_packet(running.result())
            with ocicrypt.connection(address) as other:
                assert ocicrypt.wrap(other, "sample=true", PRIVATE_OPTIONS)


def test_server_ends_on_a_signal_that_another_thread_took() -> None:
    """The main thread is not woken: a server under load was asked to end, and never did."""
    script = """
import signal, threading
from coco_kp.keyprovider.address import parse_address
from coco_kp.keyprovider.server import Moments, serve
from coco_kp.keyprovider.call import SERVICE
from coco_kp.keyprovider.service import key_provider

def take_signal():
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

def ready(_address):
    threading.Timer(0.2, take_signal).start()

serve(key_provider(lambda call: b""), parse_address("127.0.0.1:0"), Moments(ready))
"""
    done = subprocess.run([sys.executable, "-c", script], timeout=PATIENCE, check=False)
    assert done.returncode == 0
