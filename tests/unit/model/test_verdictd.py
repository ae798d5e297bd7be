"""The messages of Verdictd."""

from __future__ import annotations

import json
from base64 import b64encode

import pytest

from coco_kp.errors import InputError, KekError, RemoteError
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.packet import AnnotationPacket
from coco_kp.model.resource_uri import parse_key_id
from coco_kp.model.verdictd import decrypt_request, parse_decrypted

KID = parse_key_id("kbs:///default/key/1")
PACKET = AnnotationPacket(KID, b"wrapped data with a tag", bytes(12), Algorithm.A256GCM)
SENT = b64encode(PACKET.wrapped_data).decode()


def test_decrypt_request_names_aes_whatever_the_packet_says() -> None:
    """Verdictd answers the packet's own ``A256GCM`` with "parameters error"."""
    assert json.loads(decrypt_request(PACKET)) == {
        "command": "Decrypt",
        "blobs": [
            {
                "kid": "default/key/1",
                "encrypted_data": SENT,
                "algorithm": "AES",
                "key_length": 256,
                "iv": "AAAAAAAAAAAAAAAA",
            }
        ],
    }


def test_decrypt_request_refuses_ctr_packet_with_reason() -> None:
    ctr = AnnotationPacket(KID, b"wrapped", bytes(16), Algorithm.A256CTR)
    with pytest.raises(KekError, match="A256CTR cannot be opened through eaa"):
        decrypt_request(ctr)


def test_decrypt_request_refuses_packet_too_long_for_one_tls_record() -> None:
    """A longer request makes Verdictd hang up without a word."""
    long = AnnotationPacket(KID, bytes(3000), bytes(12), Algorithm.A256GCM)
    with pytest.raises(InputError, match="too long for Verdictd"):
        decrypt_request(long)


def test_parse_decrypted_returns_plaintext() -> None:
    answer = {"data": {SENT: b64encode(b"plain").decode()}, "status": "OK"}
    assert parse_decrypted(json.dumps(answer).encode(), PACKET) == b"plain"


def test_parse_decrypted_raises_kek_error_for_failure() -> None:
    answer = b'{"data":{},"error":"kid: \\"nope\\"\'s key not found","status":"Fail"}'
    with pytest.raises(KekError, match="key not found"):
        parse_decrypted(answer, PACKET)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"no json",
        b"[]",
        b'{"status":"OK"}',
        b'{"status":"OK","data":[]}',
        b'{"status":"OK","data":{"other":"cGxhaW4="}}',
        json.dumps({"status": "OK", "data": {SENT: "no base64"}}).encode(),
        json.dumps({"status": "OK", "data": {SENT: None}}).encode(),
    ],
)
def test_parse_decrypted_refuses_malformed_answer(answer: bytes) -> None:
    with pytest.raises(RemoteError):
        parse_decrypted(answer, PACKET)
