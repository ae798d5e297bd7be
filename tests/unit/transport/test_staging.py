"""The folder for unfinished files: private, locked, removed by whoever comes next."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from coco_kp.errors import InputError
from coco_kp.transport.staging import MARKER, PREFIX, Staging
from tests.support.refusing import refuse


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


def abandoned(parent: Path, *, marked: bool = True) -> Path:
    """A folder as a killed process leaves it."""
    folder = parent / f"{PREFIX}{7:016x}"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_text("x")
    if marked:
        (folder / MARKER).touch()
    return folder


def test_staging_removes_abandoned_folder(tmp_path: Path) -> None:
    abandoned(tmp_path)
    stage = Staging(tmp_path)
    assert folders(tmp_path) == [stage.folder]
    stage.close()


def test_staging_removes_folder_of_process_killed_before_it_marked_it(tmp_path: Path) -> None:
    (tmp_path / f"{PREFIX}{7:016x}").mkdir()
    Staging(tmp_path).close()
    assert folders(tmp_path) == []


@pytest.mark.parametrize("name", ["keys", "backup", "12345678", f"{0xABC:016X}", f"{7:016x}0"])
def test_staging_keeps_folder_of_another_form(tmp_path: Path, name: str) -> None:
    """The user's own, although marked: a copy of what a killed process left, say."""
    users = abandoned(tmp_path).rename(tmp_path / f"{PREFIX}{name}")
    Staging(tmp_path).close()
    assert (users / "deep" / "file").read_text() == "x"


def test_staging_keeps_folder_without_marker(tmp_path: Path) -> None:
    users = abandoned(tmp_path, marked=False)
    Staging(tmp_path).close()
    assert (users / "deep" / "file").read_text() == "x"


def test_staging_keeps_folder_in_use(tmp_path: Path) -> None:
    first = Staging(tmp_path)
    second = Staging(tmp_path)
    assert len(folders(tmp_path)) == 2
    first.close()
    second.close()


def test_staging_keeps_folder_of_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = abandoned(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    Staging(tmp_path).close()
    assert folders(tmp_path) == [theirs]


def test_staging_does_not_follow_symlink(tmp_path: Path) -> None:
    precious = abandoned(tmp_path).rename(tmp_path / "precious")
    (tmp_path / f"{PREFIX}{8:016x}").symlink_to(precious)
    inner = abandoned(tmp_path)
    (inner / "link").symlink_to(precious)
    Staging(tmp_path).close()
    assert not inner.exists()
    assert (precious / "deep" / "file").exists()


@pytest.mark.parametrize("moment", ["before it is opened", "while it waits for the lock"])
def test_staging_is_recreated_when_another_process_removes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Another process looks around just when the folder is new and not yet locked."""
    victims: list[Path] = []
    mkdir, flock = Path.mkdir, fcntl.flock

    def made(folder: Path, *rest: Any, **more: Any) -> None:
        mkdir(folder, *rest, **more)
        if folder != tmp_path:
            victims.append(folder)
            if len(victims) == 1 and moment == "before it is opened":
                folder.rmdir()

    def locked(fd: int, operation: int) -> None:
        if len(victims) == 1 and victims[0].exists():
            victims[0].rmdir()
        flock(fd, operation)

    monkeypatch.setattr(Path, "mkdir", made)
    if moment != "before it is opened":
        monkeypatch.setattr(fcntl, "flock", locked)
    stage = Staging(tmp_path)
    assert len(victims) == 2
    assert folders(tmp_path) == [stage.folder] == [victims[1]]
    stage.close()


def test_staging_reports_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"cannot write to .*: not a directory"):
        Staging(tmp_path / "file" / "folder")


def test_staging_that_cannot_be_made_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "mkdir", lambda path: PREFIX in path, errno.ENOSPC)
    with pytest.raises(InputError, match="no space left"):
        Staging(tmp_path / "new" / "deep")
    assert list(tmp_path.iterdir()) == []


def test_staging_that_cannot_be_opened_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "open", lambda path: PREFIX in path, errno.EMFILE)
    with pytest.raises(InputError, match="too many open files"):
        Staging(tmp_path)
    assert list(tmp_path.iterdir()) == []
