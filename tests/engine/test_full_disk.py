"""Disks that are really full: a small tmpfs, which a user may mount in a namespace of his own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coco_kp.cli.main import run
from tests.peers.cache import PeerUnavailableError
from tests.sim.registry import Registry, serve
from tests.support.command import KID
from tests.support.documents import Layer
from tests.support.image import Image, tar, write_image

FULL = "no space left on device"

SCRIPT = """
set -u
disk=$1; shift
mount -t tmpfs -o size=256k tmpfs "$disk" || exit 99
echo mine > "$disk/mine"
"$@"
code=$?
ls -A "$disk"
exit $code
"""


def on_small_disk(disk: Path, *arguments: str, temporary: bool = False) -> tuple[int, str, str]:
    """Run a command while ``disk`` has 256 KiB; return its exit code, what is there, and errors.

    With ``temporary`` that is where temporary files go.
    """
    disk.mkdir()
    variables = [f"TMPDIR={disk}"] if temporary else []
    command = ["env", *variables, sys.executable, "-m", "coco_kp", *arguments, "-q"]
    try:
        done = subprocess.run(
            ["unshare", "--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh", disk, *command],
            text=True,
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise PeerUnavailableError(f"cannot run unshare: {error.strerror}") from error
    if done.returncode == 99 or done.stderr.startswith("unshare: "):
        raise PeerUnavailableError(f"a small disk cannot be mounted here: {done.stderr}")
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def big(tmp_path: Path) -> Image:
    """An image that does not fit."""
    return write_image(tmp_path / "big", [Layer(tar({"data": bytes(1_000_000)}))])


@pytest.mark.parametrize("target", ["oci:{}/image:app", "dir:{}/image", "oci-archive:{}/image.tar"])
def test_encrypt_onto_full_disk_names_it_and_leaves_nothing(
    big: Image, key: Path, tmp_path: Path, target: str
) -> None:
    disk = tmp_path / "disk"
    code, there, err = on_small_disk(
        disk,
        *("encrypt", big.reference, target.format(disk), "--keyid", KID, "--keypath", str(key)),
    )
    assert (code, there) == (3, "mine\n")
    assert str(disk) in err
    assert FULL in err


def test_upload_needs_no_room_in_temporary_folder(big: Image, key: Path, tmp_path: Path) -> None:
    archive, opening = f"oci-archive:{tmp_path}/archive", ("--keypath", str(key))
    encrypting = ("--keyid", KID, *opening)
    assert run(["encrypt", big.reference, archive, *encrypting]) == 0
    with serve(Registry()) as address:
        remote = (f"docker://{address}/app:1", "--dest-tls-verify=false")
        for number, command in enumerate(
            [
                ("encrypt", big.reference, *remote, *encrypting),
                ("decrypt", archive, *remote, *opening),
            ]
        ):
            disk = tmp_path / f"disk{number}"
            code, there, err = on_small_disk(disk, *command, temporary=True)
            assert (code, there) == (0, "mine\n"), err
