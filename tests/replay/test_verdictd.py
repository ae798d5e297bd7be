"""A recorded Verdictd, in place of ours and of our client's."""

from __future__ import annotations

import json
import socket
import ssl
from base64 import b64decode
from typing import TYPE_CHECKING, Final

import pytest

from coco_kp.errors import KekError, RemoteError
from coco_kp.kbc.eaa import eaa_kbc
from coco_kp.model.packet import parse_packet
from coco_kp.model.verdictd import decrypt_request, parse_decrypted
from tests.replay.recording import recording
from tests.sim.verdictd import MAX_RECORD, SimulatedVerdictd, simulated_verdictd

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORDED: Final = recording("verdictd")
EXCHANGES: Final = {exchange["name"]: exchange for exchange in RECORDED["exchanges"]}
PACKETS: Final = [parse_packet(packet["packet"].encode()) for packet in RECORDED["packets"]]
WRAPPED: Final = json.loads(RECORDED["packets"][0]["packet"])["wrapped_data"]
TIMEOUT: Final = 30


@pytest.fixture
def sim() -> Iterator[SimulatedVerdictd]:
    with simulated_verdictd() as running:
        for kid, key in RECORDED["keks"].items():
            newline = b"\n" if kid == RECORDED["key_file_with_newline"] else b""
            running.keys[kid] = b64decode(key) + newline
        yield running


def test_eaa_given_the_recorded_packet_asks_as_recorded() -> None:
    expected = RECORDED["exchanges"][0]["request"]["text"]
    assert decrypt_request(PACKETS[0]) == expected.encode()


def test_eaa_given_a_recorded_answer_to_two_questions_reads_both() -> None:
    answer = EXCHANGES["two blobs"]["answer"]["text"].encode()
    for packet, recorded in zip(PACKETS, RECORDED["packets"], strict=True):
        assert parse_decrypted(answer, packet).decode() == recorded["private_options"]


@pytest.mark.parametrize("name", EXCHANGES)
def test_eaa_given_any_recorded_answer_opens_the_packet_or_says_why_not(
    name: str, sim: SimulatedVerdictd
) -> None:
    text = EXCHANGES[name]["answer"].get("text", "")
    sim.answer = text.encode()
    kbc = eaa_kbc(str(sim.address))
    answer = json.loads(text or "{}")
    if not text:
        with pytest.raises(RemoteError, match="closed the connection without an answer"):
            kbc.unwrap(PACKETS[0])
    elif answer["status"] == "Fail":
        with pytest.raises(KekError) as refused:
            kbc.unwrap(PACKETS[0])
        assert answer["error"] in refused.value.message
    elif WRAPPED in answer.get("data", {}):
        assert kbc.unwrap(PACKETS[0]).decode() == RECORDED["packets"][0]["private_options"]
    else:
        with pytest.raises(RemoteError, match="something else than it was asked"):
            kbc.unwrap(PACKETS[0])


@pytest.mark.parametrize("name", EXCHANGES)
def test_simulated_verdictd_given_a_recorded_request_answers_as_the_real_one(
    name: str, sim: SimulatedVerdictd
) -> None:
    request, answer = EXCHANGES[name]["request"], EXCHANGES[name]["answer"]
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, _, port = sim.address.partition(":")
    with (
        socket.create_connection((host, int(port)), timeout=TIMEOUT) as plain,
        context.wrap_socket(plain) as tls,
    ):
        assert tls.version() == RECORDED["tls"]["version"]
        tls.sendall(request["text"].encode())
        assert tls.recv(MAX_RECORD).decode() == answer.get("text", "")
        if "text" in answer:
            assert answer["connection_goes_on"]
            tls.sendall(b'{"command":"version"}')
            assert tls.recv(MAX_RECORD) == b'{"status":"OK","version":"v1"}'
