"""The messages of Verdictd."""

from __future__ import annotations

import json
from base64 import b64encode

from coco_kp.errors import KekError, RemoteError
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.packet import AnnotationPacket
from coco_kp.model.resource_uri import parse_key_id
from coco_kp.model.verdictd import decrypt_request, parse_decrypted
from tests.support.refusals import refusals

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


test_decrypt_request_refuses_ctr_packet_with_reason = refusals(
    decrypt_request,
    {
        "a packet of A256CTR cannot be opened through eaa": [
            AnnotationPacket(KID, b"wrapped", bytes(16), Algorithm.A256CTR)
        ]
    },
    raises=KekError,
    hint="Verdictd knows A256GCM only; encrypt with algorithm=A256GCM",
)


# A longer request makes Verdictd hang up without a word.
test_decrypt_request_refuses_packet_too_long_for_one_tls_record = refusals(
    decrypt_request,
    {"too long for Verdictd": [AnnotationPacket(KID, bytes(3000), bytes(12), Algorithm.A256GCM)]},
)


def test_parse_decrypted_returns_plaintext() -> None:
    answer = {"data": {SENT: b64encode(b"plain").decode()}, "status": "OK"}
    assert parse_decrypted(json.dumps(answer).encode(), PACKET) == b"plain"


test_parse_decrypted_raises_kek_error_for_failure = refusals(
    lambda answer: parse_decrypted(answer, PACKET),
    {"key not found": [b'{"data":{},"error":"kid: \\"nope\\"\'s key not found","status":"Fail"}']},
    raises=KekError,
    hint_has="must be in the file opt/verdictd/keys/default/key/1",
)


test_parse_decrypted_refuses_malformed_answer = refusals(
    lambda answer: parse_decrypted(answer, PACKET),
    {
        "is not valid JSON": [b"", b"no json"],
        "is not a JSON object": [b"[]"],
        "answered something else than it was asked": [
            *(b'{"status":"OK"}', b'{"status":"OK","data":[]}'),
            b'{"status":"OK","data":{"other":"cGxhaW4="}}',
            json.dumps({"status": "OK", "data": {SENT: None}}).encode(),
        ],
        "the answer of Verdictd is not base64": [
            json.dumps({"status": "OK", "data": {SENT: "no base64"}}).encode()
        ],
    },
    raises=RemoteError,
)
