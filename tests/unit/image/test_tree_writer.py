"""Manifests that point at others, written after those have changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from coco_kp.errors import InputError
from coco_kp.image.tree import DESCRIBED, ImageNode, IndexNode, Node, images, read_tree
from coco_kp.image.tree_writer import MAX_SUBJECTS, write_tree
from coco_kp.model.digest import Digest
from coco_kp.model.lazy_pull import HAS_ZSTD
from coco_kp.model.manifest import MAX_MANIFEST, ImageManifest, parse_descriptor
from coco_kp.model.media_type import OCI_LAYER
from coco_kp.model.reference import parse_image_reference
from coco_kp.transport import open_sink
from tests.support.nodes import L, image, listed

PLAIN = image(L("plain"))
SECRET = image(L("secret")).manifest
CHANGED = {PLAIN.manifest.digest: SECRET}


def about(node: Node) -> ImageNode:
    """Return an artifact that says in both ways that it is about another manifest."""
    subject = dict(node.manifest.descriptor().document)
    described = {"annotations": {DESCRIBED: str(node.manifest.digest)}}
    return image(L("statement"), platform=None, entry=described, subject=subject)


def nested(*children: ImageNode) -> IndexNode:
    """Return an index as an entry of another."""
    inner = listed(*children)
    return IndexNode(inner.manifest, inner.children, inner.manifest.descriptor())


def written(folder: Path, tree: Node, changed: Mapping[Digest, ImageManifest]) -> list[ImageNode]:
    """Write a tree with changed images; return the images, as they are read back."""
    same = {node.manifest.digest: node.manifest for node in images(tree)}
    with open_sink(parse_image_reference(f"oci:{folder}")) as sink:
        top = write_tree(tree, {**same, **changed}, sink)
        return list(images(read_tree(sink.read_back(), top.descriptor(), configs=False)))


@pytest.mark.parametrize(
    ("encrypted", "kept"), [("gzip", False), ("gzip+encrypted", False), ("zstd+encrypted", True)]
)
def test_entry_says_zstd_only_while_its_image_has_it(
    tmp_path: Path, encrypted: str, kept: bool
) -> None:
    own = {"org.example.own": "kept"}
    before = image(L("z", f"{OCI_LAYER}+zstd"), entry={"annotations": {HAS_ZSTD: "true", **own}})
    after = image(L("y", f"{OCI_LAYER}+{encrypted}")).manifest
    (found,) = written(tmp_path, listed(before), {before.manifest.digest: after})
    assert found.entry
    assert found.entry.annotations == ({HAS_ZSTD: "true"} if kept else {}) | own


def test_manifest_that_nobody_takes_is_refused(tmp_path: Path) -> None:
    (layer,) = SECRET.layers
    text = {"org.example.long": "x" * MAX_MANIFEST}
    long = SECRET.replaced(layers=[layer.replaced(annotations=text)])
    with pytest.raises(InputError, match=rf"manifest of linux/amd64 would have over {4 << 20}"):
        written(tmp_path, listed(PLAIN), {PLAIN.manifest.digest: long})


def test_subject_follows_its_manifest_wherever_that_stands(tmp_path: Path) -> None:
    for order in ([PLAIN, about(PLAIN)], [about(PLAIN), PLAIN]):
        found = written(tmp_path, listed(*order), CHANGED)
        (statement,) = (node for node in found if node.manifest.subject)
        assert statement.manifest.subject == SECRET.descriptor()
        assert statement.entry
        assert statement.entry.digest == statement.manifest.digest
        assert statement.entry.annotations == {DESCRIBED: str(SECRET.digest)}


def test_subject_of_a_subject_follows_too(tmp_path: Path) -> None:
    statement = about(PLAIN)
    signature = about(statement)
    found = written(tmp_path, listed(signature, statement, PLAIN), CHANGED)
    assert found[0].manifest.subject == found[1].manifest.descriptor()
    assert found[0].entry
    assert found[0].entry.annotations == {DESCRIBED: str(found[1].manifest.digest)}
    assert found[1].manifest.subject == SECRET.descriptor()


def test_subject_that_is_a_list_follows_too(tmp_path: Path) -> None:
    inner = nested(PLAIN)
    statement = about(inner)
    entries = [dict(node.entry.document) for node in (statement, inner) if node.entry]
    manifest = listed(PLAIN).manifest.replaced([parse_descriptor(e, "entry") for e in entries])
    found = written(tmp_path, IndexNode(manifest, (statement, inner)), CHANGED)
    assert found[0].entry
    assert found[0].manifest.subject
    now = found[0].manifest.subject.digest
    assert now not in {inner.manifest.digest, SECRET.digest}
    assert found[0].entry.annotations == {DESCRIBED: str(now)}
    assert found[1].manifest == SECRET


def test_subject_keeps_what_else_it_says_but_not_the_old_manifest_itself(tmp_path: Path) -> None:
    subject = dict(PLAIN.manifest.descriptor().document)
    more = {"artifactType": "application/x", "annotations": {"a": "b"}}
    statement = image(L("s"), platform=None, subject=subject | more | {"data": "e30="})
    found = written(tmp_path, listed(PLAIN, statement), CHANGED)
    expected = dict(SECRET.descriptor().document) | more
    assert found[1].manifest.document["subject"] == expected


def test_manifest_is_the_same_to_the_byte_where_its_subject_is(tmp_path: Path) -> None:
    elsewhere = about(image(L("of another image")))
    subject = dict(PLAIN.manifest.descriptor().document) | {"size": 1}
    tree = listed(PLAIN, image(L("s"), platform=None, subject=subject), elsewhere)
    assert [node.manifest for node in written(tmp_path, tree, {})] == [
        node.manifest for node in images(tree)
    ]
    found = written(tmp_path, tree, CHANGED)
    assert found[2].manifest == elsewhere.manifest


def test_write_tree_bounds_the_chain_of_subjects(tmp_path: Path) -> None:
    chain = [PLAIN]
    for _ in range(MAX_SUBJECTS):
        chain.append(about(chain[-1]))
    assert len(written(tmp_path, listed(*reversed(chain)), CHANGED)) == MAX_SUBJECTS + 1
    chain.append(about(chain[-1]))
    with pytest.raises(InputError, match="are each about the next one"):
        written(tmp_path, listed(*reversed(chain)), CHANGED)
