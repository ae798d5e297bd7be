"""Messages that are made to hang a reader or to eat its memory, sent to a real server."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import grpc
import pytest

from coco_kp.model.encoding import MAX_MESSAGE
from tests.peers.daemon import Daemon
from tests.property.strategies import PACKETS, PRIVATE_OPTIONS
from tests.support import ocicrypt
from tests.support.patience import PATIENCE
from tests.support.provider import served_address, serving

MIB = 1024 * 1024
ROOM = MAX_MESSAGE - 100  # for the message around


def filled(start: bytes, element: bytes, end: bytes) -> bytes:
    """Repeat an element as often as a message can hold it."""
    return start + element * ((ROOM - len(start) - len(end)) // len(element)) + end


MEMBERS = b"{" + b",".join(b'"%d":0' % number for number in range(300_000)) + b"}"
PARAMETERS = b'{"op":"keywrap","keywrapparams":{"ec":{"Parameters":{"mine":['

HOSTILE = {
    "blanks": filled(b"", b" ", b""),
    "open arrays": filled(b'{"a":', b"[", b""),
    "open objects": filled(b"", b'{"a":', b""),
    "closed arrays": b'{"a":' + b"[" * (ROOM // 2 - 10) + b"]" * (ROOM // 2 - 10) + b"}",
    "empty objects": filled(b'{"a":[', b"{},", b"{}]}"),
    "objects": filled(b'{"a":[', b'{"a":1},', b"{}]}"),
    "numbers": filled(b'{"a":[', b"300,", b"0]}"),
    "floats": filled(b'{"a":[', b"1e1,", b"0]}"),
    "strings": filled(b'{"a":[', b'"ab",', b"0]}"),
    "one number": filled(b'{"a":', b"1", b"}"),
    "one string": filled(b'{"a":"', b"x", b'"}'),
    "one string of escapes": filled(b'{"a":"', b"\\ud83d\\ude00", b'"}'),
    "half surrogate pairs": filled(b'{"a":"', b"\\ud83d", b'"}'),
    "many members": MEMBERS,
    "the last member twice": MEMBERS[:-1] + b',"299999":1}',
    "bytes that are no UTF-8": filled(b'{"a":"', b"\xff", b'"}'),
    "many providers": PARAMETERS[:-9] + MEMBERS[1:] + b"}}}",
    "many parameters": filled(PARAMETERS, b'"QQ==",', b'"QQ=="]}}}}'),
    "many parameters of nothing": filled(PARAMETERS, b'"",', b'""]}}}}'),
    "a parameter as long": filled(PARAMETERS + b'"', b"QUFB", b'"]}}}}'),
    "a parameter of bytes": filled(PARAMETERS + b"[", b"255,", b"0]]}}}}"),
    "a long key ID": ocicrypt.wrap_request(
        "keypath=/k::keyid=" + "/a" * 1_000_000, PRIVATE_OPTIONS
    ),
    "many fields": ocicrypt.wrap_request("::".join(["a=b"] * 500_000), PRIVATE_OPTIONS),
    "many colons": ocicrypt.wrap_request(":" * 3_000_000, PRIVATE_OPTIONS),
    "a long path": ocicrypt.wrap_request(
        "keyid=/a/b/c::keypath=" + "/k" * 1_000_000, PRIVATE_OPTIONS
    ),
    "large private options": ocicrypt.wrap_request("sample=true", bytes(3_000_000)),
    "a large packet": ocicrypt.unwrap_request("sample", PACKETS[0] + b" " * 3_000_000),
    "a large KBC": ocicrypt.unwrap_request("sample::" + "x" * 3_000_000, PACKETS[0]),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One server for all of them: what one does to it the next would notice."""
    with serving(tmp_path_factory.mktemp("hostile"), "-vv") as running:
        yield running


@pytest.fixture(scope="module")
def address(server: Daemon) -> str:
    return served_address(server)


def refused(address: str, request: bytes) -> float:
    """Send a request that must be refused; return the seconds that it took."""
    with ocicrypt.connection(address) as channel:
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as error:
            ocicrypt.send(channel, ocicrypt.WRAP_KEY, request)
        seconds = time.monotonic() - began
    expected = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION}
    assert error.value.code() in expected, error.value.details()
    return seconds


def memory(server: Daemon, which: str) -> int:
    """Return a size of the server's memory in bytes; see proc(5), /proc/pid/status."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(rf"^{which}:\s+(\d+) kB$", status, re.MULTILINE)
    assert found
    return int(found[1]) * 1024


@pytest.mark.parametrize("name", HOSTILE)
def test_server_refuses_hostile_message_quickly(address: str, name: str) -> None:
    assert refused(address, HOSTILE[name]) < PATIENCE


def test_server_memory_stays_bounded_under_concurrent_hostile_messages(
    server: Daemon, address: str
) -> None:
    """Sixteen clients at a time: 64 MiB of messages, each of which is copied a few times."""
    for _ in range(2):
        with ThreadPoolExecutor(16) as clients:
            assert max(clients.map(partial(refused, address), HOSTILE.values())) < PATIENCE
    assert memory(server, "VmHWM") < 600 * MIB
    assert memory(server, "VmRSS") < 250 * MIB


def test_server_log_of_hostile_messages_has_no_bug_and_no_flood(
    server: Daemon, address: str
) -> None:
    refused(address, HOSTILE["a large KBC"])
    server.wait_until(lambda: " info refused " in server.output(), "log the refusal")
    log = server.output()
    assert " bug " not in log
    assert "Traceback" not in log
    assert max(map(len, log.splitlines())) < 2000


def test_server_still_serves_after_hostile_messages(address: str) -> None:
    with ocicrypt.connection(address) as channel:
        packet = ocicrypt.wrap(channel, "sample=true", PRIVATE_OPTIONS)
        assert ocicrypt.unwrap(channel, "sample", packet) == PRIVATE_OPTIONS
