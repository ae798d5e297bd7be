"""Reading as a guest does: the handshake, its renewal, and a KBS that does not keep its side."""

from __future__ import annotations

import json
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from coco_kp.errors import CocoKpError, IntegrityError, RemoteError, UnreachableError
from coco_kp.kbs.attester import Sample
from coco_kp.kbs.rcar import Handshake
from coco_kp.kbs.session import Reader, Session
from coco_kp.kbs.tee_key import KINDS, TeeKey
from coco_kp.model.resource_uri import parse_key_id
from tests.sim.http_server import Reply, Request
from tests.sim.kbs import encrypt, json_reply, refusal
from tests.support.patience import ends

if TYPE_CHECKING:
    from coco_kp.kbs.client import Kbs
    from tests.sim.kbs import SimulatedKbs

KID = parse_key_id("kbs:///default/key/1")
PATH = "default/key/1"
GET = f"GET resource/{PATH}"


@pytest.fixture
def secret(sim: SimulatedKbs) -> bytes:
    sim.resources[PATH] = os.urandom(32)
    return sim.resources[PATH]


@pytest.fixture
def reader(kbs: Kbs) -> Reader:
    return Reader(kbs, Handshake(kbs, Sample()))


@pytest.mark.parametrize("kind", KINDS)
def test_reader_fetches_resource_with_each_kind_of_tee_key(
    kbs: Kbs, secret: bytes, kind: str
) -> None:
    assert Reader(kbs, Handshake(kbs, Sample(), kind)).fetch(KID) == secret


def test_reader_shares_one_handshake_among_resources(
    sim: SimulatedKbs, reader: Reader, secret: bytes
) -> None:
    assert [reader.fetch(KID) for _ in range(5)] == [secret] * 5
    assert sim.calls("POST auth") == sim.calls("POST attest") == 1


def test_reader_shares_one_handshake_among_threads(
    sim: SimulatedKbs, reader: Reader, secret: bytes
) -> None:
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda _: reader.fetch(KID), range(16))) == [secret] * 16
    assert sim.calls("POST attest") == 1


def test_reader_renews_session_that_kbs_forgot(
    sim: SimulatedKbs, reader: Reader, secret: bytes
) -> None:
    assert reader.fetch(KID) == secret
    sim.tokens.clear()
    assert reader.fetch(KID) == secret
    assert sim.calls("POST attest") == 2


def test_reader_gives_up_after_three_refused_tokens(sim: SimulatedKbs, reader: Reader) -> None:
    sim.faults[GET] = lambda _: refusal("TokenVerifierError", "Token Verifier error")
    with pytest.raises(RemoteError, match="TokenVerifierError 401"):
        reader.fetch(KID)
    assert sim.calls(GET) == sim.calls("POST attest") == 3


def test_reader_asks_once_for_missing_resource(sim: SimulatedKbs, reader: Reader) -> None:
    """The KBS answers it with 401, which upstream's guests take for a session that ended."""
    with pytest.raises(RemoteError, match="refused to hand out 'kbs:///default/key/1'") as refused:
        reader.fetch(KID)
    assert "there is no such resource" in refused.value.hint
    assert sim.calls(GET) == 1


def test_reader_renews_old_session_once_after_any_refusal(
    sim: SimulatedKbs, reader: Reader, secret: bytes
) -> None:
    """A policy judges the claims of the token, and those may have changed since it was made."""
    assert reader.fetch(KID) == secret
    sim.denies = True
    with pytest.raises(RemoteError, match=r"\(PolicyDeny 401\)") as refused:
        reader.fetch(KID)
    assert "resource policy" in refused.value.hint
    assert sim.calls("POST attest") == 2


def test_handshake_refusal_names_both_protocol_versions(sim: SimulatedKbs, reader: Reader) -> None:
    sim.version = "0.3.0"
    with pytest.raises(RemoteError, match=r"expect =0.3.0 while the request is 0.4.0") as refused:
        reader.fetch(KID)
    assert "speaks protocol version 0.4.0" in refused.value.hint
    assert sim.calls("POST attest") == 0


def test_handshake_fails_with_nonce_of_another_session(
    sim: SimulatedKbs, reader: Reader, secret: bytes
) -> None:
    assert secret
    other = "T3RoZXIgc2Vzc2lvbidzIG5vbmNlLCBhbmQgbm90IG91cnMh"

    def confuse(request: Request) -> Reply:
        reply = sim._auth(json.loads(request.body))
        document = json.loads(reply.body) | {"nonce": other}
        return Reply(headers=reply.headers, body=json.dumps(document).encode())

    sim.faults["POST auth"] = confuse
    with pytest.raises(RemoteError, match="refused to attest this machine as 'sample'"):
        reader.fetch(KID)


def test_reader_refuses_answer_with_wrong_tag(sim: SimulatedKbs, reader: Reader) -> None:
    def flip(request: Request) -> Reply:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        answer = encrypt(b"secret", sim.tokens[token])
        return json_reply(answer | {"tag": answer["tag"][::-1]})

    sim.faults[GET] = flip
    with pytest.raises(IntegrityError, match="does not decrypt with the key of this session"):
        reader.fetch(KID)


CHALLENGE = b'{"nonce":"AAAA","extra-params":""}'
SESSION = {"Set-Cookie": "kbs-session-id=0123"}
OF_ANOTHER_CLIENT = json_reply(encrypt(b"secret", TeeKey.generate().public))


@pytest.mark.parametrize(
    ("call", "reply", "kind", "words"),
    [
        *(
            ("POST auth", Reply(headers={"Set-Cookie": cookie}, body=CHALLENGE), RemoteError, words)
            for cookie, words in dict.fromkeys(
                ("", "other=1", "kbs-session-id=\xe9"), "opened no session"
            ).items()
        ),
        (
            "POST auth",
            Reply(body=b"[" * (1024 * 1024 + 1)),
            RemoteError,
            "longer than 1048576 bytes",
        ),
        *(
            (call, Reply(404), RemoteError, r"\(HTTP 404\).*\(hint: no KBS answers here")
            for call in ("POST auth", "POST attest")
        ),
        *(
            (call, Reply(headers=SESSION, body=body), RemoteError, "")
            for call in ("POST auth", "POST attest", GET)
            for body in (b"", b"null", b"[]", b"{}", b"{", b'{"nonce":7}', b"\xff")
        ),
        (GET, OF_ANOTHER_CLIENT, IntegrityError, "does not decrypt with the key of this session"),
        (
            GET,  # of newer releases
            refusal("PolicyDeny", "Access denied by policy", 403),
            RemoteError,
            r"\(PolicyDeny 403\): Access denied by policy",
        ),
    ],
)
def test_reader_refuses_what_kbs_answers(
    sim: SimulatedKbs, reader: Reader, call: str, reply: Reply, kind: type[CocoKpError], words: str
) -> None:
    sim.faults[call] = lambda _: reply
    with pytest.raises(kind) as refused:
        reader.fetch(KID)
    assert re.search(words, str(refused.value))


@pytest.mark.parametrize("kbs", [0.5], indirect=True)
@pytest.mark.parametrize("call", ["POST auth", "POST attest", GET])
def test_reader_gives_up_when_kbs_does_not_answer_by_deadline(
    sim: SimulatedKbs, reader: Reader, secret: bytes, call: str
) -> None:
    assert secret
    sim.faults[call] = lambda _: Reply(body=b" " * 10_000, delay=0.1)
    with ends(), pytest.raises(UnreachableError):
        reader.fetch(KID)


@pytest.mark.parametrize("kbs", [0.5], indirect=True)
def test_reader_waiting_for_handshake_of_another_thread_gives_up_at_deadline(kbs: Kbs) -> None:
    """An attester may take its time: hardware does."""
    begun, go_on = threading.Event(), threading.Event()

    def attest() -> Session:
        begun.set()
        go_on.wait()
        raise UnreachableError("too late")

    reader = Reader(kbs, attest)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(reader.fetch, KID)
        begun.wait()
        try:
            late = pytest.raises(UnreachableError, match="did not attest this machine in time")
            with ends(), late:
                reader.fetch(KID)
        finally:
            go_on.set()
        assert isinstance(first.exception(), UnreachableError)


def test_reader_retries_broken_read(sim: SimulatedKbs, reader: Reader, secret: bytes) -> None:
    sim.breaks[GET] = 2
    assert reader.fetch(KID) == secret
    assert sim.breaks[GET] == 0


def test_handshake_does_not_retry_attestation(sim: SimulatedKbs, reader: Reader) -> None:
    sim.breaks["POST attest"] = 2
    with pytest.raises(UnreachableError, match=r"POST http://127.0.0.1"):
        reader.fetch(KID)
    assert sim.breaks["POST attest"] == 1


def test_reader_error_shows_neither_token_nor_cookie(
    sim: SimulatedKbs, reader: Reader, secret: bytes
) -> None:
    assert reader.fetch(KID) == secret
    (token,) = sim.tokens

    def echo(request: Request) -> Reply:
        return refusal("PolicyDeny", f"headers were {dict(request.headers)}")

    sim.faults[GET] = echo
    with pytest.raises(RemoteError, match="headers were") as refused:
        reader.fetch(KID)
    assert token not in str(refused.value)
    assert not any(token in str(refused.value) for token in sim.tokens)
    assert not any(session in str(refused.value) for session in sim.sessions)


def test_session_repr_does_not_show_token(reader: Reader, sim: SimulatedKbs, secret: bytes) -> None:
    reader.fetch(KID)
    (token,) = sim.tokens
    assert secret
    assert token not in repr(reader._session)
