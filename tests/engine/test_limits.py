"""A full disk, and a layer that is larger than memory."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from coco_kp.model.manifest import MAX_MANIFEST
from tests.support.command import Command, files
from tests.support.documents import TAR, gzipped
from tests.support.image import Image, tar, write_image
from tests.support.layout import LayoutWriter

GIB = 1 << 30
MIB = 1 << 20


def test_encrypt_on_full_disk_leaves_no_partial_image(
    plain: Image, tmp_path: Path, command: Command
) -> None:
    """The limit on file sizes stands in for a full disk; both are an OSError of write(2)."""
    layout = tmp_path / "layout"
    small = write_image(tmp_path / "small", [tar({"old": b"old"})])
    command("encrypt", small.reference, f"oci:{layout}:app", "--sample")
    before = files(layout)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    for target in (f"oci:{layout}:app", f"oci:{tmp_path}/new"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))
        try:
            outcome = command("encrypt", plain.reference, target, "--sample", ok=False)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
        assert outcome.code == 3
        assert "file too large" in outcome.err
    assert files(layout) == before
    assert not (tmp_path / "new").exists()


@pytest.mark.full
@pytest.mark.timeout(600)
def test_encrypt_and_verify_of_five_gibibytes_use_bounded_memory(tmp_path: Path) -> None:
    image = zeros(tmp_path, 5 * GIB)
    target = tmp_path / "e"
    jobs = ("--jobs", "2")
    assert peak("encrypt", image.reference, f"oci:{target}", "--sample", *jobs) < 96 * MIB
    assert peak("verify", f"oci:{target}", "--kbc", "sample", "--allow-sample", *jobs) < 96 * MIB


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_encrypt_knows_beforehand_to_the_byte_how_large_a_manifest_will_be(
    tmp_path: Path, command: Command, algorithm: str
) -> None:
    """A layer's own digest is recorded in its packet, but does not stay in its descriptor."""
    layer = gzipped(tar({"a": b"a"}))
    name = hashlib.new(algorithm, layer.data).hexdigest()
    layer = replace(layer, members={"digest": f"{algorithm}:{name}"})

    def made(padding: int) -> Image:
        padded = {"annotations": {"org.example.long": "x" * padding}}
        image = write_image(tmp_path / f"{padding}", [layer], **padded)
        blob = image.folder / "blobs" / algorithm / name
        blob.parent.mkdir(exist_ok=True)
        blob.write_bytes(layer.data)
        return image

    command("encrypt", made(1).reference, f"oci:{tmp_path}/small", "--sample")
    (entry,) = json.loads((tmp_path / "small" / "index.json").read_bytes())["manifests"]
    room = MAX_MANIFEST - entry["size"] + 1
    command("encrypt", made(room).reference, f"oci:{tmp_path}/large", "--sample")
    larger = ("encrypt", made(room + 1).reference, f"oci:{tmp_path}/larger", "--sample")
    outcome = command(*larger, "--dry-run", ok=False)
    assert outcome.code == 3
    assert f"would have over {MAX_MANIFEST} bytes" in outcome.err


def zeros(folder: Path, size: int) -> Image:
    """Write an image whose only layer is a sparse file of zeros."""
    piece, hasher = bytes(MIB), hashlib.sha256()
    for _ in range(size // MIB):
        hasher.update(piece)
    sparse = folder / "zeros"
    sparse.touch()
    os.truncate(sparse, size)
    layout = LayoutWriter(folder / "image")
    layer = layout.take(TAR, sparse, hasher.hexdigest())
    layout.name(layout.put_manifest([layer], [layer["digest"]]))
    return Image(layout.folder)


def peak(*arguments: str) -> int:
    """Run a command in a process of its own, and give the bytes of memory that it had at most."""
    code = (
        "import sys; from pathlib import Path; from coco_kp.cli.main import run;"
        "assert run(sys.argv[1:]) == 0; print(Path('/proc/self/status').read_text())"
    )
    command = [sys.executable, "-c", code, *arguments]
    status = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    assert found
    return int(found[1]) * 1024
