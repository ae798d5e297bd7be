from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from coco_kp.deadline import within
from coco_kp.errors import InputError
from coco_kp.locks import locked


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


def test_locked_gives_up_on_folder_kept_locked(tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        within(0.05),
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
