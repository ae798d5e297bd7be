from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from coco_kp.errors import InputError
from coco_kp.model.protocol import (
    Operation,
    UnwrapRequest,
    WrapRequest,
    parse_request,
    write_unwrap_response,
    write_wrap_response,
)
from tests.support.documents import to_json
from tests.support.refusals import refusals
from tests.vectors import load_vectors

VECTORS = load_vectors("protocol_requests")
PACKETS = {vector["name"]: vector for vector in load_vectors("packets")["good"]}
PRIVATE_OPTIONS = PACKETS["gcm"]["optsdata"].encode()
PACKET = PACKETS["gcm"]["packet"].encode()
MINE = "keywrapparams/ec/Parameters/mine"
PARAMETERS = "keypath=/k/key1::keyid=kbs:///default/key/key_id1::algorithm=A256GCM"


@pytest.mark.parametrize(
    "name", ["go_wrap", "go_wrap_null_decryptconfig", "rust_wrap_raw_optsdata"]
)
@pytest.mark.parametrize("operation", ["keywrap", None])
def test_parse_request_reads_known_wrap_requests(name: str, operation: Operation | None) -> None:
    request = parse_request(to_json(VECTORS[name]), operation)
    assert request == WrapRequest((PARAMETERS,), PRIVATE_OPTIONS)


@pytest.mark.parametrize("operation", ["keyunwrap", None])
def test_parse_request_reads_known_unwrap_request(operation: Operation | None) -> None:
    request = parse_request(to_json(VECTORS["go_unwrap"]), operation)
    assert request == UnwrapRequest(("offline_fs_kbc::null",), PACKET)


def b64(data: bytes) -> str:
    return b64encode(data).decode()


def wrap_document(**parameters: Any) -> dict[str, Any]:
    """A wrap request with these parameters by provider name."""
    config = {"Parameters": parameters, "DecryptConfig": None}
    return {"op": "keywrap", "keywrapparams": {"ec": config, "optsdata": b64(PRIVATE_OPTIONS)}}


def parameters_of(document: dict[str, Any]) -> tuple[str, ...]:
    return parse_request(to_json(document)).parameters


@pytest.mark.parametrize("as_sent", [b64, list], ids=["base64", "bytes"])
def test_parse_request_accepts_bytes_as_base64_or_numbers(as_sent: Any) -> None:
    wrap = wrap_document(mine=[as_sent(b"sample=true")])
    wrap["keywrapparams"]["optsdata"] = as_sent(PRIVATE_OPTIONS)
    assert parse_request(to_json(wrap)) == WrapRequest(("sample=true",), PRIVATE_OPTIONS)
    unwrap = {"op": "keyunwrap", "keyunwrapparams": {"annotation": as_sent(PACKET)}}
    assert parse_request(to_json(unwrap)) == UnwrapRequest((), PACKET)


@pytest.mark.parametrize(
    "call",
    [
        {},
        {"dc": None},
        {"dc": {}},
        {"dc": {"Parameters": None}},
        {"dc": {"Parameters": {}}},
        {"dc": {"Parameters": {"attestation-agent": None}}},
        {"dc": {"Parameters": {"attestation-agent": []}}},
        {"dc": {"Parameters": {"privkeys": ["AA=="], "privkeys-passwords": [""]}}},
    ],
)
@pytest.mark.parametrize("op", [{}, {"op": None}, {"op": "keyunwrap"}])
def test_parse_request_treats_null_and_missing_members_as_no_parameters(
    call: Any, op: dict[str, Any]
) -> None:
    document = {**op, "keyunwrapparams": call | {"annotation": b64(PACKET)}, "keywrapparams": None}
    assert parse_request(to_json(document), "keyunwrap") == UnwrapRequest((), PACKET)


@pytest.mark.parametrize("name", ["attestation-agent", "mine", "", "x.y"])
def test_parse_request_accepts_any_provider_name(name: str) -> None:
    assert parameters_of(wrap_document(**{name: [b64(b"a"), b64("ä".encode())]})) == ("a", "ä")


def test_parse_request_ignores_other_recipients_and_prefers_attestation_agent() -> None:
    others = {"pubkeys": ["AA=="], "gpg-recipients": None, "x509s": "?", "pkcs11-yamls": 3}
    assert parameters_of(wrap_document(mine=[b64(b"a")], **others)) == ("a",)
    several = {"mine": [b64(b"a")], "attestation-agent": [b64(b"b")]}
    assert parameters_of(wrap_document(**several)) == ("b",)


def test_parse_request_refuses_several_providers_without_attestation_agent() -> None:
    with pytest.raises(InputError, match="names 2 providers, among them 'a', 'b' ") as error:
        parameters_of(wrap_document(a=[b64(b"x")], b=[b64(b"y")]))
    assert error.value.code == "provider-name-missing"


@pytest.mark.parametrize(("name", "own"), [("attestation-agent", "b"), ("mine", "a")])
def test_parse_request_reads_parameters_of_the_providers_own_name_only(name: str, own: str) -> None:
    """Of two providers that were both ours, each took the parameters of the first."""
    document = wrap_document(mine=[b64(b"a")], **{"attestation-agent": [b64(b"b")]})
    request = parse_request(to_json(document), "keywrap", name)
    assert request.parameters == (own,)


@pytest.mark.parametrize("name", ["other", "pubkeys", "Mine"])
def test_parse_request_finds_no_parameters_under_another_name(name: str) -> None:
    document = wrap_document(mine=[b64(b"a")], pubkeys=["AA=="])
    assert parse_request(to_json(document), "keywrap", name).parameters == ()
    unwrap = {
        "keyunwrapparams": {"dc": {"Parameters": {"mine": [b64(b"a")]}}, "annotation": "AA=="}
    }
    assert parse_request(to_json(unwrap), "keyunwrap", name).parameters == ()


def test_parse_request_refusal_shows_few_of_thousands_of_names() -> None:
    names: dict[str, list[str]] = {f"name{number}": [] for number in range(5000)}
    with pytest.raises(InputError) as error:
        parameters_of(wrap_document(**names))
    assert error.value.message == (
        "the request names 5000 providers, among them 'name0', 'name1', 'name2'"
    )


test_parse_request_refuses_op_other_than_keywrap_and_keyunwrap = refusals(
    lambda row: parse_request(
        to_json(wrap_document(mine=[b64(b"sample=true")]) | {"op": row[0]}), row[1]
    ),
    {
        "'op' of the request is not keywrap or keyunwrap": [
            (op, operation)
            for op in ("", "KeyWrap", "wrap", 0, 1, False, True, [], ["keywrap"], {}, {"": 0})
            for operation in ("keywrap", "keyunwrap", None)
        ],
        "is keywrap, but the method called is keyunwrap": [("keywrap", "keyunwrap")],
        "'op' of the request": [(None, None)],
    },
)


def replaced(path: str, value: object) -> dict[str, Any]:
    document = wrap_document(mine=[b64(b"sample=true")])
    *parents, name = path.split("/")
    target = document
    for parent in parents:
        target = target[parent]
    target[name] = value
    return document


test_parse_request_refusal_names_member_of_wrong_type = refusals(
    lambda row: parse_request(to_json(replaced(*row))),
    {
        "'keywrapparams' of the request is not an object": [
            *(("keywrapparams", []), ("keywrapparams", ""), ("keywrapparams", False))
        ],
        "'ec' of 'keywrapparams' is not an object": [("keywrapparams/ec", [1])],
        "'Parameters' of 'ec' is not an object": [("keywrapparams/ec/Parameters", "x")],
        "of provider 'mine' are not an array": [(MINE, {}), (MINE, "c2FtcGxl")],
        "a parameter is missing": [(MINE, [None])],
        "a parameter is not base64": [(MINE, [7]), (MINE, ["sample=true"])],
        "a parameter is not UTF-8 text": [(MINE, [b64(b"\xff")])],
        "an array of something else than byte": [
            (MINE, [[number]]) for number in (256, -1, True, 1.0)
        ],
        "'optsdata' is missing": [("keywrapparams/optsdata", None)],
        "'optsdata' is not base64": [
            ("keywrapparams/optsdata", 1),
            ("keywrapparams/optsdata", "?"),
        ],
    },
)

test_parse_request_refuses_request_that_lacks_what_its_operation_needs = refusals(
    parse_request,
    {
        "'op' of the request": [b"{}"],
        "'annotation' is missing": [
            b'{"op":"keyunwrap","keyunwrapparams":{"dc":null,"annotation":null}}'
        ],
    },
)


@pytest.mark.parametrize(
    ("write", "outer", "inner"),
    [
        (write_wrap_response, "keywrapresults", "annotation"),
        (write_unwrap_response, "keyunwrapresults", "optsdata"),
    ],
)
def test_write_response_encodes_bytes_as_array_of_numbers(
    write: Any, outer: str, inner: str
) -> None:
    assert write(b"\0{\xff") == b'{"%s":{"%s":[0,123,255]}}' % (outer.encode(), inner.encode())


def test_request_repr_does_not_show_layer_key() -> None:
    request = parse_request(to_json(VECTORS["go_wrap"]))
    assert repr(request) == f"WrapRequest(parameters=({PARAMETERS!r},))"
