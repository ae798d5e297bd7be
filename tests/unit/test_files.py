from __future__ import annotations

import errno
import multiprocessing
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from coco_kp.errors import InputError, KekError, RefusedError
from coco_kp.files import is_there, locked, read_file, write_file

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


@pytest.mark.parametrize(
    ("mode", "others"),
    [(0o600, False), (0o400, False), (0o640, True), (0o604, True), (0o622, False)],
)
def test_read_file_reports_whether_others_may_read_it(
    tmp_path: Path, mode: int, others: bool
) -> None:
    file = tmp_path / "file"
    file.touch()
    file.chmod(mode)
    assert read_file(file, 1).readable_by_others is others


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
    assert "--force" in error.value.hint
    assert file.read_bytes() == b"old"
    write_file(file, b"new", replace=True)
    assert (file.read_bytes(), mode(file)) == (b"new", 0o600)
    assert names(tmp_path) == ["key"]


def test_write_file_does_not_write_through_dangling_symlink(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(RefusedError):
        write_file(tmp_path / "link", b"", replace=False)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("replace", [True, False])
def test_write_file_that_fails_leaves_nothing(tmp_path: Path, replace: bool) -> None:
    (tmp_path / "full").mkdir()
    for path, message in {
        tmp_path / "absent" / "key": "no such file",
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


def test_is_there_returns_whether_path_exists(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to("absent")
    assert is_there(tmp_path / "file")
    assert is_there(tmp_path)
    assert not is_there(tmp_path / "absent")
    assert not is_there(tmp_path / "nowhere")
    assert not is_there(tmp_path / "file" / "x")
    assert is_there(tmp_path / TOO_LONG)  # or rather: not known to be absent


def add(folder: Path, times: int, ready: Any) -> None:
    ready.wait()
    for _ in range(times):
        with locked(folder):
            count = int((folder / "count").read_text())
            (folder / "count").write_text(str(count + 1))


def test_locked_folder_excludes_other_processes(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(3, timeout=60)
    processes = [context.Process(target=add, args=(tmp_path, 300, ready)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "count").read_text() == "900"


def test_locked_gives_up_on_folder_kept_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coco_kp.files.LOCK_SECONDS", 0.05)
    with (
        locked(tmp_path),
        pytest.raises(InputError, match="another process keeps .* locked"),
        locked(tmp_path),
    ):
        pytest.fail("it was locked twice")


def test_locked_reports_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(InputError, match="cannot lock .* no locks available"), locked(tmp_path):
        pytest.fail("it was locked")


def test_locked_refuses_path_that_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, message in {"absent": "no such file", "file": "not a directory"}.items():
        with pytest.raises(InputError, match=message), locked(tmp_path / path):
            pytest.fail("it was locked")
