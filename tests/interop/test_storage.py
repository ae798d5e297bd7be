"""Images in podman's storage, and in a daemon with docker's API, through the real skopeo."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from coco_kp.cli.main import run
from tests.peers.builder import Builder
from tests.peers.skopeo import find_skopeo
from tests.support.image import Image, tar, write_image
from tests.support.index import write_index

pytestmark = pytest.mark.peer

ARCHIVES = [tar({"etc/motd": b"hello"}), tar({"data": bytes(range(256)) * 800})]
NAME = "localhost/team/app:1"


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builder:
    """A podman, in whose storage the skopeo that we call works, too."""
    found = Builder("podman", tmp_path / "podman")
    for name, value in found.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{find_skopeo().parent}:{os.environ['PATH']}")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return found


@pytest.fixture(params=["containers-storage", "docker-daemon"])
def place(
    request: pytest.FixtureRequest, podman: Builder, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The name of an image that podman has afterwards."""
    if request.param == "docker-daemon":
        with podman.service() as url:
            monkeypatch.setenv("DOCKER_HOST", url)
            yield f"docker-daemon:{NAME}"
    else:
        yield f"containers-storage:{NAME}"


@pytest.fixture
def encrypted(tmp_path: Path) -> str:
    plain = write_image(tmp_path / "plain", ARCHIVES)
    assert run(["encrypt", plain.reference, f"oci:{tmp_path}/e", "--sample", "-q"]) == 0
    return f"oci:{tmp_path}/e"


def contents(image: Image) -> list[bytes]:
    return [
        gzip.decompress(layer.blob) if layer.blob.startswith(b"\x1f\x8b") else layer.blob
        for layer in image.layers
    ]


def test_decrypt_brings_image_to_podman_and_encrypt_takes_it_from_there(
    place: str, podman: Builder, encrypted: str, tmp_path: Path
) -> None:
    assert run(["decrypt", encrypted, place, "--kbc", "sample"]) == 0
    assert NAME in podman.images()
    pushed = Image(tmp_path / "pushed")
    podman.push(NAME, pushed.reference)
    assert contents(pushed) == ARCHIVES
    assert run(["encrypt", place, f"oci:{tmp_path}/again", "--sample"]) == 0
    assert run(["decrypt", f"oci:{tmp_path}/again", f"oci:{tmp_path}/d", "--kbc", "sample"]) == 0
    assert contents(Image(tmp_path / "d")) == ARCHIVES
    assert list((tmp_path / "tmp").iterdir()) == []


def test_decrypt_replaces_image_in_podman(place: str, podman: Builder, tmp_path: Path) -> None:
    for number, archives in enumerate((ARCHIVES[:1], ARCHIVES)):
        plain, encrypted = write_image(tmp_path / f"{number}", archives), f"oci:{tmp_path}/e"
        assert run(["encrypt", plain.reference, encrypted, "--sample"]) == 0
        assert run(["decrypt", encrypted, place, "--kbc", "sample"]) == 0
    pushed = Image(tmp_path / "pushed")
    podman.push(NAME, pushed.reference)
    assert contents(pushed) == ARCHIVES


def test_decrypt_of_list_into_podman_is_refused_before_anything_is_there(
    podman: Builder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = {
        write_image(tmp_path / name, [tar({name: b""})]): {
            "platform": {"os": "linux", "architecture": name}
        }
        for name in ("amd64", "arm64")
    }
    listed = write_index(tmp_path / "list", images)
    assert run(["encrypt", listed, f"oci:{tmp_path}/e", "--sample"]) == 0
    assert run(["decrypt", f"oci:{tmp_path}/e", f"containers-storage:{NAME}", "--kbc", "sample"])
    assert "can hold one image, not the 2 of an index" in capsys.readouterr().err
    assert podman.images() == set()


def test_image_that_podman_does_not_have_is_named_with_the_cause(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["encrypt", place, f"oci:{tmp_path}/e", "--sample"]) == 6
    said = capsys.readouterr().err
    assert f"skopeo cannot read {place}" in said
    assert any(words in said for words in ("does not resolve", "image not known"))
    assert list((tmp_path / "tmp").iterdir()) == []


def test_decrypt_into_daemon_that_does_not_run_hints_at_it(
    podman: Builder,
    encrypted: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
    assert run(["decrypt", encrypted, f"docker-daemon:{NAME}", "--kbc", "sample"]) == 6
    assert "hint: check that the docker daemon runs" in capsys.readouterr().err
    assert podman.images() == set()
    assert list((tmp_path / "tmp").iterdir()) == []
