"""Killed at any moment, an operation leaves the old image, and the next one succeeds.

Fifty kills with a fixed seed, over the time that an operation takes; each leaves a destination
whose name leads to a whole image, the old one or the new one.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coco_kp.cli.main import run
from tests.peers.debian import debian_bin
from tests.peers.registry import registry
from tests.support.altered import altered
from tests.support.command import KID, files
from tests.support.documents import Document
from tests.support.image import Image, tar, write_image
from tests.support.patience import PATIENCE, wait_until
from tests.support.signals import heeding

KILLS = 13  # of each of the four operations
PLAIN_HTTP = ("--src-tls-verify=false", "--dest-tls-verify=false")


@pytest.fixture
def one_registry(tmp_path: Path) -> Iterator[str]:
    """The ``host:port`` of a real registry: one kind is enough, the crashes are ours."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with registry(debian_bin() / "docker-registry", folder) as address:
        yield address


@pytest.fixture
def big(tmp_path: Path) -> Image:
    """An image that takes a while."""
    return write_image(
        tmp_path / "big", [tar({"data": random.Random(n).randbytes(12_000_000)}) for n in range(4)]
    )


def start(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "coco_kp", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def duration(*arguments: str) -> float:
    """Run an operation to its end, and give the seconds that it took."""
    started = time.monotonic()
    process = start(*arguments)
    _, err = process.communicate()
    assert process.returncode == 0, err.decode()
    return time.monotonic() - started


def kill(at: float, *arguments: str) -> None:
    process = start(*arguments)
    time.sleep(at)
    process.kill()
    process.communicate()


def moments(seed: int, length: float) -> list[float]:
    """Return the seconds after which to kill: all over the operation, most in its second half."""
    chance = random.Random(seed)
    return [length * (0.2 + 0.9 * chance.random()) for _ in range(KILLS)]


def opens(reference: str, *opening: str) -> bool:
    return run(["verify", reference, *opening]) == 0


def test_encrypt_into_layout_killed_at_any_moment_leaves_whole_image(
    big: Image, key: Path, tmp_path: Path
) -> None:
    layout = tmp_path / "layout"
    target, opening = f"oci:{layout}:app", ("--keypath", str(key))
    encrypt = ("encrypt", big.reference, target, "--keyid", KID, *opening)
    length = duration(*encrypt)
    for at in moments(1, length):
        kill(at, *encrypt)
        assert opens(target, *opening)
    duration(*encrypt)
    assert opens(target, *opening)
    assert not list(layout.glob(".coco-kp-*")), "nothing is left of the killed ones"


def test_decrypt_into_layout_killed_at_any_moment_leaves_whole_image(
    big: Image, key: Path, tmp_path: Path
) -> None:
    encrypted, layout = f"oci:{tmp_path}/encrypted", tmp_path / "layout"
    opening = ("--keypath", str(key))
    duration("encrypt", big.reference, encrypted, "--keyid", KID, *opening)
    old = write_image(layout, [tar({"old": b"old"})])
    digest = old.manifest["layers"][0]["digest"]
    decrypt = ("decrypt", encrypted, old.reference, *opening)
    length = duration("decrypt", encrypted, f"oci:{tmp_path}/elsewhere", *opening)
    for at in moments(2, length):
        kill(at, *decrypt)
        whole = [layer.blob for layer in old.layers]  # checks all digests
        assert old.manifest["layers"][0]["digest"] == digest or whole == [
            layer.blob for layer in big.layers
        ]
    duration(*decrypt)
    assert old.layers == big.layers
    assert not list(layout.glob(".coco-kp-*")), "nothing is left of the killed ones"


@pytest.mark.peer
def test_encrypt_into_registry_killed_at_any_moment_leaves_whole_image(
    big: Image, key: Path, one_registry: str
) -> None:
    target, opening = f"docker://{one_registry}/app:1", ("--keypath", str(key))
    encrypt = ("encrypt", big.reference, target, *PLAIN_HTTP, "--keyid", KID, *opening)
    length = duration(*encrypt)
    for at in moments(3, length):
        kill(at, *encrypt)
        assert opens(target, "--tls-verify=false", *opening)
    duration(*encrypt)
    assert opens(target, "--tls-verify=false", *opening)


@pytest.mark.peer
def test_decrypt_into_registry_killed_at_any_moment_leaves_whole_image(
    big: Image, key: Path, tmp_path: Path, one_registry: str
) -> None:
    encrypted, target = f"oci:{tmp_path}/encrypted", f"docker://{one_registry}/app:1"
    opening = ("--keypath", str(key))
    duration("encrypt", big.reference, encrypted, "--keyid", KID, *opening)
    decrypt = ("decrypt", encrypted, target, *PLAIN_HTTP, *opening)
    length = duration(*decrypt)
    allowed = tuple(word for n in range(4) for word in ("--allow-layer", str(n)))
    for at in moments(4, length):
        kill(at, *decrypt)
        assert opens(target, "--tls-verify=false", *allowed)
    duration(*decrypt)
    assert opens(target, "--tls-verify=false", *allowed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_encrypt_ended_by_signal_removes_its_unfinished_files(
    big: Image, key: Path, tmp_path: Path, number: signal.Signals
) -> None:
    layout = tmp_path / "layout"
    target, opening = f"oci:{layout}:app", ("--keypath", str(key))
    duration("encrypt", big.reference, target, "--keyid", KID, *opening)
    before = files(layout)
    endless = make_endless(big)
    with heeding(number):
        process = start("encrypt", endless.reference, target, "--keyid", KID, *opening)
    try:
        wait_until(lambda: any(layout.glob(".coco-kp-*/*")))
        process.send_signal(number)
        process.communicate(timeout=PATIENCE)
    finally:
        process.kill()  # or it would fill the disk
        process.communicate()
    assert process.returncode == 130
    assert files(layout) == before


def make_endless(image: Image) -> Image:
    """Let the image's first layer grow so large that it would take minutes; it is a sparse file."""
    size = 1 << 40

    def change(manifest: Document) -> None:
        manifest["layers"][0]["size"] = size

    endless = altered(image, image.folder.with_name("endless"), change)
    digest = endless.manifest["layers"][0]["digest"]
    os.truncate(endless.folder / "blobs/sha256" / digest[7:], size)
    return endless
