"""``cc``: the KEK comes from a KBS that attested this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coco_kp.errors import InputError, KekError, RefusedError, RemoteError
from coco_kp.kbc import KbcSettings, open_kbc
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.kbc_spec import KbcSpec, parse_kbc_spec
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
def spec(sim: SimulatedKbs) -> KbcSpec:
    return parse_kbc_spec(f"cc_kbc::{sim.url}")


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_cc_opens_packet_with_key_from_kbs(
    spec: KbcSpec, wrapping: Wrapping, algorithm: Algorithm
) -> None:
    assert open_kbc(spec, KbcSettings()).unwrap(wrapping.packet(algorithm)) == SECRET


def test_cc_shares_one_kbs_session_among_layers(
    sim: SimulatedKbs, spec: KbcSpec, wrapping: Wrapping
) -> None:
    for _ in range(4):
        assert open_kbc(spec, KbcSettings()).unwrap(wrapping.packet()) == SECRET
    assert sim.calls("POST attest") == 1


def test_cc_asks_the_kbs_named_in_each_call(
    sim: SimulatedKbs, spec: KbcSpec, wrapping: Wrapping
) -> None:
    """Upstream keeps the first address for ever (docs/protocols.md 4)."""
    assert open_kbc(spec, KbcSettings()).unwrap(wrapping.packet()) == SECRET
    other = Wrapping(bytes(32))
    with simulated_kbs() as second:
        second.resources[PATH] = other.raw
        named = parse_kbc_spec(f"cc_kbc::{second.url}")
        assert open_kbc(named, KbcSettings()).unwrap(other.packet()) == SECRET
    assert open_kbc(spec, KbcSettings()).unwrap(wrapping.packet()) == SECRET
    assert sim.calls(f"GET resource/{PATH}") == 2


def test_cc_refuses_kid_that_names_another_kbs(
    sim: SimulatedKbs, spec: KbcSpec, wrapping: Wrapping
) -> None:
    kbc = open_kbc(spec, KbcSettings())
    here = sim.url.removeprefix("http://")
    assert kbc.unwrap(wrapping.packet(kid=f"kbs://{here}/{PATH}")) == SECRET
    with pytest.raises(InputError, match="is kept by another KBS than") as refused:
        kbc.unwrap(wrapping.packet(kid=f"kbs://kbs.example/{PATH}"))
    assert refused.value.hint == "name that one: cc_kbc::https://kbs.example"
    assert sim.calls(f"GET resource/{PATH}") == 1


def test_cc_passes_plugin_and_query_of_kid_to_kbs(
    sim: SimulatedKbs, spec: KbcSpec, wrapping: Wrapping
) -> None:
    sim.faults["GET pkcs11/a"] = lambda _: json_reply({}, 404)
    with pytest.raises(RemoteError, match="HTTP 404"):
        open_kbc(spec, KbcSettings()).unwrap(wrapping.packet(kid="kbs+pkcs11:///a?x=y"))
    assert sim.requests[-1].query == {"x": ["y"]}


def test_cc_refuses_resource_that_is_not_a_key(
    sim: SimulatedKbs, spec: KbcSpec, wrapping: Wrapping
) -> None:
    sim.resources[PATH] = b"AAAA"
    with pytest.raises(KekError, match="is not a key") as refused:
        open_kbc(spec, KbcSettings()).unwrap(wrapping.packet())
    assert "AAAA" not in str(refused.value)


def test_cc_calls_empty_resource_no_key(
    sim: SimulatedKbs, spec: KbcSpec, wrapping: Wrapping
) -> None:
    sim.resources[PATH] = b""
    with pytest.raises(KekError, match="is not a key: expected .* found 0"):
        open_kbc(spec, KbcSettings()).unwrap(wrapping.packet())


def test_cc_fails_when_kbs_holds_wrong_key(
    sim: SimulatedKbs, spec: KbcSpec, wrapping: Wrapping
) -> None:
    sim.resources[PATH] = bytes(32)
    with pytest.raises(KekError):
        open_kbc(spec, KbcSettings()).unwrap(wrapping.packet())


@pytest.mark.parametrize("text", ["cc", "cc::null"])
def test_cc_requires_kbs_address(text: str) -> None:
    with pytest.raises(InputError, match="needs the address of the KBS"):
        open_kbc(parse_kbc_spec(text), KbcSettings())


def test_cc_requires_kbs_address_to_be_url() -> None:
    with pytest.raises(InputError, match="does not begin with https"):
        open_kbc(parse_kbc_spec("cc::kbs.example:8080"), KbcSettings())


def test_cc_refuses_plain_http_beyond_loopback(wrapping: Wrapping) -> None:
    kbc = open_kbc(parse_kbc_spec("cc::http://192.0.2.1"), KbcSettings())
    with pytest.raises(RefusedError, match="plain http"):
        kbc.unwrap(wrapping.packet())


def test_cc_refuses_unknown_attester(spec: KbcSpec) -> None:
    with pytest.raises(InputError, match="attester 'other' is unknown"):
        open_kbc(spec, KbcSettings(attester="other"))
