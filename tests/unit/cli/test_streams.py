"""Standard streams that are closed, or full: no traceback, and the exit code tells of the work."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.command import KID
from tests.support.image import Image, tar, write_image
from tests.support.provider import COCO_KP

REDIRECTIONS = [
    *("<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"),
    *(">/dev/full", "2>/dev/full", ">/dev/full 2>/dev/full"),
]


def shell(redirection: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", COCO_KP, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def plain(tmp_path: Path) -> Image:
    return write_image(tmp_path / "plain", [tar({"file": b"content"})])


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_bytes(bytes(range(32)))
    return path


@pytest.mark.parametrize("redirection", REDIRECTIONS)
def test_encrypt_exits_with_0_when_image_is_in_place_whoever_listens(
    redirection: str, plain: Image, key: Path, tmp_path: Path
) -> None:
    target = f"oci:{tmp_path}/out:x"
    arguments = ("--keyid", KID, "--keypath", key, "--format", "json")
    done = shell(redirection, "encrypt", plain.reference, target, *arguments)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    if redirection == ">/dev/full":
        assert f"{target} is in place, but this could not be printed: no space" in done.stderr
    if redirection in {"<&-", "2>&-", "2>/dev/full"}:
        assert json.loads(done.stdout)["destination"] == target
    assert shell("", "verify", target, "--keypath", key).returncode == 0


@pytest.mark.parametrize("redirection", REDIRECTIONS)
@pytest.mark.parametrize(
    ("arguments", "code"), [(["inspect", "oci:/nowhere"], 3), (["encrypt", "a", "b"], 2), ([], 2)]
)
def test_error_has_its_exit_code_whoever_listens(
    redirection: str, arguments: list[str], code: int
) -> None:
    done = shell(redirection, *arguments)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_encrypt_exits_with_0_when_image_is_in_place_and_its_reader_has_left(
    plain: Image, key: Path, tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    arguments = ("encrypt", plain.reference, f"oci:{tmp_path}/out", "--keyid", KID)
    done = subprocess.run(
        [COCO_KP, *arguments, "--keypath", str(key)],
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert shell("", "verify", f"oci:{tmp_path}/out", "--keypath", key).returncode == 0


@pytest.mark.parametrize("encoding", ["latin-1", "koi8-r", "ascii"])
def test_words_that_stdout_cannot_encode_are_escapes(
    encoding: str, plain: Image, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    target = f"oci:{tmp_path}/\u00e9\u6f22"
    command = ["encrypt", plain.reference, target, "--keyid", KID, "--keypath", str(key)]
    for arguments in (command, [*command, "--format", "json"]):
        done = subprocess.run([COCO_KP, *arguments], capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert b"unexpected" not in done.stderr
    assert json.loads(done.stdout.decode())["destination"] == target


def test_nothing_takes_the_place_of_closed_streams(plain: Image, key: Path, tmp_path: Path) -> None:
    """A warning would be written into the layer that is open as descriptor 2."""
    key.chmod(0o644)  # which is warned of
    arguments = ("--keyid", KID, "--keypath", key, "--algorithm", "A256CTR")
    done = shell("<&- >&- 2>&-", "encrypt", plain.reference, f"oci:{tmp_path}/out", *arguments)
    assert done.returncode == 0
    opening = ("--keypath", key, "--allow-ctr")
    assert shell("", "verify", f"oci:{tmp_path}/out", *opening).returncode == 0
