"""Trees of manifests: bounded, consistent, and written as they were where nothing changes."""

from __future__ import annotations

from typing import Any

import pytest

from coco_kp.errors import InputError
from coco_kp.image.tree import (
    MAX_BYTES,
    MAX_NESTING,
    ImageNode,
    IndexNode,
    images,
    pruned,
    read_tree,
)
from coco_kp.model.manifest import Descriptor, Manifest, parse_manifest
from coco_kp.model.media_type import OCI_EMPTY
from coco_kp.transport.base import RawBlob, Source
from tests.support.documents import (
    CONFIG,
    INDEX,
    MANIFEST,
    Document,
    config,
    descriptor,
    index,
    manifest,
    sha256,
)
from tests.support.nodes import GZIP, L, attestation, digest, image, listed


class Held(Source):
    """A source in memory."""

    reference = "held:image"

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.top = b""
        self.asked: list[str] = []

    def put(self, media_type: str, data: bytes) -> Document:
        self.blobs[sha256(data)] = self.top = data
        return descriptor(media_type, data)

    def image(self, layers: int, diff_ids: int, **more: Any) -> Document:
        described = self.put(CONFIG, config([f"sha256:{'0' * 64}"] * diff_ids))
        return self.put(
            MANIFEST, manifest(described, [L("layer", GZIP).document()] * layers, **more)
        )

    def index(self, *entries: Document, **more: Any) -> Document:
        return self.put(INDEX, index(entries, **more))

    def _top_manifest(self) -> Manifest:
        return parse_manifest(self.top)

    def _manifest_bytes(self, descriptor: Descriptor) -> bytes | None:
        self.asked.append(str(descriptor.digest))
        return self.blobs.get(str(descriptor.digest))

    def _open_blob(self, blob: Descriptor) -> RawBlob:
        self.asked.append(str(blob.digest))
        return Bytes(self.blobs[str(blob.digest)])


class Bytes(RawBlob):
    def __init__(self, data: bytes) -> None:
        self.data = data

    def readinto(self, buffer: memoryview) -> int:
        count = min(len(buffer), len(self.data))
        buffer[:count], self.data = self.data[:count], self.data[count:]
        return count

    def start(self, offset: int) -> None:
        self.data = self.data[offset:]

    def close(self) -> None:
        pass


def test_read_tree_takes_platform_and_diff_ids_from_config() -> None:
    source = Held()
    source.image(2, 2)
    (only,) = images(read_tree(source))
    assert str(only.platform) == "linux/amd64"
    assert str(only.diff_id(1)) == f"sha256:{'0' * 64}"
    (only,) = images(read_tree(source, configs=False))
    assert only.platform is None
    assert only.diff_id(1) is None


def test_read_tree_accepts_config_without_diff_ids() -> None:
    source = Held()
    source.image(2, 0)
    (only,) = images(read_tree(source))
    assert only.diff_id(0) is None


@pytest.mark.parametrize("diff_ids", [1, 3])
def test_read_tree_refuses_config_with_another_number_of_layers(diff_ids: int) -> None:
    source = Held()
    source.image(2, diff_ids)
    with pytest.raises(InputError, match="has 2 layers, but its config lists"):
        read_tree(source)


def test_read_tree_limits_nesting_of_indexes() -> None:
    source = Held()
    entry = source.image(1, 1)
    for _ in range(MAX_NESTING):
        entry = source.index(entry)
    assert len(list(images(read_tree(source)))) == 1
    source.index(entry)
    with pytest.raises(InputError, match="too deeply"):
        read_tree(source)


def test_read_tree_limits_total_size_of_manifests() -> None:
    """Sixteen entries of four mebibytes each would be a cheap way to fill memory."""
    source = Held()
    entry = source.image(1, 1, annotations={"pad": " " * (MAX_BYTES // 5)})

    def index(pad: int) -> int:
        source.index(*[entry] * 4, annotations={"pad": " " * pad})
        return len(source.top) + 4 * int(entry["size"])

    pad = MAX_BYTES - index(0)
    assert index(pad) == MAX_BYTES
    read_tree(source)
    index(pad + 1)
    with pytest.raises(InputError, match="exceed"):
        read_tree(source)


def test_read_tree_reads_only_entries_that_are_selected() -> None:
    source = Held()
    there, missing = source.image(1, 1), source.image(2, 2)
    del source.blobs[missing["digest"]]
    source.index(there, missing)
    tree = read_tree(source, select=lambda entries: [e.size == there["size"] for e in entries])
    assert isinstance(tree, IndexNode)
    assert [str(image.manifest.digest) for image in images(tree)] == [there["digest"]]
    assert [str(entry.digest) for entry in tree.unread] == [missing["digest"]]


def test_read_tree_reads_each_manifest_and_config_once() -> None:
    source = Held()
    entry = source.image(1, 1)
    source.index(*[entry] * 5)
    assert len(list(images(read_tree(source)))) == 5
    assert len(source.asked) == len(set(source.asked)) == 2


def test_read_tree_names_platform_of_manifest_that_is_missing() -> None:
    source = Held()
    missing = source.image(1, 1)
    del source.blobs[missing["digest"]]
    source.index(missing | {"platform": {"os": "linux", "architecture": "arm64"}})
    with pytest.raises(InputError, match="the entry for 'linux/arm64': .*lacks the manifest"):
        read_tree(source)


STATEMENT = L("statement", "application/vnd.in-toto+json")
MARK = {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
TARGET = L("a", MANIFEST).document()


@pytest.mark.parametrize(
    "found",
    [
        attestation(),
        attestation(platform=None, os="", architecture=""),
        image(STATEMENT, platform=None, config_type=OCI_EMPTY, config=b"{}", subject=TARGET),
        attestation(L("s", "application/vnd.dev.cosign.simplesigning.v1+json")),
        attestation(L("s", "application/vnd.dsse.envelope.v1+json")),
        attestation(L("s", "application/vnd.dev.sigstore.bundle.v0.3+json")),
        attestation(L("s", "text/spdx"), L("s", "application/vnd.cyclonedx+json")),
    ],
)
def test_manifest_of_statements_without_platform_describes_another(found: ImageNode) -> None:
    assert found.describes_another


@pytest.mark.parametrize(
    "media_type",
    [
        "application/octet-stream",
        "application/vnd.oci.image.layer.v2.tar+gzip",
        "application/vnd.in-toto.tar+gzip",
        "application/vnd.in-toto+json+gzip",
        "application/vnd.in-toto+json;v=1",
        "Application/vnd.in-toto+json",
        " application/vnd.in-toto+json",
        "application/vnd.in-toto+json ",
        "application/vnd.in-toto+json\n",
        "application/vnd.in-toto",
        "application/vnd.dev.cosign.tar+gzip",
        "Application/vnd.oci.image.layer.v1.tar+gzip",
        "",
    ],
)
def test_manifest_with_layer_that_is_no_statement_is_an_image(media_type: str) -> None:
    assert not attestation(STATEMENT, L("files", media_type), entry=MARK).describes_another


@pytest.mark.parametrize(
    "found",
    [
        attestation(platform="linux/amd64", entry=MARK),
        attestation(platform="unknown/amd64", entry=MARK),
        attestation(platform="/amd64", entry=MARK),
        attestation(entry=MARK, os="linux", architecture="amd64"),
        attestation(L("s", "application/vnd.in-toto+json", urls=("https://a.example/layer",))),
        attestation(entry=MARK, config_type="Application/vnd.oci.image.config.v1+json"),
        image(STATEMENT, platform=None, entry=MARK, config_type="", config=b"{}", subject=TARGET),
        attestation(entry=MARK, rootfs={"type": "layers", "diff_ids": [digest("files")]}),
        image(platform="unknown/unknown", config_type=OCI_EMPTY, config=b"{}", entry=MARK),
    ],
    ids=[
        *(
            "platform",
            "half unknown",
            "half",
            "config's platform",
            "urls",
            "config's type",
            "no type",
            "diff_ids",
        ),
        "empty",
    ],
)
def test_manifest_that_looks_like_an_image_is_one_whatever_it_is_marked_as(
    found: ImageNode,
) -> None:
    assert not found.describes_another


def test_pruned_returns_smaller_tree_or_none() -> None:
    whole = listed(image(L("a")), image(L("b"), platform="linux/arm64"))
    one = pruned(whole, lambda found: str(found) == "linux/arm64")
    assert one is not None
    assert [str(found) for found in images(one)] == ["linux/arm64"]
    assert pruned(whole, lambda _: False) is None


def test_read_tree_of_incomplete_list_notes_manifest_that_is_missing() -> None:
    source = Held()
    there, missing = source.image(1, 1), source.image(2, 2)
    del source.blobs[missing["digest"]]
    source.index(there, missing)
    tree = read_tree(source, incomplete=True)
    assert isinstance(tree, IndexNode)
    assert [str(image.manifest.digest) for image in images(tree)] == [there["digest"]]
    assert [str(entry.digest) for entry in tree.missing] == [missing["digest"]]
