"""``eaa``: Verdictd opens the packet, and nobody knows that it is Verdictd."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from coco_kp.errors import (
    CocoKpError,
    InputError,
    KekError,
    RefusedError,
    RemoteError,
    UnreachableError,
)
from coco_kp.kbc.eaa import EaaKbc, eaa_kbc
from coco_kp.kbc.kbcs import Kbc
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.host_port import HostPort
from tests.sim.verdictd import SimulatedVerdictd, simulated_verdictd
from tests.support.patience import ends
from tests.support.wrapping import PATH, SECRET, Wrapping

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def sim(wrapping: Wrapping) -> Iterator[SimulatedVerdictd]:
    with simulated_verdictd() as running:
        running.keys[PATH] = wrapping.raw
        yield running


@pytest.fixture
def kbc(sim: SimulatedVerdictd) -> Kbc:
    return eaa_kbc(f"{sim.address}")


def test_eaa_opens_packet_through_verdictd(kbc: Kbc, wrapping: Wrapping) -> None:
    assert kbc.unwrap(wrapping.packet()) == SECRET


def test_eaa_refuses_ctr_packet_without_sending_anything(
    sim: SimulatedVerdictd, kbc: Kbc, wrapping: Wrapping
) -> None:
    with pytest.raises(KekError, match="A256CTR cannot be opened through eaa"):
        kbc.unwrap(wrapping.packet(Algorithm.A256CTR))
    assert not sim.requests


@pytest.mark.parametrize(
    ("changed", "kind", "words"),
    [
        ({"keys": {}}, KekError, "key not found"),
        ({"keys": {PATH: bytes(32)}}, KekError, "decryption failed"),
        ({"answer": b""}, RemoteError, "closed the connection without an answer"),
        ({"answer": b"no json"}, RemoteError, "is not valid JSON"),
        ({"answer": b"{" * 1000}, RemoteError, "is not valid JSON"),
        ({"answer": b'{"status":"OK"}'}, RemoteError, "something else than it was asked"),
    ],
)
def test_eaa_refuses_what_verdictd_answers(
    sim: SimulatedVerdictd,
    kbc: Kbc,
    wrapping: Wrapping,
    changed: dict[str, object],
    kind: type[CocoKpError],
    words: str,
) -> None:
    for name, value in changed.items():
        setattr(sim, name, value)
    with pytest.raises(kind, match=words):
        kbc.unwrap(wrapping.packet())


def test_eaa_gives_up_when_verdictd_does_not_answer_by_deadline(
    sim: SimulatedVerdictd, wrapping: Wrapping
) -> None:
    sim.silent = True
    kbc = EaaKbc(HostPort.parse(sim.address, "Verdictd"), deadline=0.3)
    with ends(), pytest.raises(UnreachableError, match="did not answer in time"):
        kbc.unwrap(wrapping.packet())


def test_eaa_gives_up_when_tls_handshake_trickles_past_deadline(
    wrapping: Wrapping,
) -> None:
    stop = threading.Event()

    def trickle(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"\x16\x03\x03\x40\x00")
            while not stop.wait(0.1):
                connection.sendall(b"\x00")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=trickle, args=(server,))
        thread.start()
        kbc = EaaKbc(HostPort(*server.getsockname()), deadline=0.5)
        try:
            with ends(after=0.4), pytest.raises(UnreachableError):
                kbc.unwrap(wrapping.packet())
        finally:
            stop.set()
            thread.join()


def test_eaa_reports_peer_that_does_not_speak_tls(wrapping: Wrapping) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        kbc = eaa_kbc(f"127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(RemoteError, match="no TLS with Verdictd at 127"):
            kbc.unwrap(wrapping.packet())
        thread.join()


def test_eaa_reports_refused_connection(wrapping: Wrapping) -> None:
    kbc = eaa_kbc("127.0.0.1:1")
    with pytest.raises(UnreachableError, match="be reached: connection refused") as refused:
        kbc.unwrap(wrapping.packet())
    assert refused.value.hint == "check host and port, and whether Verdictd runs"


def test_eaa_reports_unresolvable_host_name(wrapping: Wrapping) -> None:
    kbc = eaa_kbc("verdictd.invalid:1", allow_unverified=True)
    with pytest.raises(UnreachableError, match="cannot be reached"):
        kbc.unwrap(wrapping.packet())


@pytest.mark.parametrize("address", ["192.0.2.1:1", "verdictd.example:1", "[2001:db8::1]:1"])
def test_eaa_refuses_address_beyond_loopback_unless_allowed(address: str) -> None:
    with pytest.raises(RefusedError, match="nothing proves that it is Verdictd") as refused:
        eaa_kbc(address)
    assert refused.value.code == "verdictd-unproven"
    eaa_kbc(address, allow_unverified=True)


def test_eaa_requires_verdictd_address() -> None:
    with pytest.raises(InputError, match="needs the address of Verdictd"):
        eaa_kbc("")
