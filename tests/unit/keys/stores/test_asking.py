"""Each use of a store or wrapping key is an event, with how it ended."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from coco_kp.errors import CocoKpError
from coco_kp.keys.reference import ExecReference, parse_kek_reference
from coco_kp.keys.resolve import fetch
from coco_kp.observe import observed_by
from tests.support.events import Events

if TYPE_CHECKING:
    from pathlib import Path

    from coco_kp.keys.file_reference import KekReference
    from tests.unit.keys.stores.scripted_aws import ScriptedAws
    from tests.unit.keys.stores.scripted_vault import ScriptedVault

NOBODY = "http://127.0.0.1:1"


def outcomes(reference: KekReference, kind: str) -> list[str | float]:
    seen = Events()
    with observed_by(seen), suppress(CocoKpError):
        fetch(reference)
    return seen.outcomes(kind)


def test_reading_a_key_file_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "kek"
    file.write_bytes(bytes(32))
    assert outcomes(parse_kek_reference(f"file:{file}"), "file") == ["ok"]
    assert outcomes(parse_kek_reference(f"file:{file}.absent"), "file") == ["refused"]


@pytest.mark.parametrize(("code", "outcome"), [(0, "ok"), (1, "refused")])
def test_run_of_a_program_is_reported(code: int, outcome: str) -> None:
    program = f"import sys; sys.stdout.write('k' * 32); sys.exit({code})"
    assert outcomes(ExecReference((sys.executable, "-c", program)), "exec") == [outcome]


def test_request_to_vault_is_reported(
    vault: ScriptedVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = parse_kek_reference("vault:///kv/app?kv=1")
    assert vault.url
    assert outcomes(reference, "vault") == ["refused"]
    monkeypatch.setenv("VAULT_ADDR", NOBODY)
    assert outcomes(reference, "vault") == ["unreachable"]


def test_request_to_aws_is_reported(aws: ScriptedAws, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = parse_kek_reference("aws-sm:///app/kek")
    assert aws.url
    monkeypatch.setenv("AWS_ENDPOINT_URL", NOBODY)
    assert outcomes(reference, "aws") == ["unreachable"]
