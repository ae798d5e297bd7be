"""Our simulated KBS, given what a real Trustee was asked, answers as it did.

Compared are the status, the headers that clients look at, and the body: errors must be equal,
documents of the same shape, and resources open with the TEE key of the recording.
"""

from __future__ import annotations

import http.client
import json
from base64 import b64decode, urlsafe_b64decode
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import pytest

from coco_kp.kbs.tee_key import TeeKey
from tests.replay.recording import Recorded, body, recording
from tests.sim.kbs import Session, SimulatedKbs, simulated_kbs

if TYPE_CHECKING:
    from collections.abc import Iterator

HANDSHAKE: Final = recording("trustee-handshake")
READ: Final = recording("trustee-read")
ADMIN: Final = recording("trustee-admin")
CLIENTS: Final = recording("trustee-clients")
HANDSHAKES: Final = {h["name"]: h for h in HANDSHAKE["handshakes"]}
ATTEMPTS: Final = {attempt["name"]: attempt for attempt in HANDSHAKE["attempts"]}
READS: Final = {exchange["name"]: exchange for exchange in READ["exchanges"]}
RUNS: Final = {
    run["name"]: run
    for run in CLIENTS["runs"]
    if not any("body_omitted" in exchange["request"] for exchange in run["exchanges"])
}

BROKEN: Final = "RSA1_5 is broken: our client does not offer it"
POLICY: Final = "it has no policy engine, and takes any policy"
VALUES: Final = "our client sets and reads no reference values"
MONITORING: Final = "our client does not ask for health and metrics"
NOT_MODELLED: Final = {
    "RSA1_5": BROKEN,
    "set policy: no rego": POLICY,
    "set policy: no base64url": POLICY,
    "set policy: member missing": POLICY,
    "set policy: no JSON": POLICY,
    "set reference value": VALUES,
    "get reference value": VALUES,
    "get reference value: unknown": VALUES,
    "healthz": MONITORING,
    "metrics": MONITORING,
    "metrics by POST": MONITORING,
}
"""Recordings whose answers the simulator deliberately does not give, and why."""

BELIEVED: Final = {
    "forged: signed by a key of its own, at a KBS that takes any",
    "token without a key to encrypt to",
    "token with a key that the KBS cannot encrypt to",
    "session that has ended, but a token that has not",
    "ok: at a KBS with a signer",
    "denied: the policy that a KBS comes with",
}
"""Reads with a token that the KBS of that moment believed, beside that of the first read."""

KEY_CLAIM: Final = ("submods", "cpu0", "ear.veraison.annotated-evidence", "runtime_data_claims")
HEADERS: Final = ("allow", "content-type")
TIMEOUT: Final = 30


@pytest.mark.parametrize("name", HANDSHAKES)
def test_simulated_kbs_given_a_recorded_handshake_answers_as_the_real_one(name: str) -> None:
    handshake = HANDSHAKES[name]
    with simulated_kbs() as sim:
        sim.resources["default/key/1"] = b64decode(READ["resource_base64"])
        if "resource_base64" in handshake:
            path = handshake["exchanges"][-1]["request"]["path"].removeprefix("/kbs/v0/resource/")
            sim.resources[path] = b64decode(handshake["resource_base64"])
        opening = Opening.of(handshake)
        check(name, replayed(sim, handshake["exchanges"], opening))


@pytest.mark.parametrize("name", ATTEMPTS)
def test_simulated_kbs_given_a_recorded_attempt_answers_as_the_real_one(name: str) -> None:
    exchanges = ATTEMPTS[name]["exchanges"]
    with simulated_kbs() as sim:
        found = replayed(sim, exchanges[:-1])
        if name == "attest: expired session":
            sim.sessions.clear()
        check(name, found + replayed(sim, exchanges[-1:]))


@pytest.mark.parametrize("name", READS)
def test_simulated_kbs_given_a_recorded_read_answers_as_the_real_one(name: str) -> None:
    exchange = READS[name]
    with simulated_kbs() as sim:
        sim.resources = {
            "default/key/1": b64decode(READ["resource_base64"]),
            "default/key/empty": b"",
        }
        sim.denies = name.startswith(("denied", "policy"))
        first = token_of(READS["ok: token"])
        if name != "token of another KBS":
            sim.tokens[first] = key_in(first)
        if name in BELIEVED:
            sim.tokens[token_of(exchange)] = key_in(token_of(exchange))
        # The session of each cookie, with the token that it was given.
        attested, begun = READS["ok: cookie"], READS["session that is not attested yet"]
        expired = READS["expired token in a session that goes on"]
        denied = READS["denied: the policy that a KBS comes with, cookie"]
        sim.sessions = {
            session_of(attested): Session("", token=first),
            session_of(begun): Session(""),
            session_of(expired): Session("", token="expired"),
            session_of(denied): Session("", token=first),
        }
        pem = exchange.get("tee_key_pem") or (
            READ["signed_tee_key_pem"] if "with a signer" in name else READ["tee_key_pem"]
        )
        expected = b"" if name == "ok: empty resource" else sim.resources["default/key/1"]
        check(name, replayed(sim, [exchange], Opening(pem, expected)))


@pytest.fixture(scope="module")
def admin_differences() -> dict[str, list[str]]:
    """What differs in each exchange of an administrator, made in the order of the recording."""
    found = {}
    roles = {"admin": "admin", "not_yet_valid": "admin", "reader": "reader", "no_role": ""}
    with simulated_kbs() as sim:
        sim.roles = {ADMIN["tokens"][kind]: role for kind, role in roles.items()}
        for exchange in ADMIN["exchanges"]:
            name = exchange["name"]
            sim.admins = (
                "anybody"
                if name.startswith("open KBS")
                else "nobody"
                if name.startswith("deny-all KBS")
                else "by token"
            )
            found[name] = replayed(sim, [exchange])
    return found


@pytest.mark.parametrize("name", [exchange["name"] for exchange in ADMIN["exchanges"]])
def test_simulated_kbs_given_a_recorded_admin_request_answers_as_the_real_one(
    name: str, admin_differences: dict[str, list[str]]
) -> None:
    check(name, admin_differences[name])


@pytest.mark.parametrize("name", RUNS)
def test_simulated_kbs_given_what_an_upstream_client_sent_answers_as_the_real_one(
    name: str,
) -> None:
    run = RUNS[name]
    with simulated_kbs() as sim:
        sim.roles = {CLIENTS["admin_token"]: "admin", CLIENTS["reader_token"]: "reader"}
        sim.denies = "denied" in name
        if name != "delete nothing":
            sim.resources["default/key/1"] = b64decode(CLIENTS["kek"])
        check(name, replayed(sim, run["exchanges"], Opening.of(run)))


def test_list_of_what_is_not_modelled_names_only_recordings() -> None:
    admin = {exchange["name"] for exchange in ADMIN["exchanges"]}
    assert NOT_MODELLED.keys() <= HANDSHAKES.keys() | ATTEMPTS.keys() | READS.keys() | admin


class Opening:
    """What opens a resource: a TEE key (PEM), if it is known, and what it must hold."""

    def __init__(self, pem: str, expected: bytes) -> None:
        self.pem = pem
        self.expected = expected

    @classmethod
    def of(cls, recorded: Recorded) -> Opening | None:
        """Return that of a handshake or run, None if its key or resource is not known."""
        if not recorded.get("tee_key_pem") or "resource_base64" not in recorded:
            return None
        return cls(recorded["tee_key_pem"], b64decode(recorded["resource_base64"]))

    def differences(self, answer: dict[str, Any]) -> list[str]:
        """Open a resource with the recorded key."""
        if not self.expected:  # for which jwcrypto has no word
            return ["the resource is not empty"] if answer["ciphertext"] else []
        if TeeKey.from_pem(self.pem).open(answer) == self.expected:
            return []
        return ["the resource is another"]


def check(name: str, differences: list[str]) -> None:
    """Fail unless the answers are the same, or are known not to be."""
    if name in NOT_MODELLED:
        assert differences, f"is modelled now: take {name!r} from NOT_MODELLED"
    else:
        assert differences == []


def replayed(
    sim: SimulatedKbs, exchanges: list[Recorded], opening: Opening | None = None
) -> list[str]:
    """Send recorded requests one after the other and return how the answers differ."""
    found = []
    for exchange in exchanges:
        recorded = exchange["answer"]
        before = {session.token for session in sim.sessions.values()}
        with sent(sim, exchange["request"]) as answer:
            expected_headers = {name.lower(): text for name, text in recorded["headers"].items()}
            if answer.status != recorded["status"]:
                found.append(f"status {answer.status} for {recorded['status']}")
            found += [
                f"{name} {answer.headers[name]!r} for {expected_headers.get(name)!r}"
                for name in HEADERS
                if answer.headers[name] != expected_headers.get(name)
            ]
            if ("set-cookie" in expected_headers) != ("set-cookie" in answer.headers):
                found.append("a cookie")
            content = answer.read()
            found += body_differences(content, body(recorded) or b"", opening)
            if recorded.get("body", "").startswith('{"token"'):
                again = json.loads(recorded["body"])["token"] in before
                if again and content.decode() != recorded["body"]:
                    found.append("another token than before")
            if not found and "set-cookie" in expected_headers:
                adopt(sim, exchange, answer.headers["set-cookie"])
    return found


def body_differences(found: bytes, recorded: bytes, opening: Opening | None) -> list[str]:
    """Compare a body with the recorded one: documents by their shape, all else by its bytes."""
    if not recorded.startswith(b"{"):
        return [] if found == recorded else [f"{found!r} for {recorded!r}"]
    if not found.startswith(b"{"):
        return [f"{found!r} for a document"]
    document, expected = json.loads(found), json.loads(recorded)
    if "detail" in expected:
        return [] if document == expected else [f"{document} for {expected}"]
    if shape(document) != shape(expected):
        return [f"{shape(document)} for {shape(expected)}"]
    return opening.differences(document) if opening and "ciphertext" in document else []


def shape(document: Any) -> Any:
    """Return a document with types in place of texts, but for algorithms; a header is unpacked."""
    if not isinstance(document, dict):
        return type(document).__name__
    return {
        name: shape(json.loads(unpadded(value)))
        if name == "protected"
        else value
        if name in ("alg", "enc", "crv", "kty", "extra-params")
        else shape(value)
        for name, value in document.items()
    }


def adopt(sim: SimulatedKbs, exchange: Recorded, cookie: str) -> None:
    """Let the simulator go on with the recorded session, nonce and token in place of its own."""
    mine = session_in(cookie)
    recorded = session_in(exchange["answer"]["headers"]["set-cookie"])
    document = json.loads(exchange["answer"]["body"])
    session = sim.sessions[recorded] = sim.sessions.pop(mine)
    session.nonce = document.get("nonce", session.nonce)
    if "token" in document and session.token != document["token"]:
        sim.tokens[document["token"]] = sim.tokens.pop(session.token)
        session.token = document["token"]


@contextmanager
def sent(sim: SimulatedKbs, request: Recorded) -> Iterator[http.client.HTTPResponse]:
    """Send a recorded request as it stands and give the answer."""
    connection = http.client.HTTPConnection(urlsplit(sim.url).netloc, timeout=TIMEOUT)
    try:
        connection.request(request["method"], request["path"], body(request), request["headers"])
        yield connection.getresponse()
    finally:
        connection.close()


def token_of(exchange: Recorded) -> str:
    """Return the bearer's token of a recorded request."""
    return str(exchange["request"]["headers"]["Authorization"]).removeprefix("Bearer ")


def session_of(exchange: Recorded) -> str:
    """Return the session of a recorded request."""
    return session_in(exchange["request"]["headers"]["Cookie"])


def session_in(cookie: str) -> str:
    return cookie.partition(";")[0].removeprefix("kbs-session-id=")


def key_in(token: str) -> dict[str, str]:
    """Return the public key that a token vouches for, nothing if it names none."""
    claims = json.loads(unpadded(token.split(".")[1]))
    for name in KEY_CLAIM:
        claims = claims[name]
    key: dict[str, str] = claims.get("tee-pubkey", {})
    return key


def unpadded(text: str) -> bytes:
    """Decode base64url without padding."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
