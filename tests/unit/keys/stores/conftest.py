"""An environment without anybody's credentials, and servers for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from botocore.retries.standard import ExponentialBackoff

from tests.unit.keys.stores.scripted_aws import ScriptedAws, scripted_aws
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
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedVault]:
    with scripted_vault() as running:
        monkeypatch.setenv("VAULT_ADDR", running.url)
        monkeypatch.setenv("VAULT_TOKEN", TOKEN)
        yield running


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedAws]:
    with scripted_aws() as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        monkeypatch.setenv("AWS_REGION", "eu-central-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the secret access key")
        monkeypatch.setenv("AWS_SESSION_TOKEN", "the session token")
        # the pauses between repeats
        monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0)
        yield running
