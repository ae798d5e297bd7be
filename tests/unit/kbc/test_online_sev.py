"""``online_sev``: a guest asks simple-kbs, and believes only the answer to its own question."""

from __future__ import annotations

import json
import os
import uuid
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest

from coco_kp.errors import InputError, IntegrityError, KekError, RemoteError, UnreachableError
from coco_kp.kbc.injected_secret import InjectedSecrets
from coco_kp.kbc.kbcs import Kbc
from coco_kp.kbc.online_sev import OnlineSevKbc, online_sev_kbc
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.host_port import HostPort
from coco_kp.model.sev_secret import CONNECTION_GUID, SevConnection
from tests.sim.simple_kbs import SimulatedSimpleKbs, simulated_simple_kbs
from tests.support.patience import ends
from tests.support.wrapping import KID, PATH, SECRET, Wrapping

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def sim(wrapping: Wrapping) -> Iterator[SimulatedSimpleKbs]:
    with simulated_simple_kbs() as running:
        running.secrets[PATH] = wrapping.raw
        yield running


def connection(file: Path, sim: SimulatedSimpleKbs) -> Path:
    document = {"client_id": sim.client_id, "key": b64encode(sim.key).decode()}
    file.write_text(json.dumps(document))
    return file


@pytest.fixture
def file(sim: SimulatedSimpleKbs, tmp_path: Path) -> Path:
    return connection(tmp_path / "connection.json", sim)


@pytest.fixture
def kbc(sim: SimulatedSimpleKbs, file: Path) -> Kbc:
    return online_sev_kbc(str(sim.address), connection_file=file)


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_online_sev_requests_key_and_opens_packet(
    sim: SimulatedSimpleKbs, kbc: Kbc, wrapping: Wrapping, algorithm: Algorithm
) -> None:
    assert kbc.unwrap(wrapping.packet(algorithm)) == SECRET
    (request,) = sim.requests
    guid = request[2].pop(1)
    assert request == {1: sim.client_id, 2: {2: "binary", 3: "key", 4: PATH}}
    assert uuid.UUID(guid).version == 4


def test_online_sev_ignores_proxy_from_environment(
    kbc: Kbc, wrapping: Wrapping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC would take one from the environment, for loopback too."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert kbc.unwrap(wrapping.packet()) == SECRET


def test_online_sev_sends_new_guid_with_each_request(
    sim: SimulatedSimpleKbs, kbc: Kbc, wrapping: Wrapping
) -> None:
    for _ in range(3):
        kbc.unwrap(wrapping.packet())
    assert len({request[2][1] for request in sim.requests}) == 3


def test_online_sev_refuses_answer_to_another_request(
    sim: SimulatedSimpleKbs, kbc: Kbc, wrapping: Wrapping
) -> None:
    """It decrypts: the connection's key is the same for the guest's whole life."""
    sim.change = lambda plain: plain[:16] + str(uuid.uuid4()).encode() + plain[52:]
    with pytest.raises(IntegrityError, match="answered another request"):
        kbc.unwrap(wrapping.packet())


@pytest.mark.parametrize("answer", [("", ""), ("!", "!"), ("AAAA", "AAAAAAAAAAAAAAAA")])
def test_online_sev_refuses_unreadable_answer(
    sim: SimulatedSimpleKbs, kbc: Kbc, wrapping: Wrapping, answer: tuple[str, str]
) -> None:
    sim.answer = answer
    with pytest.raises(RemoteError, match="cannot be read"):
        kbc.unwrap(wrapping.packet())


def test_online_sev_refuses_answer_encrypted_with_another_key(
    sim: SimulatedSimpleKbs, kbc: Kbc, wrapping: Wrapping
) -> None:
    sim.key = os.urandom(32)
    with pytest.raises(IntegrityError, match="does not decrypt with the connection's key"):
        kbc.unwrap(wrapping.packet())


def test_online_sev_refuses_answer_with_another_layout(
    sim: SimulatedSimpleKbs, kbc: Kbc, wrapping: Wrapping
) -> None:
    sim.change = lambda plain: plain[:-1]
    with pytest.raises(RemoteError, match="ends early"):
        kbc.unwrap(wrapping.packet())


def test_online_sev_refuses_oversized_answer(
    sim: SimulatedSimpleKbs, kbc: Kbc, wrapping: Wrapping
) -> None:
    sim.answer = ("A" * 100_000, "AAAA")
    with pytest.raises(RemoteError, match="RESOURCE_EXHAUSTED"):
        kbc.unwrap(wrapping.packet())


def test_online_sev_refuses_secret_that_is_not_a_key(
    sim: SimulatedSimpleKbs, kbc: Kbc, wrapping: Wrapping
) -> None:
    sim.secrets[PATH] = b"sixteen bytes..."
    with pytest.raises(KekError, match=f"key '{KID}'"):
        kbc.unwrap(wrapping.packet())


def test_online_sev_reports_key_refused_by_simple_kbs(
    sim: SimulatedSimpleKbs, kbc: Kbc, wrapping: Wrapping
) -> None:
    sim.secrets.clear()
    with pytest.raises(RemoteError, match=f"refused to hand out '{KID}'") as refused:
        kbc.unwrap(wrapping.packet())
    assert "ids are exact" in refused.value.hint


def test_online_sev_reports_connection_unknown_to_simple_kbs(
    sim: SimulatedSimpleKbs, kbc: Kbc, wrapping: Wrapping
) -> None:
    sim.client_id = str(uuid.uuid4())
    with pytest.raises(RemoteError) as refused:
        kbc.unwrap(wrapping.packet())
    assert "does not know the injected connection" in refused.value.hint


def test_online_sev_reports_unreachable_simple_kbs(file: Path, wrapping: Wrapping) -> None:
    kbc = online_sev_kbc("127.0.0.1:1", connection_file=file)
    with pytest.raises(UnreachableError, match=r"at 127.0.0.1:1 did not answer") as refused:
        kbc.unwrap(wrapping.packet())
    assert refused.value.hint == "check host and port, and whether simple-kbs runs"


def test_online_sev_gives_up_when_simple_kbs_does_not_answer_by_deadline(
    sim: SimulatedSimpleKbs, wrapping: Wrapping
) -> None:
    sim.silent = True
    address = HostPort.parse(sim.address, "simple-kbs")
    kbc = OnlineSevKbc(address, SevConnection(sim.client_id, sim.key), deadline=0.3)
    with ends(), pytest.raises(UnreachableError):
        kbc.unwrap(wrapping.packet())


def test_online_sev_deletes_injected_connection_and_keeps_serving(
    sim: SimulatedSimpleKbs, wrapping: Wrapping, tmp_path: Path
) -> None:
    file = connection(tmp_path / CONNECTION_GUID, sim)
    secrets = InjectedSecrets(tmp_path)
    for _ in range(2):
        assert online_sev_kbc(str(sim.address), secrets=secrets).unwrap(wrapping.packet()) == SECRET
        assert not file.exists()


def test_online_sev_requires_simple_kbs_address(file: Path) -> None:
    with pytest.raises(InputError, match="needs the address of simple-kbs"):
        online_sev_kbc("", connection_file=file)


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "127.0.0.1", "unix:///run/x"])
def test_online_sev_refuses_address_that_is_not_host_and_port(file: Path, uri: str) -> None:
    with pytest.raises(InputError, match="is not host:port"):
        online_sev_kbc(uri, connection_file=file)
