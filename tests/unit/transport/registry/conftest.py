"""A simulated registry, and a machine whose user has no files of credentials or certificates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coco_kp.model.reference import RegistryReference
from coco_kp.transport.registry import configuration
from coco_kp.transport.registry.session import Session
from coco_kp.transport.registry.sink import RegistrySink
from coco_kp.transport.registry.source import RegistrySource
from tests.sim.registry import Registry, TokenServer, serve_tokens
from tests.support.access import PLAIN, REPOSITORY
from tests.support.pauses import Pauses


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture(autouse=True)
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder of registries.conf, which is not this machine's."""
    folder = tmp_path / "etc"
    folder.mkdir()
    monkeypatch.setattr(configuration, "_SYSTEM", folder)
    monkeypatch.delenv("CONTAINERS_REGISTRIES_CONF", raising=False)
    return folder


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def session(pauses: Pauses) -> Iterator[Session]:
    with Session(sleep=pauses.append, clock=pauses.clock) as opened:
        yield opened


@pytest.fixture
def tokens(registry: Registry) -> Iterator[TokenServer]:
    """The token server that the registry sends to from here on."""
    registry.tokens = TokenServer()
    with serve_tokens(registry.tokens):
        yield registry.tokens


@pytest.fixture
def image_name(host: str) -> RegistryReference:
    return RegistryReference(host, REPOSITORY, "v1")


@pytest.fixture
def source(image_name: RegistryReference, session: Session) -> Iterator[RegistrySource]:
    with RegistrySource(image_name, PLAIN, session) as opened:
        yield opened


@pytest.fixture
def sink(image_name: RegistryReference, session: Session) -> Iterator[RegistrySink]:
    with RegistrySink(image_name, PLAIN, session) as opened:
        yield opened
