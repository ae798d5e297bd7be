"""A recorded simple-kbs, in place of ours and of our client's."""

from __future__ import annotations

import json
import uuid
from base64 import b64decode
from typing import TYPE_CHECKING, Final

import grpc
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from coco_kp.errors import IntegrityError, KekError, RemoteError
from coco_kp.kbc.online_sev import online_sev_kbc
from coco_kp.model.packet import parse_packet
from tests.replay.recording import Recorded, recording
from tests.sim.simple_kbs import METHOD, behaving, read_message, simulated_simple_kbs

if TYPE_CHECKING:
    from pathlib import Path

RECORDED: Final = recording("simple-kbs")
CALLS: Final = {call["name"]: call for call in RECORDED["calls"]}
ANSWERED: Final = [name for name, call in CALLS.items() if call["request"].get("secrets")]
PACKETS: Final = [packet["packet"].encode() for packet in RECORDED["packets"]]
TIMEOUT: Final = 30


@pytest.mark.parametrize("number", range(len(PACKETS)))
def test_online_sev_given_the_recorded_answer_sends_the_recorded_request_and_opens_the_packet(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = RECORDED["calls"][0]
    options, requests = ask(call, PACKETS[number], tmp_path, monkeypatch)
    assert requests == [bytes.fromhex(call["request"]["hex"])]
    assert json.loads(options) == json.loads(RECORDED["packets"][number]["private_options"])


@pytest.mark.parametrize("name", ANSWERED)
def test_online_sev_given_any_recorded_answer_opens_the_packet_only_with_the_key_asked_for(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = CALLS[name]
    answer = call["answer"]
    if answer["code"] != "OK":
        with pytest.raises(RemoteError) as refused:
            ask(call, PACKETS[0], tmp_path, monkeypatch)
        assert f"({answer['code']}): '{answer['details'][:100]}" in refused.value.message
        return
    handed_out = read_map(bytes.fromhex(answer["plaintext_hex"]))
    if handed_out.keys() != {call["request"]["secrets"][0]["guid"]}:
        with pytest.raises(IntegrityError, match="answered another request"):
            ask(call, PACKETS[0], tmp_path, monkeypatch)
    elif handed_out != {guid(call): b64decode(RECORDED["keys"]["default/key/1"])}:
        with pytest.raises(KekError):
            ask(call, PACKETS[0], tmp_path, monkeypatch)
    else:
        assert ask(call, PACKETS[0], tmp_path, monkeypatch)


@pytest.mark.parametrize("name", CALLS)
def test_simulated_simple_kbs_given_a_recorded_request_answers_as_the_real_one(name: str) -> None:
    call = CALLS[name]
    answer = call["answer"]
    who = "short_connection" if name == "connection with a key of 16 bytes" else "connection"
    connection = RECORDED[who]
    with simulated_simple_kbs() as sim:
        sim.client_id, sim.key = connection["client_id"], b64decode(connection["key"])
        sim.secrets = {
            path: None if path.endswith("nobase64") else b64decode(key)
            for path, key in RECORDED["keys"].items()
        }
        code, details, message = send(sim.address, call)
    assert code == answer["code"]
    if code == "OK":
        fields = read_message(message)
        assert fields.keys() == read_message(bytes.fromhex(answer["hex"])).keys()
        (payload,), (iv,) = fields[1], fields[2]
        plain = AESGCM(sim.key).decrypt(b64decode(iv), b64decode(payload), None)
        assert read_map(plain) == read_map(bytes.fromhex(answer["plaintext_hex"]))
    elif code != "CANCELLED":  # the text is then the client library's
        assert details == answer["details"]


def ask(
    call: Recorded, packet: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[bytes, list[bytes]]:
    """Open a packet while the recorded answer is given; return its content and the requests."""
    requests = []

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        requests.append(request)
        if call["answer"]["code"] != "OK":
            context.abort(grpc.StatusCode[call["answer"]["code"]], call["answer"]["details"])
        return bytes.fromhex(call["answer"]["hex"])

    monkeypatch.setattr(uuid, "uuid4", lambda: guid(call))
    connection = folder / "connection.json"
    connection.write_text(json.dumps(RECORDED["connection"]))
    connection.chmod(0o600)
    with behaving(answer) as address:
        kbc = online_sev_kbc(address, connection_file=connection)
        return kbc.unwrap(parse_packet(packet)), requests


def send(address: str, call: Recorded) -> tuple[str, str, bytes]:
    """Send the recorded request and return code, text and message of the answer."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options) as channel:
        method = channel.unary_unary(call.get("method", METHOD), bytes, bytes)
        try:
            message: bytes = method(bytes.fromhex(call["request"]["hex"]), timeout=TIMEOUT)
        except grpc.RpcError as error:
            return error.code().name, str(error.details()), b""
    return "OK", "", message


def guid(call: Recorded) -> str:
    """Return the Guid of the first secret that a call asks for."""
    return str(call["request"]["secrets"][0]["guid"])


def read_map(data: bytes) -> dict[str, bytes]:
    """Read a map in bincode: all sizes are 64-bit numbers, the lowest byte first."""

    def take() -> bytes:
        nonlocal data
        size = int.from_bytes(data[:8], "little")
        piece, data = data[8 : 8 + size], data[8 + size :]
        assert len(piece) == size
        return piece

    count, data = int.from_bytes(data[:8], "little"), data[8:]
    entries = {take().decode(): take() for _ in range(count)}
    assert not data
    return entries
