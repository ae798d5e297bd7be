"""Whether a provider could serve now, as its checks say."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from coco_kp.errors import RemoteError
from coco_kp.kbs.admin import Admin
from coco_kp.kbs.client import Kbs
from coco_kp.kbs.record import Record
from coco_kp.keys.reference import parse_kek_reference
from coco_kp.keys.register import Registrar
from coco_kp.keys.resolve import FetchedKek
from coco_kp.model.kbs_url import KbsUrl
from coco_kp.observe import observed_by
from coco_kp.provider import Provider
from coco_kp.service.readiness import Readiness, checks_of
from tests.sim.kbs import simulated_kbs
from tests.support.events import Events
from tests.support.patience import PATIENCE, wait_until


class Trouble:
    """A check that fails while there is trouble."""

    def __init__(self) -> None:
        self.why = ""

    def __call__(self) -> None:
        if self.why:
            raise RemoteError(self.why)


def test_provider_is_not_ready_before_the_first_round_and_then_as_its_checks_say() -> None:
    kbs, key = Trouble(), Trouble()
    readiness = Readiness({"KBS": kbs, "key": key})
    assert not readiness.ready
    seen = Events()
    with observed_by(seen):
        for why in ("", "", "no answer", "no other answer", ""):
            kbs.why = why
            readiness.look()
            assert readiness.ready is (not why)
    assert seen == [
        ("readiness", {"outcome": "ready"}),
        ("readiness", {"outcome": "not ready", "message": "KBS: no answer"}),
        ("readiness", {"outcome": "ready"}),
    ]


def test_check_for_which_there_is_no_thread_fails_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It ended the thread that tries, and what was known last stayed for good."""
    readiness = Readiness({"KBS": Trouble()})
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        assert not readiness.look()
    assert readiness.look()


def no_thread(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_check_that_hangs_is_a_failure_and_is_not_started_again() -> None:
    go_on, runs = threading.Event(), []

    def hang() -> None:
        runs.append(1)
        go_on.wait(PATIENCE)

    readiness = Readiness({"key": hang}, patience=0.05)
    for _ in range(3):
        assert not readiness.look()
    assert len(runs) == 1
    go_on.set()
    wait_until(readiness.look)


def test_bug_in_a_check_is_a_failure() -> None:
    readiness = Readiness({"key": lambda: 1 / 0})
    seen = Events()
    with observed_by(seen):
        assert not readiness.look()
    assert seen[0][1]["message"] == "key: ZeroDivisionError"


def test_provider_that_needs_nothing_is_ready() -> None:
    readiness = Readiness(checks_of(Provider()))
    assert readiness.look()


def test_readiness_follows_key_files_and_folders(tmp_path: Path) -> None:
    folder, kek, keys = tmp_path / "keys", tmp_path / "kek", tmp_path / "keys.json"
    provider = Provider(
        key_dir=folder,
        source=FetchedKek(parse_kek_reference(f"file:{kek}")),
        keys_file=keys,
    )
    readiness = Readiness(checks_of(provider))
    seen = Events()
    with observed_by(seen):
        readiness.look()
        folder.mkdir()
        readiness.look()
        kek.write_bytes(bytes(32))
        assert not readiness.look()
        keys.write_text("{}")
        assert readiness.look()
    states = [str(fields.get("message", "ready")) for name, fields in seen if name == "readiness"]
    names = [[part.split(":")[0] for part in state.split("; ")] for state in states]
    assert names == [
        ["key directory", "key", "keys file"],
        ["key", "keys file"],
        ["keys file"],
        ["ready"],
    ]


def test_readiness_follows_a_store(tmp_path: Path) -> None:
    kek = tmp_path / "kek"
    provider = Provider(source=FetchedKek(parse_kek_reference(f"exec:/bin/cat {kek}")))
    readiness = Readiness(checks_of(provider))
    assert not readiness.look()
    kek.write_bytes(bytes(32))
    assert readiness.look()


def test_readiness_follows_a_kbs(tmp_path: Path) -> None:
    with simulated_kbs() as sim:
        kbs = Kbs(KbsUrl.parse(sim.url))
        provider = Provider(registrar=Registrar(Admin(kbs, None), Record(tmp_path)))
        readiness = Readiness(checks_of(provider))
        assert readiness.look()
    assert not readiness.look()


@pytest.mark.parametrize("uri", ["vault:///kv/app", "aws-sm:///app/kek"])
def test_checks_of_a_store_ask_nobody_before_they_are_run(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VAULT_ADDR", raising=False)
    assert set(checks_of(Provider(source=FetchedKek(parse_kek_reference(uri))))) == {"key"}
