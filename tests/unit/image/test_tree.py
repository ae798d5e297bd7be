"""Trees of manifests: bounded, consistent, and written as they were where nothing changes."""

from __future__ import annotations

import pytest

from coco_kp.errors import InputError
from coco_kp.image import tree as tree_module
from coco_kp.image.tree import MAX_NESTING, images, pruned, read_tree
from coco_kp.model.manifest import Descriptor, Manifest, parse_manifest
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
from tests.support.nodes import GZIP, L, image, listed


class Held(Source):
    """A source in memory."""

    reference = "held:image"

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.top = b""

    def put(self, media_type: str, data: bytes) -> Document:
        self.blobs[sha256(data)] = self.top = data
        return descriptor(media_type, data)

    def image(self, layers: int, diff_ids: int) -> Document:
        described = self.put(CONFIG, config([f"sha256:{'0' * 64}"] * diff_ids))
        return self.put(MANIFEST, manifest(described, [L("layer", GZIP).document()] * layers))

    def index(self, *entries: Document) -> Document:
        return self.put(INDEX, index(entries))

    def _top_manifest(self) -> Manifest:
        return parse_manifest(self.top)

    def _manifest_bytes(self, descriptor: Descriptor) -> bytes:
        return self.blobs[str(descriptor.digest)]

    def _open_blob(self, blob: Descriptor) -> RawBlob:
        return Bytes(self.blobs[str(blob.digest)])


class Bytes(RawBlob):
    def __init__(self, data: bytes) -> None:
        self.data = data

    def readinto(self, buffer: memoryview) -> int:
        count = min(len(buffer), len(self.data))
        buffer[:count], self.data = self.data[:count], self.data[count:]
        return count

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


def test_read_tree_limits_total_size_of_manifests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen entries of four mebibytes each would be a cheap way to fill memory."""
    source = Held()
    entry = source.image(1, 1)
    source.index(*[entry] * 8)
    total = len(source.top) + 8 * entry["size"]
    monkeypatch.setattr(tree_module, "MAX_BYTES", total)
    read_tree(source)
    monkeypatch.setattr(tree_module, "MAX_BYTES", total - 1)
    with pytest.raises(InputError, match="exceed"):
        read_tree(source)


def test_pruned_returns_smaller_tree_or_none() -> None:
    whole = listed(image(L("a")), image(L("b"), platform="linux/arm64"))
    one = pruned(whole, lambda found: str(found) == "linux/arm64")
    assert one is not None
    assert [str(found) for found in images(one)] == ["linux/arm64"]
    assert pruned(whole, lambda _: False) is None
