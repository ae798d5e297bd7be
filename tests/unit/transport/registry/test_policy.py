"""``policy.json``: which requirements decide, and what becomes of the image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coco_kp.errors import InputError, RefusedError
from coco_kp.model.reference import RegistryReference
from coco_kp.transport.registry.policy import check_policy
from tests.support.refusing import refuse

APP = RegistryReference("r.h.example:5000", "team/app", "v1")
ACCEPT = [{"type": "insecureAcceptAnything"}]
REJECT = [{"type": "reject"}]
SIGNED = [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/key"}]
SIGSTORE = [{"type": "sigstoreSigned", "keyPath": "/key"}]


@pytest.fixture
def file(home: Path) -> Path:
    path = home / ".config" / "containers" / "policy.json"
    path.parent.mkdir(parents=True)
    return path


def test_no_policy_says_nothing(system: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_policy(APP, system)
    assert not caplog.text


@pytest.mark.parametrize(
    "scope",
    [
        "r.h.example:5000/team/app:v1",
        "r.h.example:5000/team/app",
        "r.h.example:5000/team",
        "r.h.example:5000",
        "*.h.example:5000",
        "",
    ],
)
def test_closest_scope_of_docker_decides(file: Path, scope: str) -> None:
    scopes = {scope: REJECT, "other.example": ACCEPT, "r.h.example:5000/te": ACCEPT}
    file.write_text(json.dumps({"default": ACCEPT, "transports": {"docker": scopes}}))
    with pytest.raises(RefusedError, match=r"is rejected by the policy '.*policy\.json'"):
        check_policy(APP)
    scopes["r.h.example:5000/team/app:v1"] = ACCEPT
    file.write_text(json.dumps({"default": REJECT, "transports": {"docker": scopes}}))
    check_policy(APP)


def test_default_decides_without_a_scope(file: Path, system: Path) -> None:
    file.write_text(json.dumps({"default": ACCEPT}))
    (system / "policy.json").write_text(json.dumps({"default": REJECT}))
    check_policy(APP, system)
    file.unlink()
    with pytest.raises(RefusedError, match="rejected"):
        check_policy(APP, system)


@pytest.mark.parametrize("needed", [SIGNED, SIGSTORE, ACCEPT + SIGNED])
def test_signature_that_is_not_checked_is_warned_of(
    file: Path, caplog: pytest.LogCaptureFixture, needed: list[object]
) -> None:
    file.write_text(json.dumps({"default": needed}))
    check_policy(APP)
    assert f"the signature that '{file}' demands of {APP} is not checked" in caplog.text


@pytest.mark.parametrize(
    "document",
    [[], {}, {"default": []}, {"default": [{}]}, {"default": ACCEPT, "transports": []}],
)
def test_malformed_policy_is_named(file: Path, document: object) -> None:
    file.write_text(json.dumps(document))
    with pytest.raises(InputError, match="policy"):
        check_policy(APP)


def test_policy_that_cannot_be_looked_at_is_not_taken_for_none(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From Python 3.14 on, ``exists()`` would take every error for absence."""
    file.write_text(json.dumps({"default": REJECT}))
    refuse(monkeypatch, "stat", lambda path: path == str(file))
    with pytest.raises(RefusedError, match="rejected by the policy"):
        check_policy(APP)
