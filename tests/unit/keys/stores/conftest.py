"""An environment without anybody's credentials, and servers for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from coco_kp.keys import stores
from tests.unit.keys.stores.scripted_vault import TOKEN, ScriptedVault, scripted_vault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("VAULT_", "AWS_", "TRANSIT_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait half a second where users wait thirty."""
    monkeypatch.setattr(stores, "TIMEOUT", 0.5)


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedVault]:
    with scripted_vault() as running:
        monkeypatch.setenv("VAULT_ADDR", running.url)
        monkeypatch.setenv("VAULT_TOKEN", TOKEN)
        yield running
