"""``coco-kp demo``, with a real skopeo and without."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.provider import COCO_KP


def demo(folder: Path, *programs: Path) -> subprocess.CompletedProcess[str]:
    path = ":".join(str(folder) for folder in (*programs, "/usr/bin", "/bin"))
    done = subprocess.run(
        [COCO_KP, "demo"],
        env={"PATH": path, "HOME": str(folder), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert list(folder.iterdir()) == [], "something stayed behind"
    return done


@pytest.mark.peer
def test_the_demo_goes_through_skopeo(skopeo_program: Path, tmp_path: Path) -> None:
    done = demo(tmp_path, skopeo_program.parent)
    assert done.returncode == 0, done.stderr
    assert "skopeo copy --insecure-policy --encryption-key" in done.stdout
    assert done.stdout.count("kbs:///default/key/key_id1  A256GCM") == 4
    assert done.stdout.endswith("done: each layer was encrypted, and came back byte for byte\n")


def test_the_demo_says_that_it_left_skopeo_out(tmp_path: Path) -> None:
    done = demo(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "# skopeo is left out" in done.stdout
    assert "$ coco-kp decrypt oci:encrypted oci:decrypted" in done.stdout


def test_the_demo_fails_where_a_step_fails(tmp_path: Path) -> None:
    skopeo = tmp_path / "bin" / "skopeo"
    skopeo.parent.mkdir()
    skopeo.write_text('#!/bin/sh\n[ "$1" = --version ] || { echo "no $5" >&2; exit 1; }\n')
    skopeo.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    done = demo(home, skopeo.parent)
    assert done.returncode == 6
    assert "skopeo failed" in done.stderr
    assert "done:" not in done.stdout


def test_the_demo_notices_a_layer_that_came_back_different(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coco_kp.cli import demo as module
    from coco_kp.cli.main import run

    digests = iter(["a", "b"])
    monkeypatch.setattr(module, "_digests", lambda _layout: [next(digests)])
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run(["demo"]) == 5
