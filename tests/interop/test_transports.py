"""Transports beside a real skopeo: what either writes, the other reads."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from coco_kp.cli.main import run
from coco_kp.errors import InputError
from coco_kp.model.manifest import ImageIndex, ImageManifest
from coco_kp.model.reference import parse_image_reference
from coco_kp.transport import Source, open_sink, open_source, read_blob
from tests.peers.registry import REGISTRIES
from tests.peers.skopeo import Skopeo
from tests.support.access import PLAIN
from tests.support.blobs import copy_blob
from tests.support.image import Image, tar, write_image
from tests.support.stored import image as in_memory
from tests.support.stored import index, store

pytestmark = pytest.mark.peer

LIST = index(in_memory(b"layer one", b"shared"), in_memory(b"layer two", b"shared"))


def opened(name: str) -> Source:
    return open_source(parse_image_reference(name), PLAIN)


def contents(name: str) -> tuple[bytes, list[bytes]]:
    """Read an image's config and layers, each checked."""
    with opened(name) as source:
        manifest = source.manifest()
        assert isinstance(manifest, ImageManifest)
        layers = [read_blob(source, layer, 1 << 30) for layer in manifest.layers]
        return read_blob(source, manifest.config, 1 << 20), layers


def copy(source_name: str, target_name: str) -> None:
    """Copy an image as it is, with our transports alone."""
    with (
        opened(source_name) as source,
        open_sink(parse_image_reference(target_name), PLAIN) as sink,
    ):
        manifest = source.manifest()
        assert isinstance(manifest, ImageManifest)
        for blob in (manifest.config, *manifest.layers):
            copy_blob(source, sink, blob)
        sink.put_manifest(manifest)
        sink.set_reference(manifest)


@pytest.fixture(params=["oci", "oci-archive", "dir", *REGISTRIES])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param in REGISTRIES:
        (tmp_path / "registry").mkdir()
        with REGISTRIES[request.param](tmp_path / "registry") as address:
            yield f"docker://{address}/team/app:v1"
        return
    name = f"{request.param}:{tmp_path}/place"
    yield name if request.param == "dir" else f"{name}:v1"


class TestImages:
    def test_coco_kp_reads_images_written_by_skopeo(
        self, skopeo: Skopeo, image: Image, place: str
    ) -> None:
        skopeo.copy(image.reference, place)
        assert contents(place) == (image.config, [layer.blob for layer in image.layers])

    def test_skopeo_reads_images_written_by_coco_kp(
        self, skopeo: Skopeo, image: Image, place: str, tmp_path: Path
    ) -> None:
        copy(image.reference, place)
        copied = Image(tmp_path / "copied")
        skopeo.copy(place, copied.reference, "--preserve-digests")
        assert copied.manifest == image.manifest
        assert copied.layers == image.layers

    def test_coco_kp_and_skopeo_replace_images_of_each_other(
        self, skopeo: Skopeo, image: Image, place: str, tmp_path: Path
    ) -> None:
        other = write_image(tmp_path / "other", [tar({"etc/motd": b"other"})])
        skopeo.copy(image.reference, place)
        copy(other.reference, place)
        assert contents(place)[1] == [layer.blob for layer in other.layers]
        skopeo.copy(image.reference, place)
        assert contents(place)[1] == [layer.blob for layer in image.layers]


class TestLists:
    def test_skopeo_reads_indexes_written_by_coco_kp(
        self, skopeo: Skopeo, place: str, tmp_path: Path
    ) -> None:
        with open_sink(parse_image_reference(place), PLAIN) as sink:
            store(sink, LIST)
        skopeo.copy(place, f"dir:{tmp_path}/copied", "--all", "--preserve-digests")
        assert (tmp_path / "copied" / "manifest.json").read_bytes() == LIST.top.raw

    def test_coco_kp_reads_indexes_written_by_skopeo(
        self, skopeo: Skopeo, place: str, tmp_path: Path
    ) -> None:
        first = f"oci:{tmp_path}/first:v1"
        with open_sink(parse_image_reference(first)) as sink:
            store(sink, LIST)
        skopeo.copy(first, place, "--all", "--preserve-digests")
        with opened(place) as source:
            top = source.manifest()
            assert isinstance(top, ImageIndex)
            assert top.raw == LIST.top.raw
            assert [source.manifest(entry).raw for entry in top.manifests] == [
                child.raw for child in LIST.children
            ]
            for blob, data in LIST.blobs.items():
                assert read_blob(source, blob, 1 << 20) == data


def test_coco_kp_reads_docker_archives_written_by_skopeo(
    skopeo: Skopeo, image: Image, tmp_path: Path
) -> None:
    """skopeo writes layers uncompressed there, under their diff_ids."""
    name = f"docker-archive:{tmp_path}/saved.tar"
    skopeo.copy(image.reference, f"{name}:h.example/team/app:v1")
    config, layers = contents(f"{name}:h.example/team/app:v1")
    assert contents(name) == (config, layers)
    assert json.loads(config)["rootfs"] == json.loads(image.config)["rootfs"]
    skopeo.copy(name, f"oci:{tmp_path}/again", "--dest-oci-accept-uncompressed-layers")
    assert [layer.blob for layer in Image(tmp_path / "again").layers] == layers


def test_skopeo_reads_docker_archives_that_decrypt_wrote(
    skopeo: Skopeo, image: Image, tmp_path: Path
) -> None:
    encrypted, archive = f"oci:{tmp_path}/e", f"docker-archive:{tmp_path}/i.tar:h.example/app:v1"
    assert run(["encrypt", image.reference, encrypted, "--sample"]) == 0
    assert run(["decrypt", encrypted, archive, "--kbc", "sample"]) == 0
    for number, name in enumerate((archive, f"docker-archive:{tmp_path}/i.tar:@0")):
        read = tmp_path / str(number)
        skopeo.copy(name, f"oci:{read}", "--dest-oci-accept-uncompressed-layers")
        assert json.loads(Image(read).config)["rootfs"] == json.loads(image.config)["rootfs"]
        assert [gunzipped(layer.blob) for layer in Image(read).layers] == [
            gunzipped(layer.blob) for layer in image.layers
        ]


def gunzipped(blob: bytes) -> bytes:
    return gzip.decompress(blob) if blob.startswith(b"\x1f\x8b") else blob


def test_coco_kp_reads_other_transports_through_skopeo(
    skopeo: Skopeo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = tmp_path / "layer.tar"
    layer.write_bytes(tar({"etc/motd": b"hello"}))
    policy = skopeo.home / ".config" / "containers" / "policy.json"
    policy.parent.mkdir(parents=True)
    policy.write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
    monkeypatch.setenv("HOME", str(skopeo.home))
    monkeypatch.setenv("PATH", f"{skopeo.program.parent}:{os.environ['PATH']}")
    _, layers = contents(f"tarball:{layer}")
    assert layers == [layer.read_bytes()]


class TestAppendedMembers:
    """``tar -r`` appends: skopeo reads the last of a name in OCI archives, the first in docker's.

    docker load takes the last, so that what would differ is refused.
    """

    def test_coco_kp_and_skopeo_read_image_that_was_appended_last(
        self, skopeo: Skopeo, image: Image, tmp_path: Path
    ) -> None:
        other = write_image(tmp_path / "other", [tar({"etc/motd": b"other"})])
        name = f"oci-archive:{tmp_path}/a.tar:v1"
        skopeo.copy(image.reference, name)
        copy(other.reference, f"oci:{tmp_path}/named:v1")
        with tarfile.open(tmp_path / "a.tar", "a") as archive:
            archive.add(tmp_path / "named", arcname=".")
        skopeo.copy(name, f"oci:{tmp_path}/copied")
        assert Image(tmp_path / "copied").manifest == other.manifest
        assert contents(name) == contents(other.reference)

    @pytest.mark.parametrize("same", [True, False])
    def test_coco_kp_refuses_docker_archive_of_which_skopeo_reads_first_member(
        self, skopeo: Skopeo, image: Image, tmp_path: Path, same: bool
    ) -> None:
        name = f"docker-archive:{tmp_path}/a.tar"
        skopeo.copy(image.reference, name)
        config, _ = contents(name)
        with tarfile.open(tmp_path / "a.tar") as archive:
            found = archive.extractfile("manifest.json")
            assert found is not None
            data = found.read() if same else b"[]"
        with tarfile.open(tmp_path / "a.tar", "a") as archive:
            info = tarfile.TarInfo("manifest.json")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        skopeo.copy(name, f"dir:{tmp_path}/read")
        assert contents(f"dir:{tmp_path}/read")[0] == config
        if same:
            assert contents(name)[0] == config
        else:
            with pytest.raises(InputError, match=r"'manifest.json' twice"):
                opened(name)
