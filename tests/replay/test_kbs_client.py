"""Our KBS client, given what a real Trustee answered, does what it did with Trustee itself."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import TYPE_CHECKING, Any, Final

import pytest

from coco_kp.errors import IntegrityError, RemoteError
from coco_kp.kbs.admin import Admin
from coco_kp.kbs.admin_token import ReadyToken
from coco_kp.kbs.attester import Sample
from coco_kp.kbs.client import Kbs
from coco_kp.kbs.rcar import Handshake, ask_for_challenge
from coco_kp.kbs.refusal import Refusal
from coco_kp.kbs.session import Reader
from coco_kp.kbs.tee_key import TeeKey
from coco_kp.model.encoding import encode_base64
from coco_kp.model.kbs_url import KbsUrl
from coco_kp.model.rcar import Challenge, report_data
from coco_kp.model.resource_uri import parse_key_id, parse_resource_path
from tests.replay.playback import playing
from tests.replay.recording import Recorded, body, recording
from tests.support.deletion import delete_resource

if TYPE_CHECKING:
    from coco_kp.model.resource_uri import ResourceUri

HANDSHAKE: Final = recording("trustee-handshake")
READ: Final = recording("trustee-read")
ADMIN: Final = recording("trustee-admin")
CLIENTS: Final = recording("trustee-clients")

OURS: Final = {h["name"]: h for h in HANDSHAKE["handshakes"] if h["sent_by"] != "hand"}
ATTEMPTS: Final = {attempt["name"]: attempt for attempt in HANDSHAKE["attempts"]}
ADMIN_CALLS: Final = {
    exchange["name"]: exchange for exchange in ADMIN["exchanges"] if "sent_by" in exchange
}

RESOURCES: Final = "/kbs/v0/resource/"
OPENS: Final[dict[str, tuple[str, dict[str, str], str]]] = {
    **{
        f"handshake: {h['name']}": (
            h["tee_key_pem"],
            json.loads(h["exchanges"][-1]["answer"]["body"]),
            h["resource_base64"],
        )
        for h in HANDSHAKE["handshakes"]
        if "resource_base64" in h
    },
    **{
        f"read: {e['name']}": (
            e.get("tee_key_pem")
            or READ["signed_tee_key_pem" if "with a signer" in e["name"] else "tee_key_pem"],
            json.loads(e["answer"]["body"]),
            "" if "empty resource" in e["name"] else READ["resource_base64"],
        )
        for e in READ["exchanges"]
        if e["answer"]["status"] == 200
    },
    **{
        f"kbs-client: {run['name']}": (
            run["tee_key_pem"],
            json.loads(run["exchanges"][-1]["answer"]["body"]),
            run["resource_base64"],
        )
        for run in CLIENTS["runs"]
        if "resource_base64" in run
    },
}
"""TEE key, answer and resource of each resource that was handed out."""

REFUSALS: Final = {
    f"{source}: {exchange['name']}": exchange["answer"]
    for source, exchanges in {
        "read": READ["exchanges"],
        "admin": ADMIN["exchanges"],
        "handshake": [{"name": n, **a["exchanges"][-1]} for n, a in ATTEMPTS.items()],
        "client": [{"name": r["name"], **r["exchanges"][-1]} for r in CLIENTS["runs"]],
    }.items()
    for exchange in exchanges
    if exchange["answer"]["status"] != 200
}

CANNOT_STORE: Final = {
    exchange["name"]: exchange
    for exchange in ADMIN["exchanges"]
    if exchange["request"]["method"] == "POST"
    and "PluginInternalError" in exchange["answer"].get("body", "")
}

ATTESTATIONS: Final = {
    f"{run['name']}, {number}": json.loads(exchange["request"]["body"])
    for run in CLIENTS["runs"]
    for number, exchange in enumerate(run["exchanges"])
    if exchange["request"]["path"] == "/kbs/v0/attest"
}


@pytest.mark.parametrize("name", OURS)
def test_reader_given_a_recorded_handshake_sends_the_recorded_requests_and_opens_the_resource(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    handshake = OURS[name]
    kinds = []

    def generate(kind: str) -> TeeKey:
        kinds.append(kind)
        return TeeKey.from_pem(handshake["tee_key_pem"])

    monkeypatch.setattr(TeeKey, "generate", generate)
    with playing(handshake["exchanges"]) as playback, Kbs(KbsUrl.parse(playback.url)) as kbs:
        reader = Reader(kbs, Handshake(kbs, Sample(), handshake["tee_key_kind"]))
        uri = resource(handshake["exchanges"][-1])
        # `product_said` is what an earlier client made of the empty resource: "does not decrypt".
        assert reader.fetch(uri) == b64decode(handshake["resource_base64"])
    playback.assert_asked_as_recorded()
    assert kinds == [handshake["tee_key_kind"]]


@pytest.mark.parametrize("name", ATTEMPTS)
def test_handshake_given_a_recorded_attempt_names_the_refusal_or_goes_on(name: str) -> None:
    exchanges = ATTEMPTS[name]["exchanges"]
    last = exchanges[-1]["answer"]
    with playing(exchanges) as playback, Kbs(KbsUrl.parse(playback.url)) as kbs:
        if last["status"] != 200:
            with pytest.raises(RemoteError) as refused:
                attempt(kbs, exchanges)
            assert f"({variant(last)} {last['status']})" in refused.value.message
            assert refused.value.hint
        else:
            text = attempt(kbs, exchanges)
            assert text
            assert text in last["body"]
    assert len(playback.requests) == len(exchanges)


@pytest.mark.parametrize("name", OPENS)
def test_tee_key_given_a_recorded_resource_opens_it_unless_it_is_rsa1_5(name: str) -> None:
    pem, answer, expected = OPENS[name]
    key = TeeKey.from_pem(pem)
    if "RSA1_5" in name:  # it is broken
        with pytest.raises(IntegrityError, match="does not decrypt"):
            key.open(answer)
    else:
        assert key.open(answer) == b64decode(expected)


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal_given_a_recorded_error_names_its_variant_and_repeats_its_text(name: str) -> None:
    answer = REFUSALS[name]
    refusal = Refusal.of("kbs", answer["status"], body(answer) or b"", lambda text: text)
    assert refusal.variant == variant(answer)
    assert refusal.said == detail(answer)
    error = refusal.error("do it")
    assert f"refused to do it ({variant(answer) or 'HTTP'} {answer['status']})" in error.message
    assert error.hint


@pytest.mark.parametrize("name", ADMIN_CALLS)
def test_admin_given_a_recorded_answer_sends_the_recorded_request_and_tells_the_outcome(
    name: str,
) -> None:
    exchange = ADMIN_CALLS[name]
    answer = exchange["answer"]
    with playing([exchange]) as playback, Kbs(KbsUrl.parse(playback.url)) as kbs:
        admin = Admin(kbs, token(exchange))
        if answer["status"] == 200:
            call(admin, exchange)
        else:
            with pytest.raises(RemoteError) as refused:
                call(admin, exchange)
            assert f"({variant(answer)} {answer['status']})" in refused.value.message
    playback.assert_asked_as_recorded()


@pytest.mark.parametrize("name", CANNOT_STORE)
def test_admin_given_a_recorded_failure_to_store_points_to_the_store_itself(name: str) -> None:
    with (
        playing([CANNOT_STORE[name]]) as playback,
        Kbs(KbsUrl.parse(playback.url)) as kbs,
        pytest.raises(RemoteError) as refused,
    ):
        Admin(kbs, None).put(parse_resource_path("default/key/1"), b"key")
    assert "write the key into that store itself" in refused.value.hint


def test_admin_given_recorded_answers_deletes_from_an_hsm_until_there_is_none() -> None:
    answers = ["delete: what is there"] * 2 + ["delete: nothing there", "put: new"]
    exchanges = [ADMIN_CALLS[name] for name in answers]
    with playing(exchanges) as playback, Kbs(KbsUrl.parse(playback.url)) as kbs:
        Admin(kbs, None).replace(parse_key_id("kbs+pkcs11:///resource/default/key/1"), b"key")
    path = "/kbs/v0/pkcs11/resource/default/key/1"
    asked = [(request.method, request.path) for request in playback.requests]
    assert asked == [("DELETE", path)] * 3 + [("POST", path)]


@pytest.mark.parametrize("name", ATTESTATIONS)
def test_report_data_given_what_an_upstream_client_sent_is_the_digest_in_its_evidence(
    name: str,
) -> None:
    sent = ATTESTATIONS[name]
    runtime, evidence = sent["runtime-data"], sent["tee-evidence"]
    challenge = Challenge.parse({"nonce": runtime["nonce"], "extra-params": ""})
    digest = report_data(challenge, runtime["tee-pubkey"], evidence["additional_evidence"])
    assert evidence["primary_evidence"] == {"svn": "1", "report_data": encode_base64(digest)}


def attempt(kbs: Kbs, exchanges: list[Recorded]) -> str:
    """Make the requests of an attempt and return what they yielded: a nonce, or a token."""
    if len(exchanges) == 1:
        return ask_for_challenge(kbs, "sample")[0].nonce
    return Handshake(kbs, Sample())().token


def call(admin: Admin, exchange: Recorded) -> None:
    """Make the call that a recorded request was."""
    match exchange["request"]["method"]:
        case "POST":
            admin.put(resource(exchange), body(exchange["request"]) or b"")
        case "DELETE":
            delete_resource(admin, resource(exchange))
        case _:
            assert admin.list_policies().body == body(exchange["answer"])


def token(exchange: Recorded) -> ReadyToken | None:
    """Return the token that a recorded request carried."""
    _, _, text = exchange["request"]["headers"].get("Authorization", "").partition("Bearer ")
    return ReadyToken("the recording", text, 4102444800.0) if text else None


def resource(exchange: Recorded) -> ResourceUri:
    """Return the resource that a recorded request names."""
    return parse_resource_path(exchange["request"]["path"].removeprefix(RESOURCES))


def variant(answer: Recorded) -> str:
    """Return the last word of a recorded error's type, empty if it is no document of a KBS."""
    return str(document(answer).get("type", "")).rpartition("/")[2]


def detail(answer: Recorded) -> str:
    """Return the text of a recorded error without the part that misleads."""
    said = document(answer).get("detail", answer.get("body", ""))
    return str(said).removeprefix("failed to initialize [admin] configuration: ")


def document(answer: Recorded) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(answer.get("body", ""))
    except ValueError:
        return {}
    return found
