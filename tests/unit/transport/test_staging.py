"""The folder for unfinished files: private, locked, removed by whoever comes next."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

import pytest

from coco_kp.errors import InputError
from coco_kp.transport.staging import PREFIX, Staging


def folders(parent: Path) -> list[Path]:
    return sorted(parent.glob(f"{PREFIX}*"))


def test_staging_folder_is_private_and_removed_on_close(tmp_path: Path) -> None:
    stage = Staging(tmp_path)
    path = stage.write(b"data")
    assert path.read_bytes() == b"data"
    assert folders(tmp_path) == [stage.folder]
    assert stage.folder.stat().st_mode & 0o777 == 0o700
    stage.close()
    stage.close()
    assert folders(tmp_path) == []


def test_staging_removes_abandoned_folder(tmp_path: Path) -> None:
    abandoned = tmp_path / f"{PREFIX}dead"
    (abandoned / "deep").mkdir(parents=True)
    (abandoned / "deep" / "file").write_text("x")
    stage = Staging(tmp_path)
    assert folders(tmp_path) == [stage.folder]
    stage.close()


def test_staging_keeps_folder_in_use(tmp_path: Path) -> None:
    first = Staging(tmp_path)
    second = Staging(tmp_path)
    assert len(folders(tmp_path)) == 2
    first.close()
    second.close()


def test_staging_keeps_folder_of_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{PREFIX}theirs").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    Staging(tmp_path).close()
    assert folders(tmp_path) == [tmp_path / f"{PREFIX}theirs"]


def test_staging_does_not_follow_symlink(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    (tmp_path / f"{PREFIX}link").symlink_to(precious)
    Staging(tmp_path).close()
    assert (precious / "file").exists()


@pytest.mark.parametrize("moment", ["before it is opened", "while it waits for the lock"])
def test_staging_is_recreated_when_another_process_removes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Another process looks around just when the folder is new and not yet locked."""
    victims: list[str] = []
    mkdtemp, flock = tempfile.mkdtemp, fcntl.flock

    def made(**more: str) -> str:
        folder = mkdtemp(**more)
        victims.append(folder)
        if len(victims) == 1 and moment == "before it is opened":
            Path(folder).rmdir()
        return folder

    def locked(fd: int, operation: int) -> None:
        if len(victims) == 1 and Path(victims[0]).exists():
            Path(victims[0]).rmdir()
        flock(fd, operation)

    monkeypatch.setattr(tempfile, "mkdtemp", made)
    if moment != "before it is opened":
        monkeypatch.setattr(fcntl, "flock", locked)
    stage = Staging(tmp_path)
    assert len(victims) == 2
    assert folders(tmp_path) == [stage.folder] == [Path(victims[1])]
    stage.close()


def test_staging_reports_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"cannot write to .*: not a directory"):
        Staging(tmp_path / "file" / "folder")
