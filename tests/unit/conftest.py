"""A simulated KBS, and our side of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coco_kp.kbs.admin import Admin
from coco_kp.kbs.admin_token import ReadyToken
from coco_kp.kbs.client import DEADLINE, Kbs
from coco_kp.model.kbs_url import KbsUrl
from tests.sim.kbs import ADMIN_TOKEN, SimulatedKbs, simulated_kbs

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def sim() -> Iterator[SimulatedKbs]:
    with simulated_kbs() as running:
        yield running


@pytest.fixture
def kbs(sim: SimulatedKbs, request: pytest.FixtureRequest) -> Iterator[Kbs]:
    """A client that repeats at once; an indirect parameter is its deadline, in seconds."""
    deadline = getattr(request, "param", DEADLINE)
    with Kbs(KbsUrl.parse(sim.url), deadline=deadline, sleep=lambda _: None) as connected:
        yield connected


@pytest.fixture
def admin(kbs: Kbs) -> Admin:
    return Admin(kbs, ReadyToken.parse(ADMIN_TOKEN, "the test"))


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what was put on the disk, in that order."""
    names: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: names.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
    )
    return names
