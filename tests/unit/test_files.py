from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from coco_kp.errors import InputError, KekError, RefusedError
from coco_kp.files import is_folder, is_there, read_file, read_small, unwritten, write_file
from tests.support.refusing import refuse

TOO_LONG = "x" * 300  # more than any file system takes for a name


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_read_file_returns_whole_file_or_one_byte_beyond_limit(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert [read_file(file, limit).data for limit in (6, 5, 4, 0)] == [
        b"12345",
        b"12345",
        b"12345",
        b"1",
    ]


def test_read_small_refuses_what_is_longer_than_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert read_small(file, 5) == b"12345"
    with pytest.raises(KekError, match="'it' is longer than the 4 bytes"):
        read_small(file, 4, KekError, named=Path("it"))


def test_read_file_returns_owner_and_mode(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch(mode=0o640)
    status = read_file(file, 1).status
    assert (status.st_uid, status.st_mode & 0o777) == (os.geteuid(), 0o640)


def test_read_file_names_what_is_not_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for path, message in {
            tmp_path: "is a directory, not a file",
            tmp_path / "fifo": "is not a regular file",  # and nobody waits for its writer
            Path("/dev/zero"): "is not a regular file",
            tmp_path / "socket": "no such device or address",
            tmp_path / "absent": "no such file",
            tmp_path / "loop": "too many levels of symbolic links",
            tmp_path / TOO_LONG: "file name too long",
        }.items():
            with pytest.raises(KekError, match=message):
                read_file(path, 1, KekError)
            with pytest.raises(InputError):
                read_file(path, 1)


@pytest.mark.parametrize("replace", [True, False])
def test_write_file_is_readable_by_owner_only(tmp_path: Path, replace: bool) -> None:
    old_umask = os.umask(0)
    try:
        write_file(tmp_path / "key", b"secret", replace=replace)
        write_file(tmp_path / "open", b"", replace=replace, mode=0o644)
    finally:
        os.umask(old_umask)
    assert (tmp_path / "key").read_bytes() == b"secret"
    assert (mode(tmp_path / "key"), mode(tmp_path / "open")) == (0o600, 0o644)
    assert sorted(names(tmp_path)) == ["key", "open"]


def test_write_file_replaces_existing_file_only_with_replace(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"old")
    file.chmod(0o644)
    with pytest.raises(RefusedError, match="exists") as error:
        write_file(file, b"new", replace=False)
    assert error.value.code == "file-exists"
    assert file.read_bytes() == b"old"
    write_file(file, b"new", replace=True)
    assert (file.read_bytes(), mode(file)) == (b"new", 0o600)
    assert names(tmp_path) == ["key"]


def test_write_file_replaces_no_device_fifo_or_link(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        before = {path: path.lstat() for path in tmp_path.iterdir()}
        for name in ("fifo", "link", "null", "socket"):
            with pytest.raises(InputError, match=f"{name}': it is not a regular file"):
                write_file(tmp_path / name, b"new", replace=True)
        with pytest.raises(InputError, match="it is a directory"):
            write_file(tmp_path / "folder", b"new", replace=True)
        assert {path: path.lstat() for path in tmp_path.iterdir()} == before


def test_write_file_does_not_write_through_dangling_symlink(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(RefusedError):
        write_file(tmp_path / "link", b"", replace=False)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("replace", [True, False])
def test_write_file_that_fails_leaves_nothing(tmp_path: Path, replace: bool) -> None:
    (tmp_path / "full").mkdir()
    for path, message in {
        tmp_path / "absent" / "key": f"there is no directory '{tmp_path / 'absent'}'",
        tmp_path / TOO_LONG: "file name too long",
        Path(): "it is a directory",
        Path("/"): "it is a directory",
    }.items():
        with pytest.raises(InputError, match=message):
            write_file(path, b"secret", replace=replace)
    with pytest.raises((InputError, RefusedError)):
        write_file(tmp_path / "full", b"secret", replace=replace)
    assert names(tmp_path) == ["full"]


def test_write_file_on_full_disk_keeps_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    write_file(tmp_path / "key", b"old", replace=False)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="no space left on device"):
        write_file(tmp_path / "key", b"new", replace=True)
    assert names(tmp_path) == ["key"]
    assert (tmp_path / "key").read_bytes() == b"old"


def test_write_file_is_atomic_for_readers(tmp_path: Path) -> None:
    file, contents = tmp_path / "file", (b"a" * 100_000, b"b" * 200_000)
    write_file(file, contents[0], replace=False)
    done = threading.Event()

    def write() -> None:
        for round_ in range(50):
            write_file(file, contents[round_ % 2], replace=True)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert file.read_bytes() in contents
    writer.join()


KILLED = """
import os, signal, sys
from pathlib import Path
from coco_kp import files

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(os, sys.argv[1], die)
files.write_file(Path(sys.argv[2]), b"all keys", replace=sys.argv[1] == "rename")
"""
"""A run that is killed at one call: before the file has its name."""


def kill(path: Path, call: str) -> None:
    """Write ``path`` in a process that is killed at ``call``."""
    done = subprocess.run([sys.executable, "-c", KILLED, call, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("call", ["fsync", "link", "rename"])
@pytest.mark.parametrize("replace", [True, False])
def test_write_file_removes_what_killed_run_left(tmp_path: Path, call: str, replace: bool) -> None:
    file = tmp_path / "keys [1].json"
    kill(file, call)
    (left,) = tmp_path.iterdir()
    assert re.fullmatch(r"\.keys \[1\]\.json\.[0-9a-f]{16}\.tmp", left.name)
    assert left.read_bytes() == b"all keys"
    write_file(file, b"new", replace=replace)
    assert names(tmp_path) == ["keys [1].json"]
    assert file.read_bytes() == b"new"


def test_write_file_that_is_refused_removes_what_killed_run_left(tmp_path: Path) -> None:
    kill(tmp_path / "key", "rename")
    (tmp_path / "key").touch()
    with pytest.raises(RefusedError):
        write_file(tmp_path / "key", b"new", replace=False)
    assert names(tmp_path) == ["key"]


def test_write_file_keeps_temporary_file_of_living_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, fsync = tmp_path / "key", os.fsync

    def write_in_between(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        write_file(file, b"second", replace=True)
        assert len(names(tmp_path)) == 2
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", write_in_between)
    write_file(file, b"first", replace=True)
    assert names(tmp_path) == ["key"]
    assert file.read_bytes() == b"first"


def test_write_file_makes_temporary_file_again_when_removed_before_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock
    removed: list[Path] = []

    def remove_first(descriptor: int, operation: int) -> None:
        if not removed:
            removed.append(next(tmp_path.iterdir()))
            removed[0].unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    write_file(tmp_path / "key", b"data", replace=True)
    assert removed[0].name.endswith(".tmp")
    assert names(tmp_path) == ["key"]


def test_write_file_removes_nothing_that_is_only_alike(tmp_path: Path) -> None:
    digits = "0123456789abcdef"
    alike = [
        f".other.{digits}.tmp",
        f".key.{digits}.tmp~",
        f".key.{digits}0.tmp",
        f".key.{digits[1:]}.tmp",
        f".key.{digits.upper()}.tmp",
        f"key.{digits}.tmp",
        f".kez.{digits}.tmp",
    ]
    for name in alike:
        (tmp_path / name).touch()
    form = f".key.{digits[:-1]}"
    (tmp_path / f"{form}1.tmp").mkdir()
    (tmp_path / f"{form}2.tmp").symlink_to(alike[0])
    os.mkfifo(tmp_path / f"{form}3.tmp")
    reader = os.open(tmp_path / f"{form}3.tmp", os.O_RDONLY | os.O_NONBLOCK)
    before = sorted(names(tmp_path))
    write_file(tmp_path / "key", b"data", replace=True)
    os.close(reader)
    assert sorted(names(tmp_path)) == sorted([*before, "key"])


def test_write_file_keeps_temporary_file_of_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".key.0123456789abcdef.tmp").touch()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    write_file(tmp_path / "key", b"data", replace=True)
    assert len(names(tmp_path)) == 2


def test_write_file_works_without_locks_and_then_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    (tmp_path / ".key.0123456789abcdef.tmp").touch()
    monkeypatch.setattr(fcntl, "flock", refuse)
    write_file(tmp_path / "key", b"data", replace=False)
    assert sorted(names(tmp_path)) == [".key.0123456789abcdef.tmp", "key"]


@pytest.fixture(params=[errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def without_hard_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let links fail as they do on FAT, SMB and FUSE."""

    def refuse(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("without_hard_links")
def test_write_file_without_hard_links_replaces_nothing(tmp_path: Path) -> None:
    write_file(tmp_path / "key", b"secret", replace=False)
    with pytest.raises(RefusedError, match="exists"):
        write_file(tmp_path / "key", b"other", replace=False)
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(RefusedError, match="exists"):
        write_file(tmp_path / "link", b"other", replace=False)
    assert sorted(names(tmp_path)) == ["key", "link"]
    assert ((tmp_path / "key").read_bytes(), mode(tmp_path / "key")) == (b"secret", 0o600)


@pytest.mark.usefixtures("without_hard_links")
def test_write_file_without_hard_links_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(InputError, match="input/output error"):
        write_file(tmp_path / "key", b"secret", replace=False)
    assert not names(tmp_path)


def test_write_file_reports_other_failure_of_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(InputError, match="input/output error"):
        write_file(tmp_path / "key", b"secret", replace=False)
    assert not names(tmp_path)


@pytest.mark.parametrize(("number", "written"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_write_file_minds_unsynced_directory_only_where_one_can_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, written: bool
) -> None:
    fsync = os.fsync

    def fsync_of_files(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync_of_files)
    with contextlib.nullcontext() if written else pytest.raises(InputError, match="cannot write"):
        write_file(tmp_path / "key", b"secret", replace=False)


def test_is_there_returns_whether_path_exists(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to("absent")
    assert is_there(tmp_path / "file")
    assert is_there(tmp_path)
    assert not is_there(tmp_path / "absent")
    assert not is_there(tmp_path / "nowhere")
    assert not is_there(tmp_path / "file" / "x")
    assert is_there(tmp_path / TOO_LONG)  # or rather: not known to be absent


def test_is_folder_returns_whether_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    assert is_folder(tmp_path)
    assert is_folder(tmp_path / "link")
    assert not is_folder(tmp_path / "file")
    assert not is_folder(tmp_path / "absent")
    assert not is_folder(tmp_path / "file" / "x")
    refuse(monkeypatch, "stat", lambda path: path == str(tmp_path))
    assert is_folder(tmp_path)  # or rather: not known to be none


def fail_to_sync(_directory: Path) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_write_file_takes_new_file_away_when_its_directory_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coco_kp.files.sync_directory", fail_to_sync)
    with pytest.raises(InputError, match="cannot write .*: input/output error"):
        write_file(tmp_path / "key", b"new", replace=False)
    assert names(tmp_path) == []


def test_file_behind_a_link_to_nothing_is_not_said_to_lack_its_directory(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("missing/file")
    with pytest.raises(FileNotFoundError) as failure:
        (tmp_path / "link").write_bytes(b"")
    assert "no such file" in unwritten(tmp_path / "link", failure.value).message
    assert "there is no directory" in unwritten(tmp_path / "no/file", failure.value).message


def test_write_file_says_that_replacing_file_is_in_place_when_its_directory_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_bytes(b"old")
    monkeypatch.setattr("coco_kp.files.sync_directory", fail_to_sync)
    with pytest.raises(InputError, match="is in place, but may not outlast a crash"):
        write_file(tmp_path / "key", b"new", replace=True)
    assert (tmp_path / "key").read_bytes() == b"new"


def test_write_file_succeeds_when_its_temporary_file_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has its name by then; the next write removes the other name."""
    refuse(monkeypatch, "unlink", lambda path: path.endswith(".tmp"))
    write_file(tmp_path / "key", b"new", replace=False)
    assert (tmp_path / "key").read_bytes() == b"new"
    monkeypatch.undo()
    write_file(tmp_path / "key", b"newer", replace=True)
    assert names(tmp_path) == ["key"]


def test_read_file_names_file_whose_status_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()

    def fail(_descriptor: int) -> os.stat_result:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", fail)
        with pytest.raises(InputError, match="/file': stale file handle"):
            read_file(tmp_path / "file", 1)


def test_error_of_closing_does_not_hide_the_one_that_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = os.close

    def fail(descriptor: int) -> None:
        close(descriptor)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / "file").write_bytes(b"x")
    monkeypatch.setattr(os, "close", fail)
    assert read_file(tmp_path / "file", 1).data == b"x"
    with pytest.raises(InputError, match="is a directory"):
        read_file(tmp_path, 1)
