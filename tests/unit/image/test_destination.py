"""What becomes of a new key when its image gets no name; which image is changed in place."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import create_autospec

import pytest

from coco_kp.errors import (
    ChangedError,
    CocoKpError,
    InPlaceError,
    InputError,
    IntegrityError,
    RemoteError,
)
from coco_kp.image import destination
from coco_kp.image.destination import check_blobs, publish_and_name, read_in_place, writing
from coco_kp.image.progress import Progress
from coco_kp.image.tree import ImageNode, read_tree
from coco_kp.image.work import Work
from coco_kp.kbs.admin import Admin
from coco_kp.kbs.record import Record
from coco_kp.keys.file_reference import FileReference
from coco_kp.keys.register import Registrar
from coco_kp.keys.resolve import KeySettings, NewKek, resolve
from coco_kp.model.digest import Digest
from coco_kp.model.manifest import Descriptor, ImageManifest, Manifest
from coco_kp.model.reference import parse_image_reference
from coco_kp.model.resource_uri import parse_key_id
from coco_kp.transport import Sink, open_sink, open_source
from tests.support.stored import image, store

if TYPE_CHECKING:
    from coco_kp.keys.wrapper import KeyWrapper
    from tests.sim.kbs import SimulatedKbs

KID = parse_key_id("kbs:///default/key/1")


def new_key(file: Path, registrar: Registrar | None = None) -> KeyWrapper:
    settings = KeySettings(registrar=registrar)
    return resolve(NewKek((FileReference(str(file)),)), KID, settings).prepare()


def fail(key: KeyWrapper, failure: BaseException) -> None:
    sink = create_autospec(Sink, instance=True)
    sink.set_reference.side_effect = failure
    publish_and_name([key], sink, create_autospec(Manifest, instance=True), None)


@pytest.mark.parametrize("failure", [InputError("the disk is full"), ChangedError("oci:app")])
def test_new_key_file_is_removed_where_its_image_was_not_named(
    tmp_path: Path, failure: CocoKpError
) -> None:
    """It would be in the way of the same command."""
    file = tmp_path / "kek"
    with pytest.raises(type(failure), match=f"the new key file '{file}' was removed again"):
        fail(new_key(file), failure)
    assert not file.exists()
    new_key(file).publish()


@pytest.mark.parametrize(
    "failure",
    [
        RemoteError("no answer"),
        InPlaceError("oci:app is in place"),
        IntegrityError("the registry says that it has another manifest"),
    ],
)
def test_new_key_file_is_kept_where_its_image_may_have_its_name(
    tmp_path: Path, failure: CocoKpError
) -> None:
    file = tmp_path / "kek"
    with pytest.raises(type(failure), match=f"the new key is kept in '{file}'"):
        fail(new_key(file), failure)
    assert file.exists()


def test_new_key_file_is_kept_where_the_kbs_has_the_key(
    sim: SimulatedKbs, admin: Admin, tmp_path: Path
) -> None:
    """With another key, its key ID would be refused from then on."""
    file = tmp_path / "kek"
    registrar = Registrar(admin, Record(tmp_path / "registered"))
    with pytest.raises(InputError, match="the new key is kept in"):
        fail(new_key(file, registrar), InputError("the disk is full"))
    assert sim.resources == {KID.path: file.read_bytes()}


def test_who_interrupts_learns_where_a_new_key_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "kek"
    with pytest.raises(KeyboardInterrupt):
        fail(new_key(file), KeyboardInterrupt())
    assert file.exists()
    assert f"the new key is kept in '{file}'" in caplog.text


def test_failure_names_what_it_leaves_behind_whatever_its_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the hint it would be lost where the command line has advice of its own for the code."""
    digest = Digest.of(b"layer")
    sink = create_autospec(Sink, instance=True)
    sink.left_behind.return_value = (digest,)
    monkeypatch.setattr(destination, "open_sink", lambda *_, **__: nullcontext(sink))
    failure = ChangedError("docker://registry.example/app:1")
    target = parse_image_reference("docker://registry.example/app:1")
    words = f"changed meanwhile; .* keeps blobs .*{digest}"
    with (
        pytest.raises(ChangedError, match=words) as got,
        writing(target, None, keep_replaced=False),
    ):
        raise failure
    assert (got.value.code, got.value.hint) == (failure.code, failure.hint)


def test_image_is_changed_in_place_however_its_path_is_written(tmp_path: Path) -> None:
    """What others did to it meanwhile would be undone."""
    (tmp_path / "layout").mkdir()
    (tmp_path / "link").symlink_to("layout")
    top = image(b"layer").top
    assert isinstance(top, ImageManifest)
    tree = ImageNode(top)
    read = parse_image_reference(f"oci:{tmp_path}/layout:v1")
    for name in ("layout:v1", "link:v1", "./link/../layout:v1"):
        target = parse_image_reference(f"oci:{tmp_path}/{name}")
        assert read_in_place(read, target, tree) == top.digest
    for name in ("layout:v2", "other:v1", "layout"):
        target = parse_image_reference(f"oci:{tmp_path}/{name}")
        assert read_in_place(read, target, tree) is None


def test_destination_is_asked_for_several_blobs_at_once(tmp_path: Path) -> None:
    """One after the other they took a round trip each, at the end of every upload."""
    place = parse_image_reference(f"oci:{tmp_path}:v1")
    with open_sink(place) as written:
        store(written, image(b"a layer"))
    both, sink = threading.Barrier(2), create_autospec(Sink, instance=True)

    def ask(_: Descriptor) -> bool:
        both.wait(60)
        return True

    sink.has_blob.side_effect = ask
    with open_source(place) as source:
        check_blobs(sink, read_tree(source), Work(Progress(), 2))
    assert sink.has_blob.call_count == 2
