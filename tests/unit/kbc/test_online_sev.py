"""``online_sev``: a guest asks simple-kbs, and believes only the answer to its own question."""

from __future__ import annotations

import json
import os
import uuid
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest

from coco_kp.errors import (
    CocoKpError,
    InputError,
    IntegrityError,
    KekError,
    RemoteError,
    UnreachableError,
)
from coco_kp.kbc.injected_secret import InjectedSecrets
from coco_kp.kbc.kbcs import Kbc, Kbcs
from coco_kp.kbc.online_sev import OnlineSevKbc, online_sev_kbc
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.host_port import HostPort
from coco_kp.model.kbc_spec import KbcSpec
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


def with_guid_of_another_request(plain: bytes) -> bytes:
    return plain[:16] + str(uuid.uuid4()).encode() + plain[52:]


@pytest.mark.parametrize(
    ("changed", "kind", "words"),
    [
        # It decrypts: the connection's key is the same for the guest's whole life.
        ({"change": with_guid_of_another_request}, IntegrityError, "answered another request"),
        ({"change": lambda plain: plain[:-1]}, RemoteError, "ends early"),
        ({"answer": ("", "")}, RemoteError, "cannot be read"),
        ({"answer": ("!", "!")}, RemoteError, "cannot be read"),
        ({"answer": ("AAAA", "AAAAAAAAAAAAAAAA")}, RemoteError, "cannot be read"),
        ({"answer": ("A" * 100_000, "AAAA")}, RemoteError, "RESOURCE_EXHAUSTED"),
        ({"key": os.urandom(32)}, IntegrityError, "does not decrypt with the connection's key"),
        ({"secrets": {PATH: b"sixteen bytes..."}}, KekError, f"key '{KID}'"),
        ({"secrets": {}}, RemoteError, f"refused to hand out '{KID}'.*hint: .*ids are exact"),
        (
            {"client_id": str(uuid.uuid4())},
            RemoteError,
            "hint: .*does not know the injected connection",
        ),
    ],
)
def test_online_sev_refuses_what_simple_kbs_answers(
    sim: SimulatedSimpleKbs,
    kbc: Kbc,
    wrapping: Wrapping,
    changed: dict[str, object],
    kind: type[CocoKpError],
    words: str,
) -> None:
    for name, value in changed.items():
        setattr(sim, name, value)
    with pytest.raises(kind, match=words):
        kbc.unwrap(wrapping.packet())


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
    connection = SevConnection(sim.client_id, sim.key)
    kbc = OnlineSevKbc(address, lambda: connection, deadline=0.3)
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


def test_online_sev_takes_the_connection_of_its_guest_once_for_all(
    sim: SimulatedSimpleKbs,
    wrapping: Wrapping,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever opens KBCs anew, or names another address, still has what was deleted."""
    connection(tmp_path / CONNECTION_GUID, sim)
    monkeypatch.setattr("coco_kp.kbc.online_sev.THIS_GUESTS", InjectedSecrets(tmp_path))
    for address in (sim.address, sim.address, sim.address.replace("127.0.0.1", "localhost")):
        with Kbcs() as kbcs:
            assert kbcs.unwrap(KbcSpec("online_sev", address), wrapping.packet()) == SECRET


def test_online_sev_heeds_a_connection_file_that_was_replaced(
    sim: SimulatedSimpleKbs, file: Path, kbc: Kbc, wrapping: Wrapping
) -> None:
    file.write_text(json.dumps({"client_id": "another", "key": b64encode(bytes(32)).decode()}))
    with pytest.raises(CocoKpError):
        kbc.unwrap(wrapping.packet())
    connection(file, sim)
    assert kbc.unwrap(wrapping.packet()) == SECRET


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("", "needs the address of simple-kbs"),
        *(
            (uri, "is not host:port")
            for uri in ("http://127.0.0.1:1", "127.0.0.1", "unix:///run/x")
        ),
    ],
)
def test_online_sev_requires_simple_kbs_address(file: Path, uri: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        online_sev_kbc(uri, connection_file=file)
