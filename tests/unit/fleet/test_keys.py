"""The keys of a plan, each of which is the same one for all who work on it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coco_kp.errors import KekError
from coco_kp.fleet.keys import KeyRing
from coco_kp.fleet.lines import PlanLine
from coco_kp.model.digest import Digest
from coco_kp.model.reference import RegistryReference


@pytest.mark.parametrize("changed", ["new", "old"])
def test_key_ring_takes_no_other_key_than_where_the_fleet_was_started(
    tmp_path: Path, changed: str
) -> None:
    """Workers that had done an earlier plan went on with the old key which that one named."""
    for name in ("new", "old"):
        (tmp_path / name).write_bytes(os.urandom(32))
    line = PlanLine(
        "rewrap",
        RegistryReference("registry.example", "team/app", "1"),
        Digest.of(b"a manifest"),
        keys=(f"keyid=kbs:///default/key/app,keypath={tmp_path}/new",),
        old_keys=(f"keypath={tmp_path}/old",),
    )
    started = KeyRing(lambda _: None)
    started.of(line)
    meant = started.fingerprints(line)
    assert len(KeyRing(lambda _: None).of(line, meant).openers) == 2
    (tmp_path / changed).write_bytes(os.urandom(32))
    with pytest.raises(KekError, match=f"{changed}' is not the same here"):
        KeyRing(lambda _: None).of(line, meant)
