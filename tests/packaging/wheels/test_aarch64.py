"""The aarch64 wheel under qemu-user, with Debian's own arm64 Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.peers.arm64 import PYTHON_VERSION, arm64_packages, arm64_python
from tests.support.image import Image, tar, write_image
from tests.support.key import KEY_ID, make_key

# One process, since importing takes most of the time there.
SCRIPT = """
import platform, sys
from coco_kp.cli.main import run

assert platform.machine() == "aarch64"
for command in sys.stdin.read().splitlines():
    if code := run(command.split()):
        sys.exit(code)
"""


@pytest.mark.full
@pytest.mark.peer
def test_aarch64_wheel_encrypts_and_decrypts_image(aarch64_wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    target = ["--target", str(site), "--only-binary=:all:", "--platform", "manylinux2014_aarch64"]
    python = ["--implementation", "cp", "--python-version", PYTHON_VERSION]
    wheel = ["--no-index", "--no-deps", "--no-compile", str(aarch64_wheel)]
    subprocess.run([*pip, *target, *python, *wheel], check=True)

    image = write_image(tmp_path / "app", [tar({"motd": b"hello"}), tar({"data": bytes(300_000)})])
    key = make_key(tmp_path / "keys")
    commands = f"""\
encrypt oci:app oci:encrypted --keyid kbs:///{KEY_ID} --keypath {key.path}
decrypt oci:encrypted oci:decrypted --keypath {key.path}
"""
    subprocess.run(
        [*arm64_python(), "-c", SCRIPT],
        input=commands,
        cwd=tmp_path,
        env={"PYTHONPATH": f"{site}:{arm64_packages()}", "HOME": str(tmp_path)},
        text=True,
        timeout=600,
        check=True,
    )
    assert all(layer.encrypted for layer in Image(tmp_path / "encrypted").layers)
    decrypted = Image(tmp_path / "decrypted")
    assert (decrypted.layers, decrypted.config) == (image.layers, image.config)

    # and what it wrote is read by this machine's own
    ours = Path(sys.executable).with_name("coco-kp")
    verify = [str(ours), "verify", "oci:encrypted", "--keypath", str(key.path)]
    subprocess.run(verify, cwd=tmp_path, check=True)
