"""For every folder of tests: commands, and real peers, each started for one test alone."""

from __future__ import annotations

import io
import os
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from coco_kp.cli.main import run
from tests.peers import moto as moto_module
from tests.peers.aws import RunningAws
from tests.peers.local_kms import local_kms as running_local_kms
from tests.peers.registry import REGISTRIES
from tests.peers.skipping import pytest_runtest_call, pytest_runtest_setup
from tests.peers.skopeo import CLIENTS, Skopeo, find_skopeo
from tests.peers.softhsm import SoftHsm, make_token
from tests.peers.sources import ON_REQUEST, SOURCES
from tests.sim.registry import Registry, serve
from tests.sim.vault import SimulatedVault, simulated_vault
from tests.support.command import Command, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


__all__ = ["pytest_runtest_call", "pytest_runtest_setup"]

# Time is bounded so that a hang fails, and a slow machine does not.
settings.register_profile(
    "coco-kp", deadline=timedelta(seconds=5), suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("coco-kp")


def pytest_report_header() -> list[str]:
    """Say which peers the tests talk to, in which version: not all are pinned."""
    had = [source.title for source in (*SOURCES, *ON_REQUEST) if source.cached]
    left_out = [source.name for source in ON_REQUEST if not source.cached]
    return [
        f"peers: {', '.join(had) or 'none yet'}",
        *(f"without {name}, which `make peers PEERS={name}` builds" for name in left_out),
    ]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command in this process, given ``stdin``; ``ok=False`` where it may fail."""

    def run_it(*arguments: object, ok: bool = True, stdin: str = "") -> Outcome:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), newline=""))
            code = run([str(argument) for argument in arguments])
        outcome = Outcome(code, *capsys.readouterr())
        assert code == 0 or not ok, outcome.err
        return outcome

    return run_it


@pytest.fixture(scope="session")
def skopeo_program() -> Path:
    """The path of a skopeo that knows key providers."""
    return find_skopeo()


@pytest.fixture
def skopeo(request: pytest.FixtureRequest, tmp_path: Path) -> Skopeo:
    """A skopeo that nothing of the machine's own configuration reaches; Debian 13's.

    Under ``with_each_client`` it is each of `CLIENTS`.
    """
    home = tmp_path / "skopeo"
    home.mkdir()
    return Skopeo(CLIENTS[getattr(request, "param", "skopeo")](), home)


@pytest.fixture(params=REGISTRIES)
def registry_address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The ``host:port`` of an empty registry, over plain HTTP; once for each kind of registry."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with REGISTRIES[request.param](folder) as address:
        yield address


@pytest.fixture(scope="session")
def first_softhsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    """What each test gets a copy of: making RSA keys takes a second."""
    return make_token(tmp_path_factory.mktemp("softhsm") / "first")


@pytest.fixture
def softhsm(first_softhsm: SoftHsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    """A token with a master key, a KEK and a pair of RSA keys; processes find it from here on."""
    token = first_softhsm.copy(tmp_path / "softhsm")
    for name, value in token.environment.items():
        monkeypatch.setenv(name, value)
    return token


@pytest.fixture
def local_kms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningAws]:
    """An emulator of AWS KMS, and nobody else's AWS in reach."""
    with running_local_kms(tmp_path / "local-kms") as running:
        _surround_with(running, monkeypatch)
        yield running


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAws]:
    """What the fixture ``moto`` empties for each test."""
    with moto_module.moto(tmp_path_factory.mktemp("moto") / "server") as running:
        yield running


@pytest.fixture
def moto(moto_server: RunningAws, monkeypatch: pytest.MonkeyPatch) -> RunningAws:
    """An emulator of AWS KMS and Secrets Manager, and nobody else's AWS in reach."""
    running = moto_module.emptied(moto_server)
    _surround_with(running, monkeypatch)
    return running


@pytest.fixture(params=["local_kms", "moto"])
def kms(request: pytest.FixtureRequest) -> RunningAws:
    """An AWS KMS; once for each emulator."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, RunningAws)
    return found


@pytest.fixture
def registry() -> Registry:
    """A simulated registry, empty and open to all."""
    return Registry()


@pytest.fixture
def host(registry: Registry) -> Iterator[str]:
    """Where the simulated registry answers, over plain HTTP."""
    with serve(registry) as address:
        yield address


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedVault]:
    """A simulated Vault, and nobody else's in reach."""
    for name in [name for name in os.environ if name.startswith("VAULT_")]:
        monkeypatch.delenv(name)
    with simulated_vault() as running:
        monkeypatch.setenv("VAULT_ADDR", running.url)
        yield running


def _surround_with(running: RunningAws, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
