"""``coco-kp demo``, with a real skopeo and without."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.provider import COCO_KP

if TYPE_CHECKING:
    from collections.abc import Sequence


def demo(folder: Path, *programs: Path) -> subprocess.CompletedProcess[str]:
    done = run([COCO_KP, "demo"], folder, *programs)
    assert list(folder.iterdir()) == [], "something stayed behind"
    return done


def run(
    command: Sequence[str | Path], folder: Path, *programs: Path
) -> subprocess.CompletedProcess[str]:
    path = ":".join(str(folder) for folder in (*programs, COCO_KP.parent, "/usr/bin", "/bin"))
    return subprocess.run(
        command,
        cwd=folder,
        env={"PATH": path, "HOME": str(folder), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.peer
def test_demo_encrypts_and_decrypts_with_skopeo(skopeo_program: Path, tmp_path: Path) -> None:
    done = demo(tmp_path, skopeo_program.parent)
    assert done.returncode == 0, done.stderr
    assert "skopeo copy --insecure-policy --encryption-key" in done.stdout
    assert done.stdout.count("kbs:///default/key/key_id1  A256GCM") == 4
    assert done.stdout.endswith("done: each layer was encrypted, and came back byte for byte\n")


def test_demo_without_skopeo_says_that_it_is_left_out(tmp_path: Path) -> None:
    done = demo(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "# skopeo is left out" in done.stdout
    assert "$ coco-kp decrypt oci:encrypted oci:decrypted" in done.stdout
    assert "another digest" not in done.stderr


def test_demo_fails_when_a_step_fails(tmp_path: Path) -> None:
    skopeo = tmp_path / "bin" / "skopeo"
    skopeo.parent.mkdir()
    # to the probe it answers that there is no such image
    skopeo.write_text('#!/bin/sh\n[ "$1" = --version ] || { echo "no $5" >&2; exit 1; }\n')
    skopeo.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    done = demo(home, skopeo.parent)
    assert done.returncode == 6
    assert "skopeo failed" in done.stderr
    assert "done:" not in done.stdout


def test_demo_fails_when_decrypted_layer_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coco_kp.cli import demo as module
    from coco_kp.cli.main import run

    digests = iter(["a", "b"])
    monkeypatch.setattr(module, "_digests", lambda _layout: [next(digests)])
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run(["demo"]) == 5


@pytest.mark.peer
def test_demo_keep_leaves_commands_that_can_be_run_again(
    skopeo_program: Path, tmp_path: Path
) -> None:
    done = run([COCO_KP, "demo", "--keep", "kept"], tmp_path, skopeo_program.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("in commands.sh\n")
    kept, again = tmp_path / "kept", tmp_path / "again"
    images = {"image", "encrypted", "decrypted", "by-skopeo", "decrypted-by-skopeo"}
    files = {"keys.json", "kek", "ocicrypt.json", "commands.sh"}
    assert {path.name for path in kept.iterdir()} == images | files
    shutil.copytree(kept / "image", again / "image")
    repeated = run(["sh", kept / "commands.sh"], again, skopeo_program.parent)
    assert repeated.returncode == 0, repeated.stderr
    assert {path.name for path in again.iterdir()} == images | files - {"commands.sh"}


def test_demo_keep_refuses_folder_with_other_files(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    done = run([COCO_KP, "demo", "--keep", "."], tmp_path)
    assert (done.returncode, done.stdout) == (7, "")
    assert "the directory '.' is not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_demo_keep_accepts_empty_folder(tmp_path: Path) -> None:
    assert run([COCO_KP, "demo", "--keep", "."], tmp_path).returncode == 0
    assert (tmp_path / "commands.sh").is_file()


def test_demo_keep_refuses_path_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    done = run([COCO_KP, "demo", "--keep", "mine"], tmp_path)
    assert done.returncode == 3
    assert "cannot make the directory 'mine': File exists" in done.stderr
