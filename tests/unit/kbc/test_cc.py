"""``cc``: the KEK comes from a KBS that attested this machine."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from coco_kp.errors import InputError, KekError, RefusedError, RemoteError, UnreachableError
from coco_kp.kbc import cc
from coco_kp.kbc.cc import cc_kbc
from coco_kp.kbc.kbcs import Kbc, Kbcs
from coco_kp.kbs.attester import AGENT_URL, Agent
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.kbc_spec import parse_kbc_spec
from tests.sim.kbs import SimulatedKbs, json_reply, simulated_kbs
from tests.support.wrapping import PATH, SECRET, Wrapping

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def sim(wrapping: Wrapping) -> Iterator[SimulatedKbs]:
    with simulated_kbs() as running:
        running.resources[PATH] = wrapping.raw
        yield running


@pytest.fixture
def kbc(sim: SimulatedKbs) -> Iterator[Kbc]:
    with closing(cc_kbc(sim.url)) as opened:
        yield opened


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_cc_opens_packet_with_key_from_kbs(
    kbc: Kbc, wrapping: Wrapping, algorithm: Algorithm
) -> None:
    assert kbc.unwrap(wrapping.packet(algorithm)) == SECRET


def test_cc_shares_one_kbs_session_among_layers(
    sim: SimulatedKbs, kbc: Kbc, wrapping: Wrapping
) -> None:
    for _ in range(4):
        assert kbc.unwrap(wrapping.packet()) == SECRET
    assert sim.calls("POST attest") == 1


def test_kbcs_ask_the_kbs_named_in_each_call_in_one_session_each(
    sim: SimulatedKbs, wrapping: Wrapping
) -> None:
    """Upstream keeps the first address for ever (docs/protocols.md 4)."""
    other = Wrapping(bytes(32))
    with simulated_kbs() as second, Kbcs() as kbcs:
        second.resources[PATH] = other.raw
        here, there = (parse_kbc_spec(f"cc_kbc::{kbs.url}") for kbs in (sim, second))
        assert kbcs.unwrap(here, wrapping.packet()) == SECRET
        assert kbcs.unwrap(there, other.packet()) == SECRET
        assert kbcs.unwrap(here, wrapping.packet()) == SECRET
    assert sim.calls(f"GET resource/{PATH}") == 2
    assert sim.calls("POST attest") == second.calls("POST attest") == 1


def test_cc_refuses_kid_that_names_another_kbs(
    sim: SimulatedKbs, kbc: Kbc, wrapping: Wrapping
) -> None:
    here = sim.url.removeprefix("http://")
    assert kbc.unwrap(wrapping.packet(kid=f"kbs://{here}/{PATH}")) == SECRET
    with pytest.raises(InputError, match="is kept by another KBS than") as refused:
        kbc.unwrap(wrapping.packet(kid=f"kbs://kbs.example/{PATH}"))
    assert refused.value.hint == "name that one: cc_kbc::https://kbs.example"
    assert sim.calls(f"GET resource/{PATH}") == 1


def test_cc_passes_plugin_and_query_of_kid_to_kbs(
    sim: SimulatedKbs, kbc: Kbc, wrapping: Wrapping
) -> None:
    sim.faults["GET pkcs11/a"] = lambda _: json_reply({}, 404)
    with pytest.raises(RemoteError, match="HTTP 404"):
        kbc.unwrap(wrapping.packet(kid="kbs+pkcs11:///a?x=y"))
    assert sim.requests[-1].query == {"x": ["y"]}


@pytest.mark.parametrize(
    ("resource", "words"),
    [
        (b"AAAA", "is not a key"),
        (b"", "is not a key: expected .* found 0"),
        (bytes(32), "does not open"),
    ],
)
def test_cc_refuses_resource_that_is_not_the_key(
    sim: SimulatedKbs, kbc: Kbc, wrapping: Wrapping, resource: bytes, words: str
) -> None:
    sim.resources[PATH] = resource
    with pytest.raises(KekError, match=words) as refused:
        kbc.unwrap(wrapping.packet())
    assert "AAAA" not in str(refused.value)


@pytest.mark.parametrize(
    ("address", "words"),
    [("", "needs the address of the KBS"), ("kbs.example:8080", "does not begin with https")],
)
def test_cc_requires_kbs_address(address: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        cc_kbc(address)


def test_cc_refuses_plain_http_beyond_loopback() -> None:
    with pytest.raises(RefusedError, match="plain http"):
        cc_kbc("http://192.0.2.1")


def test_cc_refuses_unknown_attester(sim: SimulatedKbs) -> None:
    with pytest.raises(InputError, match="attester 'other' is unknown"):
        cc_kbc(sim.url, attester="other")


def test_cc_with_a_token_of_the_agent_asks_the_agent_at_its_usual_address(
    sim: SimulatedKbs, wrapping: Wrapping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an address it asked nobody: the empty one was taken as it stood."""
    asked: list[str] = []

    def nobody(url: str) -> Agent:
        asked.append(url)
        return Agent("http://127.0.0.1:1")

    monkeypatch.setattr(cc, "Agent", nobody)
    with (
        closing(cc_kbc(sim.url, attester="aa-token")) as kbc,
        pytest.raises(UnreachableError),
    ):
        kbc.unwrap(wrapping.packet())
    assert asked == [AGENT_URL]
