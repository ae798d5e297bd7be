"""What encrypting says of the digest that decrypting will give, held to what it gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.command import Command
from tests.support.documents import INDEX, MANIFEST, TAR, Layer, gzipped
from tests.support.image import tar, write_image
from tests.support.index import write_index
from tests.support.layout import LayoutWriter, entries

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
STATEMENT = "application/vnd.in-toto+json"


def listed(folder: Path) -> str:
    return write_index(folder, {write_image(folder / "one", [tar({"a": b"one"})]): {}})


def attested(folder: Path) -> str:
    image = write_image(folder / "one", [tar({"a": b"one"})])
    statement = write_image(folder / "stated", [Layer(b"{}", STATEMENT)], settings=b"{}")
    return write_index(folder / "list", {image: {}, statement: {}})


def written_otherwise(kind: str) -> Callable[[Path], str]:
    """An image, or a list of one, whose manifest is JSON as nobody writes it here."""

    def write(folder: Path) -> str:
        image = write_image(folder, [tar({"a": b"one"})])
        layout, (top,) = LayoutWriter(folder), entries(folder)
        document: object = image.manifest
        if kind == INDEX:
            document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [top]}
        layout.name(layout.put(kind, json.dumps(document, indent=3).encode()))
        return image.reference

    return write


def of_docker(folder: Path) -> str:
    return write_image(folder, [tar({"a": b"one"})], mediaType=DOCKER).reference


def mistyped(folder: Path) -> str:
    return write_image(folder, [replace(gzipped(tar({"a": b"one"})), media_type=TAR)]).reference


def small(folder: Path) -> str:
    return write_image(folder, [tar({"a": b"one"})]).reference


@pytest.mark.parametrize(
    ("write", "same"),
    [
        (small, True),
        (listed, True),
        (attested, False),
        (written_otherwise(MANIFEST), False),
        (written_otherwise(INDEX), False),
        (of_docker, False),
        (mistyped, False),
    ],
)
def test_encrypt_says_if_decrypting_gives_another_digest(
    write: Callable[[Path], str], same: bool, tmp_path: Path, command: Command
) -> None:
    source = write(tmp_path / "source")
    (before,) = entries(Path(source.removeprefix("oci:")))
    said = command("encrypt", source, f"oci:{tmp_path}/e", "--sample").err
    command("decrypt", f"oci:{tmp_path}/e", f"oci:{tmp_path}/d", "--kbc", "sample")
    (after,) = entries(tmp_path / "d")
    assert (before["digest"] == after["digest"]) is same
    notice = f"decrypted, the image will have another digest than {before['digest']}: "
    assert (notice in said) is not same
    assert (f"{notice}layers and config are as before" in said) is not same
