"""The record of registered keys: one entry for each key ID of each KBS, one holder at a time."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from coco_kp.deadline import within
from coco_kp.errors import InputError, UnreachableError
from coco_kp.kbs.record import Record, default_folder
from coco_kp.model.kbs_url import KbsUrl
from coco_kp.model.resource_uri import parse_key_id
from tests.support.patience import PATIENCE
from tests.support.refusing import refuse

if TYPE_CHECKING:
    from pathlib import Path

KBS = KbsUrl.parse("https://kbs.example")
KID = parse_key_id("kbs:///default/key/1")
FINGERPRINT = "sha256:0123456789abcdef"


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "new" / "registered")


def test_record_entry_returns_fingerprint_last_written(record: Record) -> None:
    with record.entry(KBS, KID) as entry:
        assert entry.fingerprint() == ""
        entry.write("sha256:a longer one that is written over")
        entry.write(FINGERPRINT)
        assert entry.fingerprint() == FINGERPRINT
    with record.entry(KBS, KID) as entry:
        assert entry.fingerprint() == FINGERPRINT


@pytest.mark.parametrize(
    ("kid", "other_kbs", "other_kid", "same"),
    [
        ("kbs:///default/key/1", "https://kbs.example/team", "kbs:///default/key/1", False),
        ("kbs:///default/key/1", "https://kbs.example", "kbs:///default/key/2", False),
        ("kbs:///default/key/1", "https://kbs.example", "kbs://kbs.example/default/key/1", True),
        ("kbs+pkcs11:///resource/a/b/c", "https://kbs.example", "kbs+x:///resource/a/b/c", False),
    ],
)
def test_record_keeps_entry_for_each_kbs_and_key_id_without_its_address(
    record: Record, kid: str, other_kbs: str, other_kid: str, same: bool
) -> None:
    with record.entry(KBS, parse_key_id(kid)) as entry:
        entry.write(FINGERPRINT)
    with record.entry(KbsUrl.parse(other_kbs), parse_key_id(other_kid)) as entry:
        assert entry.fingerprint() == (FINGERPRINT if same else "")


def test_record_entry_names_key_id_without_address(record: Record) -> None:
    with record.entry(KBS, parse_key_id("kbs+pkcs11://kbs.example/resource/a/b/c")) as entry:
        entry.write(FINGERPRINT)
    (file,) = record.folder.iterdir()
    assert json.loads(file.read_text())["kid"] == "kbs+pkcs11:///resource/a/b/c"


def test_record_is_readable_by_owner_only(record: Record) -> None:
    with record.entry(KBS, KID):
        (file,) = record.folder.iterdir()
    assert record.folder.stat().st_mode & 0o777 == 0o700
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", [b"{", b"[]", b"{}", b'{"fingerprint":""}', b"\xff" * 9000])
def test_damaged_record_entry_equals_no_fingerprint(record: Record, damage: bytes) -> None:
    with record.entry(KBS, KID):
        (file,) = record.folder.iterdir()
        file.write_bytes(damage)
    with record.entry(KBS, KID) as entry:
        assert entry.fingerprint().startswith("unknown: ")


def test_record_entry_that_cannot_be_read_equals_no_fingerprint_and_says_why(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    why = "unknown: cannot read .*: input/output error"
    with record.entry(KBS, KID) as entry:
        entry.write(FINGERPRINT)
        monkeypatch.setattr(os, "pread", fails)
        assert re.match(why, entry.fingerprint())
    refuse(monkeypatch, "open", lambda path: path.endswith(".json"))
    assert re.match(why, record.fingerprint(KBS, KID))


@pytest.mark.parametrize("broken", ["pwrite", "ftruncate", "fsync"])
def test_record_entry_that_failed_to_be_rewritten_is_not_empty(
    record: Record, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """An empty entry would let the next registration replace the key."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with record.entry(KBS, KID) as entry:
        entry.write("sha256:a longer one, of which the end is left")
        monkeypatch.setattr(os, broken, full)
        with pytest.raises(InputError, match="no space left"):
            entry.write(FINGERPRINT)
    monkeypatch.undo()
    with record.entry(KBS, KID) as entry:
        assert entry.fingerprint() != ""


def test_record_syncs_entry_and_folder_to_disk(record: Record, synced: list[str]) -> None:
    with record.entry(KBS, KID) as entry:
        entry.write(FINGERPRINT)
    (file,) = record.folder.iterdir()
    assert synced == [str(file), str(record.folder)]


def test_record_entry_is_held_by_one_thread_at_a_time(record: Record) -> None:
    inside: list[int] = []
    overlaps: list[int] = []

    def hold(number: int) -> None:
        with record.entry(KBS, KID):
            overlaps.extend(inside)
            inside.append(number)
            time.sleep(0.02)
            inside.remove(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hold, range(8)))
    assert not overlaps


def hold_in_another_process(record: Record, held: threading.Event, done: threading.Event) -> None:
    with record.entry(KBS, KID):
        held.set()
        done.wait()


def test_record_entry_held_by_another_process_times_out(record: Record) -> None:
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    process = context.Process(target=hold_in_another_process, args=(record, held, done))
    process.start()
    try:
        assert held.wait(PATIENCE)
        refused = pytest.raises(UnreachableError, match="another registration of 'kbs:///default")
        with refused, within(0.1), record.entry(KBS, KID):
            pass
        with record.entry(KBS, parse_key_id("kbs:///default/key/2")):
            pass  # another key ID's entry is free
    finally:
        done.set()
        process.join()
    with record.entry(KBS, KID) as entry:
        assert entry.fingerprint() == ""


def test_record_reports_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    refused = pytest.raises(InputError, match="cannot keep the record of registered keys in")
    with refused, Record(tmp_path / "file" / "registered").entry(KBS, KID):
        pass


def test_record_does_not_follow_symlink_out_of_its_folder(record: Record, tmp_path: Path) -> None:
    with record.entry(KBS, KID):
        (file,) = record.folder.iterdir()
    target = tmp_path / "precious"
    target.write_bytes(b"precious")
    file.unlink()
    file.symlink_to(target)
    with pytest.raises(InputError), record.entry(KBS, KID):
        pass
    assert target.read_bytes() == b"precious"


def test_record_default_folder_follows_xdg_state_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder({}) == tmp_path / ".local" / "state" / "coco-kp" / "registered"
    state = tmp_path / "state"
    assert default_folder({"XDG_STATE_HOME": str(state)}) == state / "coco-kp" / "registered"
    assert default_folder({"XDG_STATE_HOME": "state"}) == default_folder({})


def test_record_default_folder_fails_for_user_without_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number with no name."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    with pytest.raises(InputError, match="there is no home") as refused:
        default_folder({})
    assert "XDG_STATE_HOME" in refused.value.hint


def test_record_that_cannot_be_listed_names_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in ("scandir", "listdir"):
        refuse(monkeypatch, call, lambda path: path == str(tmp_path))
    with pytest.raises(InputError, match=f"cannot read the record .*'{tmp_path}': input/output"):
        Record(tmp_path).names(KBS, "fingerprint")
