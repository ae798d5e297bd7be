"""What ``docker save`` and ``podman save`` write, old and new."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from coco_kp.errors import InputError, IntegrityError
from coco_kp.model.manifest import ImageManifest
from coco_kp.model.media_type import DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST
from coco_kp.model.reference import FileReference
from coco_kp.transport import read_blob
from coco_kp.transport.docker_archive import DockerArchiveSource
from tests.support.documents import sha256

LAYERS = (b"layer one" * 100, b"layer two" * 100)


def config(*layers: bytes, **more: Any) -> bytes:
    rootfs = {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]}
    return json.dumps({"os": "linux", "rootfs": rootfs, **more}).encode()


def archive(
    path: Path,
    members: Mapping[str, bytes | tuple[bytes, str]],
    images: object,
    packed: bool = False,
) -> Path:
    """Write an archive; a member that is a pair is a link of that kind to that name."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as writer:
        for name, content in {**members, "manifest.json": json.dumps(images).encode()}.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                info.type, info.linkname = content
                writer.addfile(info)
            else:
                info.size = len(content)
                writer.addfile(info, io.BytesIO(content))
    path.write_bytes(gzip.compress(stream.getvalue()) if packed else stream.getvalue())
    return path


def source(path: Path, name: str | None = None, position: int | None = None) -> DockerArchiveSource:
    return DockerArchiveSource(FileReference("docker-archive", str(path), name, position))


def entry(config_name: str, *layers: str, tags: object = None) -> dict[str, object]:
    return {"Config": config_name, "RepoTags": tags, "Layers": list(layers)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "saved.tar"


def read(opened: DockerArchiveSource) -> tuple[bytes, list[bytes]]:
    manifest = opened.manifest()
    assert isinstance(manifest, ImageManifest)
    assert manifest.media_type == DOCKER_MANIFEST
    assert manifest.config.media_type == DOCKER_CONFIG
    layers = [read_blob(opened, layer, 1 << 20) for layer in manifest.layers]
    return read_blob(opened, manifest.config, 1 << 20), layers


@pytest.mark.parametrize("packed", [False, True])
def test_docker_archive_source_reads_old_archive(path: Path, packed: bool) -> None:
    members = {
        "c.json": config(*LAYERS),
        "1/VERSION": b"1.0",
        "1/layer.tar": LAYERS[0],
        "2/layer.tar": LAYERS[1],
        "repositories": b"{}",
    }
    archive(path, members, [entry("c.json", "1/layer.tar", "2/layer.tar")], packed)
    with source(path) as opened:
        assert read(opened) == (config(*LAYERS), list(LAYERS))
        manifest = opened.manifest()
        assert isinstance(manifest, ImageManifest)
        assert [layer.media_type for layer in manifest.layers] == [DOCKER_LAYER] * 2
        assert [str(layer.digest) for layer in manifest.layers] == [sha256(one) for one in LAYERS]


def test_docker_archive_source_reads_archive_with_oci_layout(path: Path) -> None:
    names = [f"blobs/sha256/{sha256(data)[7:]}" for data in (config(*LAYERS), *LAYERS)]
    members = dict(zip(names, (config(*LAYERS), *LAYERS), strict=True))
    members["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    archive(path, members, [entry(*names)])
    with source(path) as opened:
        assert read(opened) == (config(*LAYERS), list(LAYERS))


def test_docker_archive_source_picks_image_by_position(path: Path) -> None:
    members: dict[str, bytes | tuple[bytes, str]] = {
        name: data
        for number, layer in enumerate(LAYERS)
        for name, data in ((f"{number}.json", config(layer)), (f"{number}/layer.tar", layer))
    }
    archive(path, members, [entry(f"{n}.json", f"{n}/layer.tar") for n in range(len(LAYERS))])
    for number, layer in enumerate(LAYERS):
        with source(path, position=number) as opened:
            assert read(opened)[1] == [layer]
    with pytest.raises(InputError, match="names 0 of") as caught:
        source(path, position=9)
    assert "'@0'" in caught.value.hint


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_docker_archive_source_follows_link_to_another_layer(path: Path, kind: bytes) -> None:
    link = "../1/layer.tar" if kind == tarfile.SYMTYPE else "1/layer.tar"
    members: dict[str, bytes | tuple[bytes, str]] = {
        "c.json": config(LAYERS[0], LAYERS[0]),
        "1/layer.tar": LAYERS[0],
        "2/layer.tar": (kind, link),
    }
    archive(path, members, [entry("c.json", "1/layer.tar", "2/layer.tar")])
    with source(path) as opened:
        assert read(opened)[1] == [LAYERS[0], LAYERS[0]]


def appended(path: Path, name: str, content: bytes) -> None:
    """Append a member, as ``tar -r`` does."""
    with tarfile.open(path, mode="a") as writer:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        writer.addfile(info, io.BytesIO(content))


def test_docker_archive_source_reads_member_that_was_appended_again(path: Path) -> None:
    archive(path, {"c.json": config(LAYERS[0]), "l": LAYERS[0]}, [entry("c.json", "l")])
    with tarfile.open(path) as saved:
        for name in saved.getnames():
            reader = saved.extractfile(name)
            assert reader is not None
            appended(path, name, reader.read())
    with source(path) as opened:
        assert read(opened)[1] == [LAYERS[0]]


@pytest.mark.parametrize("name", ["c.json", "l", "manifest.json"])
def test_docker_archive_source_refuses_appended_member_that_docker_and_skopeo_read_differently(
    path: Path, name: str
) -> None:
    archive(path, {"c.json": config(LAYERS[0]), "l": LAYERS[0]}, [entry("c.json", "l")])
    appended(path, name, b"other")
    with pytest.raises(InputError, match=f"'{name}' twice") as caught:
        source(path)
    assert "pack it anew" in caught.value.hint


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../../etc/passwd", "../3/layer.tar", "../2/layer.tar"]
)
def test_docker_archive_source_refuses_link_out_of_archive(path: Path, target: str) -> None:
    members: dict[str, bytes | tuple[bytes, str]] = {
        "c.json": config(LAYERS[0]),
        "2/layer.tar": (tarfile.SYMTYPE, target),
    }
    archive(path, members, [entry("c.json", "2/layer.tar")])
    with pytest.raises(InputError, match=r"has no '2/layer\.tar'"):
        source(path)


@pytest.mark.parametrize("named_by_digest", [True, False])
def test_docker_archive_source_keeps_compressed_layers(path: Path, named_by_digest: bool) -> None:
    packed = gzip.compress(LAYERS[0])
    name = f"blobs/sha256/{sha256(packed)[7:]}" if named_by_digest else "1/layer.tar"
    archive(path, {"c.json": config(LAYERS[0]), name: packed}, [entry("c.json", name)])
    with source(path) as opened:
        assert read(opened)[1] == [packed]
        manifest = opened.manifest()
        assert isinstance(manifest, ImageManifest)
        assert manifest.layers[0].media_type == f"{DOCKER_LAYER}.gzip"
        assert str(manifest.layers[0].digest) == sha256(packed)


class TestNames:
    @pytest.fixture
    def saved(self, path: Path) -> Path:
        members = {"a": config(LAYERS[0]), "b": config(LAYERS[1]), "1": LAYERS[0], "2": LAYERS[1]}
        images = [
            entry("a", "1", tags=["nginx:1.27", "nginx:latest"]),
            entry("b", "2", tags=["h.example/team/app:v1", "<none>:<none>"]),
        ]
        return archive(path, members, images)

    @pytest.mark.parametrize(
        ("name", "layer"),
        [
            ("nginx", LAYERS[0]),
            ("docker.io/library/nginx:1.27", LAYERS[0]),
            ("h.example/team/app:v1", LAYERS[1]),
        ],
    )
    def test_docker_archive_source_picks_image_by_name(
        self, saved: Path, name: str, layer: bytes
    ) -> None:
        with source(saved, name) as opened:
            assert read(opened)[1] == [layer]

    @pytest.mark.parametrize(("name", "count"), [(None, 2), ("nginx:2", 0), ("app:v1", 0)])
    def test_docker_archive_source_refuses_name_that_does_not_pick_one_image(
        self, saved: Path, name: str | None, count: int
    ) -> None:
        with pytest.raises(InputError, match=f"names {count} of 2 images") as caught:
            source(saved, name)
        assert "'nginx:1.27', 'nginx:latest', 'h.example/team/app:v1'" in caught.value.hint


class TestDamage:
    def test_docker_archive_source_detects_damaged_layer(self, path: Path) -> None:
        archive(path, {"c": config(LAYERS[0]), "1": LAYERS[1]}, [entry("c", "1")])
        with source(path) as opened, pytest.raises(IntegrityError, match="digest names"):
            read(opened)

    def test_docker_archive_source_detects_damaged_compressed_layer(self, path: Path) -> None:
        name = f"blobs/sha256/{sha256(LAYERS[0])[7:]}"
        archive(path, {"c": config(LAYERS[0]), name: gzip.compress(b"x")}, [entry("c", name)])
        with source(path) as opened, pytest.raises(IntegrityError, match="digest names"):
            read(opened)

    def test_docker_archive_source_detects_damaged_config(self, path: Path) -> None:
        name = f"blobs/sha256/{'ab' * 32}"
        archive(path, {name: config(), "x": b""}, [entry(name)])
        with pytest.raises(IntegrityError, match="is damaged"):
            source(path)

    @pytest.mark.parametrize(
        ("members", "images", "words"),
        [
            ({}, {}, "not an array"),
            ({}, [], "names 0 of 0 images"),
            ({}, [5], "names 0 of 0 images"),
            ({}, [{"Layers": []}], "has no 'Config'"),
            ({}, [entry("c")], "has no 'c'"),
            ({"c": b"x"}, [entry("c")], "not valid JSON"),
            ({"c": b"{}"}, [entry("c", "1")], "has 1 layers, its config names 0"),
            ({"c": b"{}"}, [entry("c") | {"layers": ["1"]}], "differ in case only"),
            ({"c": b'{"rootfs":{"diff_ids":["md5:x"]}}', "1": b""}, [entry("c", "1")], "digest"),
            ({"c": config(b"x")}, [entry("c")], "has 0 layers, its config names 1"),
            ({"c": config(b"x")}, [entry("c", "1")], "has no '1'"),
        ],
    )
    def test_docker_archive_source_refuses_malformed_manifest(
        self, path: Path, members: Mapping[str, bytes], images: object, words: str
    ) -> None:
        archive(path, members, images)
        with pytest.raises(InputError, match=words):
            source(path)
