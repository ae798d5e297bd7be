"""A sample of the sweep, and what it would say of commands that did wrong.

The sweep forks, which wants a process without threads: it runs in one of its own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.injector import Run, check_available
from tests.faults.verdict import Failure, files, secrets_in, shape, unfinished, wrong_words

SAMPLE = "100"
NAMELESS = "the error names no file, nor an address"
FAILURE = Failure("write here/image", "no space left on device")
HERE = Path("/scratch/here")


def sweep(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.faults", *arguments]
    return subprocess.run(command, text=True, capture_output=True, check=False)


def words(code: int | None, err: str) -> list[str]:
    return list(wrong_words(Run(code, "", err), FAILURE, HERE))


def test_commands_end_right_whatever_system_call_fails() -> None:
    check_available()
    done = sweep("--sample", SAMPLE)
    assert done.returncode == 0, done.stdout + done.stderr
    total = done.stdout.partition("\nall")[2].split()
    assert total[0] == SAMPLE
    assert int(total[1]) > 0, "some commands failed, and said so"
    assert int(total[2]) > 0, "some did without what failed"


def test_fault_in_native_pump_is_a_clean_error() -> None:
    """Rust writes the layers itself: no patch of Python reaches those system calls."""
    check_available()
    done = sweep("encrypt oci-archive", "--call", "write .coco-kp-*/*", "--error", "ENOSPC")
    assert done.returncode == 0, done.stdout + done.stderr
    runs, clean, fine = map(int, done.stdout.partition("\nall")[2].split()[:3])
    assert runs > 5
    assert clean == runs, fine


def test_verdict_of_clean_error_finds_nothing() -> None:
    err = f"coco-kp: cannot write to '{HERE}/image': no space left on device\n"
    assert words(3, err) == []
    assert words(0, "") == []


@pytest.mark.parametrize(
    ("code", "err", "wrong"),
    [
        (1, f"coco-kp: cannot use '{HERE}': no space left on device", "exit code 1"),
        (-9, f"coco-kp: cannot use '{HERE}': no space left on device", "exit code -9"),
        (None, f"coco-kp: cannot use '{HERE}': no space left on device", "exit code None"),
        (3, f"coco-kp: Traceback '{HERE}': no space left on device", "a traceback or a bug"),
        (3, f"OSError: '{HERE}': no space left on device", "no error of coco-kp's form"),
        (3, "coco-kp: the system refused: no space left on device", NAMELESS),
        (3, f"coco-kp: cannot write '{HERE}/image'", "the error does not say why"),
    ],
)
def test_verdict_finds_what_is_wrong_with_words(code: int | None, err: str, wrong: str) -> None:
    assert words(code, err) == [wrong]


def test_files_tell_unfinished_ones_from_the_users(tmp_path: Path) -> None:
    staging = tmp_path / "image" / ".coco-kp-0123456789abcdef"
    staging.mkdir(parents=True)
    (staging / "0123456789abcdef").write_bytes(b"a secret")
    (tmp_path / ".key.0123456789abcdef.tmp").write_bytes(b"a secret")
    (tmp_path / ".coco-kp-mine").write_bytes(b"a secret")
    assert sorted(files(tmp_path)) == [".coco-kp-mine", "image"]
    left = unfinished(tmp_path)
    assert len(left) == 3
    assert len(list(secrets_in(tmp_path, left, [b"secret"]))) == 2
    assert list(secrets_in(tmp_path, left, [b"another"])) == []


def test_shape_of_files_leaves_random_names_out() -> None:
    digests = {f"blobs/sha256/{c * 64}": "" for c in "ab"}
    assert shape(digests) == {"blobs/sha256/*": 2}
