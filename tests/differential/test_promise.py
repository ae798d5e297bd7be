"""The promise, held to every other reader: when coco-kp says yes, nobody else reads a layer.

Each altered image goes to coco-kp, and where that says yes to real readers. See `corpus` for what
is altered, `readers` for whom it goes to.
"""

from __future__ import annotations

import gzip
import json
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeVar

import pytest

from coco_kp.crypto import Kek
from coco_kp.errors import CocoKpError
from coco_kp.image.decrypt import decrypt_image
from coco_kp.image.encrypt import encrypt_image
from coco_kp.image.verify import verify_image
from coco_kp.keys.wrapper import KekOpener, KekRecipient
from coco_kp.model.resource_uri import parse_key_id
from tests.differential.corpus import (
    KEK,
    KID,
    SECRET,
    Parts,
    altered,
    encrypted_parts,
    plain_parts,
    read_all,
)
from tests.differential.readers import Copier, Podman, Reader, Umoci
from tests.peers.skopeo import CLIENTS, Skopeo
from tests.support.provider import our_config

pytestmark = pytest.mark.peer

T = TypeVar("T")

SECONDS: Final = 60
"""Processor time of one command on images of a few kilobytes; real ones take a hundredth."""


def names_of(kind: str) -> list[str]:
    """Return the names of all altered images; keys are drawn anew, names are ever the same."""
    with TemporaryDirectory() as folder:
        return [name for name, _ in altered(parts_of(kind, Path(folder)))]


def parts_of(kind: str, folder: Path) -> Parts:
    plain = plain_parts(folder / "plain")
    return plain if kind == "plain" else encrypted_parts(folder / "plain", folder / "encrypted")


class Workshop:
    """The images to alter, who reads them, and fresh folders."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count()
        self.images = {
            kind: dict(altered(parts_of(kind, self.fresh()))) for kind in ("plain", "encrypted")
        }
        keys = folder / "keys.json"
        keys.write_text(json.dumps({"default/key/1": b64encode(KEK).decode()}))
        keys.chmod(0o600)
        self.provider = our_config(folder / "ocicrypt.json", "--cmd", "--", "--keys", str(keys))

    def fresh(self) -> Path:
        """Return a folder that is there and empty."""
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        return folder

    def altered(self, kind: str, name: str) -> Path:
        """Write an altered image and return its layout."""
        return self.images[kind][name](self.fresh() / "image")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def skopeo(tmp_path_factory: pytest.TempPathFactory) -> Copier:
    return copier("skopeo", tmp_path_factory)


@pytest.fixture(scope="module", params=["some", pytest.param("all", marks=pytest.mark.full)])
def readers(
    request: pytest.FixtureRequest, skopeo: Copier, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Reader]:
    """The oldest and the newest client that copies, and one that unpacks; or all others."""
    if request.param == "some":
        return {
            "umoci": Umoci(),
            "skopeo": skopeo,
            "cimage": copier("cimage", tmp_path_factory),
        }
    return {"podman": Podman(), "skopeo-sid": copier("skopeo-sid", tmp_path_factory)}


def copier(name: str, folders: pytest.TempPathFactory) -> Copier:
    return Copier(Skopeo(CLIENTS[name](), folders.mktemp(name)))


@pytest.mark.parametrize("name", names_of("encrypted"))
def test_verified_image_is_readable_to_nobody_without_the_key(
    name: str, workshop: Workshop, readers: dict[str, Reader], skopeo: Copier
) -> None:
    layout = workshop.altered("encrypted", name)
    if not verified(layout):
        return
    assert_nobody_reads(layout, readers, workshop)
    ours = decrypted(layout, workshop.fresh() / "ours")
    assert ours is not None, "verify said yes, and decrypt no"
    theirs = skopeo.decrypted(layout, workshop.fresh(), workshop.provider)
    if theirs is not None:
        assert set(ours) <= set(theirs), "skopeo decrypts it to something else"


@pytest.mark.parametrize("name", names_of("plain"))
def test_image_that_was_encrypted_is_readable_to_nobody_and_comes_back(
    name: str, workshop: Workshop, readers: dict[str, Reader]
) -> None:
    source = workshop.altered("plain", name)
    target = workshop.fresh() / "encrypted"
    assert not verified(source), "an image that is not encrypted"
    if not encrypted(source, target):
        return
    assert_nobody_reads(target, readers, workshop)
    ours = decrypted(target, workshop.fresh() / "ours")
    assert ours is not None, "encrypt said yes, and decrypt no"
    assert ours == [layer for image in read_all(source) for layer in image.layers]


def test_every_reader_reads_a_plain_image(workshop: Workshop, readers: dict[str, Reader]) -> None:
    """Who finds nothing in a plain image would find nothing anywhere."""
    layout = workshop.altered("plain", "manifest: with unknown")
    for name, each in readers.items():
        assert {"secret0", "secret1"} <= set(each.readable(layout, workshop.fresh())), name


def test_skopeo_decrypts_an_image_with_its_key(workshop: Workshop, skopeo: Copier) -> None:
    layout = workshop.altered("encrypted", "manifest: with unknown")
    found = skopeo.decrypted(layout, workshop.fresh(), workshop.provider)
    assert found is not None
    assert {gzip.compress(layer, mtime=0) for layer in SECRET} <= set(found)


def assert_nobody_reads(layout: Path, readers: Mapping[str, Reader], workshop: Workshop) -> None:
    found = {name: each.readable(layout, workshop.fresh()) for name, each in readers.items()}
    assert not any(found.values()), found


def verified(layout: Path) -> bool:
    """Return whether ``verify`` with the key says yes."""
    report = outcome(lambda: verify_image(f"oci:{layout}", [KekOpener(Kek(KEK))], jobs=1))
    return report is not None and report.failure is None


def encrypted(source: Path, target: Path) -> bool:
    """Return whether ``encrypt`` says yes."""
    recipient = KekRecipient(parse_key_id(KID), Kek(KEK))
    done = outcome(
        lambda: encrypt_image(f"oci:{source}", f"oci:{target}:latest", [recipient], jobs=1)
    )
    assert done or not target.exists(), "something is left of what failed"
    return done is not None


def decrypted(layout: Path, target: Path) -> list[bytes] | None:
    """Return the layers that ``decrypt`` gives back, None where it says no."""
    openers = [KekOpener(Kek(KEK))]
    done = outcome(lambda: decrypt_image(f"oci:{layout}", f"oci:{target}", openers, jobs=1))
    return [layer for image in read_all(target) for layer in image.layers] if done else None


def outcome(call: Callable[[], T]) -> T | None:
    """Return what a call gives, or None where it ends with an error of those that users see."""
    began = time.process_time()
    try:
        return call()
    except CocoKpError:
        return None
    finally:
        assert time.process_time() - began < SECONDS
