"""Who speaks for this machine. The agent's REST API is simulated after guest-components' own."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from coco_kp.errors import InputError, RefusedError, RemoteError
from coco_kp.kbs.attester import PLUGINS, Agent, Sample, load
from coco_kp.kbs.rcar import Handshake
from coco_kp.kbs.session import Reader
from coco_kp.kbs.tee_key import TeeKey
from coco_kp.model.resource_uri import parse_key_id
from tests.sim.http_server import Reply, Request, http_server
from tests.sim.kbs import decode, json_reply
from tests.support.plugins import install

if TYPE_CHECKING:
    from coco_kp.kbs.client import Kbs
    from tests.sim.kbs import SimulatedKbs

KID = parse_key_id("kbs:///default/key/1")
PRIVATE = ec.generate_private_key(ec.SECP256R1())
PEM = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


class SimulatedAgent:
    """A guest's API server before an attestation agent that has the sample attester."""

    def __init__(self) -> None:
        self.url = ""
        self.info: dict[str, object] = {"version": "0.1.0", "tee": "sample", "feature": "all"}
        self.token: object = {"token": "a.b.c", "tee_keypair": PEM}
        self.replies: dict[str, Reply] = {}

    def answer(self, request: Request) -> Reply:
        if reply := self.replies.get(request.path):
            return reply
        match request.path:
            case "/info":
                return json_reply(self.info)
            case "/aa/evidence":
                return json_reply({"svn": "1", "report_data": self._bound(request)})
            case "/aa/additional-evidence":
                return json_reply({"nvidia": self._bound(request)})
            case "/aa/token":
                assert request.query == {"token_type": ["kbs"]}
                return json_reply(self.token)
        return Reply(404, body=b"URL NOT FOUND")

    @staticmethod
    def _bound(request: Request) -> str:
        assert request.query["encoding"] == ["base64"]
        (text,) = request.query["runtime_data"]
        assert re.fullmatch(r"[A-Za-z0-9_-]+", text)
        return b64encode(decode(text)).decode()


@pytest.fixture
def agent() -> Iterator[SimulatedAgent]:
    simulated = SimulatedAgent()
    with http_server(simulated.answer) as simulated.url:
        yield simulated


def test_agent_evidence_opens_session(sim: SimulatedKbs, kbs: Kbs, agent: SimulatedAgent) -> None:
    sim.resources["default/key/1"] = b"secret"
    assert Reader(kbs, Handshake(kbs, Agent(agent.url))).fetch(KID) == b"secret"


def test_agent_device_evidence_is_bound_into_primary_evidence(
    sim: SimulatedKbs, kbs: Kbs, agent: SimulatedAgent
) -> None:
    agent.info["additional_tees"] = ["nvidia"]
    sim.resources["default/key/1"] = b"secret"
    assert Reader(kbs, Handshake(kbs, Agent(agent.url))).fetch(KID) == b"secret"
    attest = next(request for request in sim.requests if request.path.endswith("/attest"))
    assert b'"additional_evidence":"{\\"nvidia\\":' in attest.body


def test_agent_without_devices_returns_empty_additional_evidence(agent: SimulatedAgent) -> None:
    assert Agent(agent.url).additional_evidence(bytes(48)) == ""


def test_agent_receives_report_data_with_every_byte_value_intact(agent: SimulatedAgent) -> None:
    digest = bytes(range(0xD0, 0x100))
    evidence = Agent(agent.url).primary_evidence(digest)
    assert evidence == {"svn": "1", "report_data": b64encode(digest).decode()}


def test_agent_token_opens_session_with_its_own_key(
    sim: SimulatedKbs, kbs: Kbs, agent: SimulatedAgent
) -> None:
    sim.tokens["a.b.c"] = TeeKey.from_pem(PEM).public
    sim.resources["default/key/1"] = b"secret"
    assert Reader(kbs, Agent(agent.url).session).fetch(KID) == b"secret"
    assert sim.calls("POST auth") == 0


@pytest.mark.parametrize(
    "token",
    [
        [],
        {},
        {"token": "a.b.c"},
        {"token": "a b", "tee_keypair": PEM},
        {"token": "a.b.c", "tee_keypair": "no PEM"},
        {"token": "a.b.c", "tee_keypair": None},
    ],
)
def test_agent_session_refuses_unusable_token(agent: SimulatedAgent, token: object) -> None:
    agent.token = token
    with pytest.raises(RemoteError) as refused:
        Agent(agent.url).session()
    assert "PRIVATE KEY" not in str(refused.value)


@pytest.mark.parametrize("info", [{}, {"tee": None}, {"tee": ""}, {"tee": 7}])
def test_agent_tee_fails_when_agent_does_not_name_its_tee(
    agent: SimulatedAgent, info: dict[str, object]
) -> None:
    agent.info = info
    with pytest.raises(RemoteError, match="does not say what TEE this is"):
        _ = Agent(agent.url).tee


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(500, body=b"no quote"), r"refused: GET http://127.0.0.1.*/aa/evidence: 500"),
        *(
            (Reply(body=body), "attestation agent's answer to aa/evidence")
            for body in (b"", b"no json", b"[]")
        ),
    ],
)
def test_agent_evidence_fails_when_agent_refuses_or_answers_no_object(
    agent: SimulatedAgent, reply: Reply, words: str
) -> None:
    agent.replies["/aa/evidence"] = reply
    with pytest.raises(RemoteError, match=words):
        Agent(agent.url).primary_evidence(bytes(48))


def test_agent_beyond_loopback_is_refused() -> None:
    with pytest.raises(RefusedError, match="plain http") as refused:
        Agent("http://192.0.2.1:8006").primary_evidence(bytes(48))
    assert refused.value.code == "agent-not-local"
    assert refused.value.fields == {"url": "http://127.0.0.1:8006"}


def test_load_attester_returns_builtin_or_plugin_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(load("sample"), Sample)
    assert isinstance(load("aa", "http://127.0.0.1:1"), Agent)
    install(tmp_path, monkeypatch, PLUGINS.name, f"mine = {__name__}:make_plugin")
    mine = load("mine", "http://agent")
    assert mine.tee == "sample"
    assert mine.additional_evidence(b"") == "http://agent"
    assert mine.primary_evidence(b"")
    with pytest.raises(InputError, match="attester 'other' is unknown") as refused:
        load("other")
    assert refused.value.hint == "installed here: sample, aa, mine"


def test_load_takes_none_of_two_attesters_of_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is evidence about this machine: which package gives it must not be left to chance."""
    install(tmp_path, monkeypatch, PLUGINS.name, f"mine = {__name__}:a", f"mine = {__name__}:b")
    with pytest.raises(InputError, match="2 plug-ins are named attester 'mine'"):
        load("mine")


class Mine(Sample):
    def __init__(self, agent: str) -> None:
        self._agent = agent

    def additional_evidence(self, _report_data: bytes) -> str:
        return self._agent


def make_plugin(agent: str) -> Mine:
    return Mine(agent)


def test_reader_uses_attester_of_plugin(sim: SimulatedKbs, kbs: Kbs) -> None:
    sim.resources["default/key/1"] = os.urandom(32)
    reader = Reader(kbs, Handshake(kbs, make_plugin("")))
    assert reader.fetch(KID) == sim.resources["default/key/1"]
