"""Secrets of SEV guests; the layout of the answer is what the real simple-kbs was seen to send."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from coco_kp.errors import RemoteError
from coco_kp.model.sev_secret import SevConnection, parse_secret_map
from tests.support.refusals import refusals

GUID = "0c38e5b0-43d7-4d7f-a2a4-b0e1d6b6a0ff"
ONE_KEY = bytes.fromhex("0100000000000000 2400000000000000") + GUID.encode()
ONE_KEY += bytes.fromhex("2000000000000000") + bytes(range(32))
CONNECTION = {
    "client_id": "77141b30-76ee-4a3a-b0b7-60a89f0503cc",
    "key": "Vc7rMtgBy9YuERVx/GMHqzu/mk1VBwdooRR/8Ifxyps=",
}


def test_parse_secret_map_reads_known_answer() -> None:
    assert len(ONE_KEY) == 92
    assert parse_secret_map(ONE_KEY) == {GUID: bytes(range(32))}
    assert parse_secret_map(bytes(8)) == {}


test_parse_secret_map_refuses_answer_that_is_not_whole = refusals(
    parse_secret_map,
    {
        "the answer of simple-kbs ends early": [ONE_KEY[:end] for end in range(92)],
        "the answer of simple-kbs does not end where it should": [ONE_KEY + b"\0"],
        "the answer of simple-kbs has more than 16 entries": [
            count.to_bytes(8, "little") + ONE_KEY[8:] for count in (17, 2**32, 2**64 - 1)
        ],
    },
    raises=RemoteError,
    exact=True,
)


@given(st.binary(max_size=200))
def test_parse_secret_map_reads_or_refuses_any_bytes(data: bytes) -> None:
    try:
        secrets = parse_secret_map(data)
    except RemoteError:
        return
    assert sum(map(len, secrets.values())) <= len(data)


def test_sev_connection_parses_and_hides_its_key() -> None:
    connection = SevConnection.parse(json.dumps(CONNECTION).encode(), "it")
    assert connection.client_id == CONNECTION["client_id"]
    assert connection.key.hex().startswith("55ceeb32")
    assert repr(connection) == f"SevConnection(client_id='{connection.client_id}')"


test_sev_connection_refuses_malformed_document = refusals(
    lambda change: SevConnection.parse(json.dumps(CONNECTION | change).encode(), "it"),
    {
        "'client_id' of it is not a UUID": [{"client_id": "not a uuid"}],
        "'client_id' of it is not a string": [{"client_id": 7}, {"client_id": None}],
        "'key' of it has 0 bytes; expected 32": [{"key": ""}],
        "'key' of it has 16 bytes; expected 32": [{"key": "AAAAAAAAAAAAAAAAAAAAAA=="}],
        "'key' of it is not base64": [{"key": "not base64"}],
        "'key' of it is not a string": [{"key": [1, 2]}],
    },
    exact=True,
)
