"""What a replaced image leaves in a layout: nothing that is not needed, and all that may be."""

from __future__ import annotations

import json
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from coco_kp.deadline import within
from coco_kp.errors import InputError, RefusedError
from coco_kp.files import sync_directory
from coco_kp.locks import locked
from coco_kp.model.reference import FileReference
from coco_kp.transport import staging
from coco_kp.transport.layout import LayoutSink, LayoutSource, prune
from coco_kp.transport.staging import MARKER, PREFIX
from tests.support.refusing import refuse
from tests.support.stored import Image, check, image, index, store

ONE = image(b"layer one", b"shared")
TWO = image(b"layer two", b"shared")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "layout"


def write(folder: Path, stored: Image, name: str | None = "v1", *, keep: bool = False) -> None:
    with LayoutSink(FileReference("oci", str(folder), name), keep_replaced=keep) as sink:
        store(sink, stored)


def source(folder: Path, name: str = "v1") -> LayoutSource:
    return LayoutSource(FileReference("oci", str(folder), name))


def blobs(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.glob("blobs/*/*")}


def of(*stored: Image) -> set[str]:
    """The files of images."""
    digests = {
        digest
        for each in stored
        for digest in (
            each.top.digest,
            *(blob.digest for blob in each.blobs),
            *(child.digest for child in each.children),
        )
    }
    return {f"blobs/{digest.algorithm}/{digest.hex}" for digest in digests}


class TestReplaced:
    @pytest.mark.parametrize("old", [ONE, index(ONE, TWO)], ids=["image", "list"])
    def test_layout_sink_removes_what_only_the_replaced_image_needs(
        self, folder: Path, old: Image
    ) -> None:
        write(folder, old)
        write(folder, TWO)
        assert blobs(folder) == of(TWO)
        check(source(folder), TWO)

    def test_layout_sink_keeps_replaced_image_on_request(self, folder: Path) -> None:
        write(folder, ONE)
        write(folder, TWO, keep=True)
        assert blobs(folder) == of(ONE, TWO)

    @pytest.mark.parametrize("other", [ONE, index(ONE, TWO)], ids=["image", "list"])
    def test_layout_sink_keeps_what_another_name_needs(self, folder: Path, other: Image) -> None:
        write(folder, other, "other")
        write(folder, ONE)
        write(folder, TWO)
        check(source(folder, "other"), other)
        assert blobs(folder) == of(other, TWO)

    def test_layout_sink_keeps_blobs_to_which_no_name_led_before(self, folder: Path) -> None:
        """Another tool may be about to name them."""
        write(folder, ONE)
        stray = folder / "blobs" / "sha256" / ("a" * 64)
        stray.write_text("x")
        write(folder, TWO)
        assert blobs(folder) == of(TWO) | {str(stray.relative_to(folder))}

    def test_layout_sink_keeps_all_when_another_image_cannot_be_read(
        self, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        write(folder, index(ONE), "other")
        write(folder, ONE)
        (folder / "blobs" / "sha256" / index(ONE).top.digest.hex).write_text("no JSON")
        with caplog.at_level(logging.WARNING, "coco_kp"):
            write(folder, TWO)
        assert "v1 is in place, but the old image is there, too" in caplog.text
        assert blobs(folder) == of(index(ONE), TWO)

    def test_layout_sink_removes_replaced_image_whose_manifest_cannot_be_read(
        self, folder: Path
    ) -> None:
        write(folder, ONE)
        damaged = folder / "blobs" / "sha256" / ONE.top.digest.hex
        damaged.write_text("no JSON")
        write(folder, TWO)
        assert not damaged.exists()

    @pytest.mark.parametrize("shared", ["blobs", "blobs/sha256"])
    def test_layout_sink_keeps_all_when_its_blobs_lie_elsewhere(
        self, folder: Path, tmp_path: Path, shared: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Where other layouts may have theirs."""
        write(folder, ONE)
        (folder / shared).rename(tmp_path / "elsewhere")
        (folder / shared).symlink_to(tmp_path / "elsewhere")
        with caplog.at_level(logging.WARNING, "coco_kp"):
            write(folder, TWO)
        assert "lie elsewhere" in caplog.text
        assert blobs(folder) == of(ONE, TWO)
        with pytest.raises(RefusedError):
            prune(folder)

    def test_layout_sinks_of_one_name_in_parallel_leave_one_whole_image(self, folder: Path) -> None:
        images = [image(b"shared", bytes([number])) for number in range(24)]
        barrier = threading.Barrier(8)

        def work(part: list[Image]) -> None:
            barrier.wait()
            for each in part:
                write(folder, each)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, [images[start::8] for start in range(8)]))
        digest = source(folder).manifest().digest
        (last,) = (each for each in images if each.top.digest == digest)
        check(source(folder), last)
        assert blobs(folder) == of(last)

    def test_layout_sink_warns_when_replaced_image_cannot_be_removed(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        write(folder, ONE)

        def failing(path: Path, **_: object) -> None:
            raise PermissionError(13, os.strerror(13), str(path))

        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "coco_kp"):
            patch.setattr(Path, "is_symlink", failing)
            write(folder, TWO)
        assert "v1 is in place, but the old image is there, too" in caplog.text
        check(source(folder), TWO)

    def test_layout_sink_says_that_the_image_is_in_place_when_it_may_not_last(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(folder, ONE)

        def failing(path: Path) -> None:
            index_is_new = json.loads((folder / "index.json").read_bytes())["manifests"][0]
            if path == folder and index_is_new["digest"] == str(TWO.top.digest):
                raise OSError(5, os.strerror(5))
            sync_directory(path)

        monkeypatch.setattr(staging, "sync_directory", failing)
        with pytest.raises(InputError, match="v1 is in place, but may not outlast a crash"):
            write(folder, TWO)
        check(source(folder), TWO)


class TestPrune:
    def test_prune_removes_blobs_without_name_and_what_killed_runs_left(self, folder: Path) -> None:
        write(folder, ONE)
        write(folder, TWO, keep=True)
        left = folder / f"{PREFIX}{7:016x}"
        left.mkdir()
        (left / MARKER).touch()
        pruned = prune(folder)
        gone = of(ONE) - of(TWO)
        assert {f"blobs/sha256/{digest.hex}" for digest in pruned.blobs} == gone
        assert pruned.size > len(b"layer one")
        assert blobs(folder) == of(TWO)
        assert not left.exists()
        check(source(folder), TWO)

    def test_prune_keeps_subjects_and_documents_of_unknown_types(self, folder: Path) -> None:
        """A signature's subject, an artifact's blobs, a list's entry without a type."""
        extra = [image(bytes([number])) for number in range(3)]
        write(folder, ONE)
        for number, each in enumerate(extra):
            write(folder, each, f"x{number}")
        pointers: Any = [dict(each.top.descriptor().document) for each in extra]
        del pointers[2]["mediaType"]
        artifact = image(b"artifact", subject=pointers[0], blobs=[pointers[1]], own=[pointers[2]])
        write(folder, artifact)
        document = json.loads((folder / "index.json").read_bytes())
        document["manifests"] = document["manifests"][-1:]
        (folder / "index.json").write_text(json.dumps(document))
        prune(folder)
        assert of(artifact, *extra) <= blobs(folder)

    def test_prune_removes_nothing_on_request(self, folder: Path) -> None:
        write(folder, ONE)
        write(folder, TWO, keep=True)
        assert prune(folder, dry_run=True).blobs == prune(folder).blobs != ()

    def test_prune_removes_nothing_while_another_has_the_lock(self, folder: Path) -> None:
        """Its blobs may have their names already, and the image not yet."""
        write(folder, ONE)
        write(folder, TWO, keep=True)
        before = blobs(folder)
        with locked(folder), within(0), pytest.raises(InputError, match="locked"):
            prune(folder)
        assert blobs(folder) == before

    def test_prune_removes_only_what_has_the_form_of_a_blob(self, folder: Path) -> None:
        write(folder, ONE)
        own = folder / "blobs" / "sha256" / "notes.txt"
        own.write_text("x")
        prune(folder)
        assert own.exists()

    @pytest.mark.parametrize("missing", ["index.json", "oci-layout"])
    def test_prune_refuses_folder_that_is_no_layout(self, folder: Path, missing: str) -> None:
        write(folder, ONE)
        (folder / missing).unlink()
        with pytest.raises(InputError, match="no such file"):
            prune(folder)
        assert blobs(folder) == of(ONE)

    def test_prune_refuses_layout_with_manifest_that_cannot_be_read(self, folder: Path) -> None:
        write(folder, index(ONE))
        write(folder, TWO, "two", keep=True)
        (folder / "blobs" / "sha256" / ONE.top.digest.hex).write_text("no JSON")
        with pytest.raises(InputError, match="not JSON|JSON"):
            prune(folder)
        assert of(index(ONE), TWO) == blobs(folder)

    def test_replacing_image_keeps_blobs_of_another_whose_manifest_cannot_be_looked_at(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It was taken for one that is not there, and a layer that it shares was removed."""
        write(folder, ONE)
        write(folder, TWO, "v2")
        name = TWO.top.digest.hex
        for call in ("stat", "lstat", "open"):
            refuse(monkeypatch, call, lambda path: path.endswith(name))
        write(folder, image(b"layer three"))
        monkeypatch.undo()
        check(source(folder, "v2"), TWO)
        assert "the old image is there, too" in caplog.text

    def test_replacing_image_whose_manifest_cannot_be_read_warns_that_it_stays(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An old key may open it: whoever removed the key must know."""
        write(folder, ONE)
        name = ONE.top.digest.hex
        refuse(monkeypatch, "open", lambda path: path.endswith(name))
        write(folder, TWO)
        assert "the old image is there, too" in caplog.text
