"""Going to the background, where it fails; how it works, tests/interop/test_server.py shows."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from coco_kp.errors import InputError, RemoteError
from coco_kp.service import daemon
from coco_kp.service.daemon import Daemon

COCO_KP = Path(sys.executable).with_name("coco-kp")


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "coco-kp"


def serve_in_the_background(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(COCO_KP), "serve", "--daemon", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_serve_in_background_fails_when_server_cannot_start(runtime: Path) -> None:
    done = serve_in_the_background(
        "--socket", "192.0.2.1:50000", "--insecure-listen", "--key-dir", str(runtime.parent)
    )
    assert done.returncode == RemoteError.exit_code
    assert done.stdout == ""
    assert done.stderr.startswith("coco-kp: cannot listen on 192.0.2.1:50000: ")
    assert not (runtime / "coco-kp.pid").exists()


def test_serve_in_background_names_process_already_running(runtime: Path) -> None:
    runtime.mkdir()
    pid_file = runtime / "coco-kp.pid"
    pid_file.write_text("4711\n")
    with pid_file.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = serve_in_the_background("--socket", f"unix://{runtime}/kp.sock")
    assert done.returncode == RemoteError.exit_code
    assert done.stderr == (
        "coco-kp: a provider is running in the background as process 4711\n"
        "hint: stop it: kill 4711\n"
    )
    assert pid_file.read_text() == "4711\n"


@pytest.mark.usefixtures("runtime")
def test_daemon_start_reports_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "coco-kp").touch()
    with pytest.raises(InputError, match=f"cannot use '{tmp_path}/coco-kp': file exists"):
        Daemon.start()


@pytest.mark.parametrize(
    ("runtime", "uid", "folder"),
    [
        ("/run/user/1000", 1000, "/run/user/1000/coco-kp"),
        ("", 0, "/run/confidential-containers"),
        ("relative", 0, "/run/confidential-containers"),
        ("", 1000, "{home}/.local/state/coco-kp"),
        ("", 1001, "/nonexistent/.local/state/coco-kp"),  # in a container, without a name
    ],
)
def test_daemon_state_folder_depends_on_xdg_runtime_dir_and_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, uid: int, folder: str
) -> None:
    made: list[Path] = []
    status = SimpleNamespace(st_mode=stat.S_IFDIR | 0o700, st_uid=uid)
    monkeypatch.setattr(Path, "mkdir", lambda path, **_: made.append(path))
    monkeypatch.setattr(Path, "lstat", lambda _: status)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setenv("HOME", str(tmp_path))
    if folder.startswith("/nonexistent"):
        monkeypatch.delenv("HOME")
        monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    expected = Path(folder.format(home=tmp_path))
    assert daemon._state_folder() == expected
    assert made == [expected]


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_serve_in_background_follows_no_link_out_of_its_folder(
    runtime: Path, tmp_path: Path
) -> None:
    """It truncated whatever file a link in XDG_RUNTIME_DIR led to, and wrote a number there."""
    precious = tmp_path / "precious"
    for name in ("coco-kp.pid", "coco-kp.log"):
        runtime.mkdir(mode=0o700)
        precious.write_text("precious")
        (runtime / name).symlink_to(precious)
        done = serve_in_the_background("--socket", "127.0.0.1:0")
        assert done.returncode == InputError.exit_code
        assert f"cannot write '{runtime}/{name}': " in done.stderr
        assert precious.read_text() == "precious"
        shutil.rmtree(runtime)


@pytest.mark.parametrize("kind", ["link", "writable by others"])
def test_serve_in_background_uses_no_folder_of_others(
    runtime: Path, tmp_path: Path, kind: str
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    if kind == "link":
        runtime.symlink_to(theirs)
    else:
        runtime.mkdir()
        runtime.chmod(0o777)
    done = serve_in_the_background("--socket", "127.0.0.1:0")
    assert done.returncode == InputError.exit_code
    assert "it is not a directory of this user alone" in done.stderr
    assert not list(runtime.iterdir())


def test_serve_in_background_uses_no_folder_of_another_user(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(InputError, match="it is not a directory of this user alone"):
        Daemon.start()
