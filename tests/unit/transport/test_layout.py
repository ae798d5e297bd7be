"""OCI layouts: names, several writers, killed writers, files that are not what they seem."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from coco_kp.errors import ChangedError, CocoKpError, InPlaceError, InputError, IntegrityError
from coco_kp.model.manifest import ImageIndex, ImageManifest
from coco_kp.model.reference import FileReference
from coco_kp.transport import staging
from coco_kp.transport.layout import LayoutSink, LayoutSource, prune
from tests.support.blobs import copy_blob, in_pieces
from tests.support.command import files
from tests.support.documents import descriptor
from tests.support.full_disk import full_disk
from tests.support.refusing import refuse
from tests.support.stored import Image, check, image, index, store

ONE = image(b"layer one")
TWO = image(b"layer two")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "layout"


def write(folder: Path, stored: Image, name: str | None = None) -> None:
    with LayoutSink(FileReference("oci", str(folder), name)) as sink:
        store(sink, stored)


def source(folder: Path, name: str | None = None) -> LayoutSource:
    return LayoutSource(FileReference("oci", str(folder), name))


def blob_path(folder: Path, digest: object) -> Path:
    return folder / "blobs" / str(digest).replace(":", "/")


def index_of(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "index.json").read_bytes())
    return found


def test_layout_sink_names_blob_that_cannot_be_looked_at(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What else failed with the system's own error passed by those who keep new keys."""
    blob = next(iter(ONE.blobs))
    refuse(monkeypatch, "stat", lambda path: path.endswith(blob.digest.hex), errno.EIO)
    with (
        LayoutSink(FileReference("oci", str(folder), "app")) as sink,
        pytest.raises(InputError, match="cannot read"),
    ):
        sink.has_blob(blob)


class TestFiles:
    def test_layout_sink_writes_files_of_the_specification(self, folder: Path) -> None:
        write(folder, ONE, "v1")
        assert json.loads((folder / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
        assert index_of(folder) == {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [
                descriptor(
                    "application/vnd.oci.image.manifest.v1+json",
                    ONE.top.raw,
                    annotations={"org.opencontainers.image.ref.name": "v1"},
                )
            ],
        }
        for blob, data in ONE.blobs.items():
            assert blob_path(folder, blob.digest).read_bytes() == data
        assert {path.name for path in folder.iterdir()} == {"oci-layout", "index.json", "blobs"}

    def test_layout_sink_creates_files_with_modes_of_umask(self, folder: Path) -> None:
        old = os.umask(0o027)
        try:
            write(folder, ONE)
        finally:
            os.umask(old)
        for path in folder.rglob("*"):
            assert path.stat().st_mode & 0o777 == (0o750 if path.is_dir() else 0o640), path

    def test_layout_sink_keeps_unfinished_files_private(self, folder: Path) -> None:
        with LayoutSink(FileReference("oci", str(folder))) as sink, sink.begin_blob() as writer:
            writer.take(in_pieces(b"secret plaintext"))
            (hidden,) = folder.glob(".coco-kp-*")
            assert hidden.stat().st_mode & 0o777 == 0o700


class TestNames:
    def test_layout_sink_adds_name_beside_existing_one(self, folder: Path) -> None:
        write(folder, ONE, "one")
        write(folder, TWO, "two")
        check(source(folder, "one"), ONE)
        check(source(folder, "two"), TWO)

    def test_layout_sink_keeps_unknown_index_entries_and_members(self, folder: Path) -> None:
        write(folder, ONE, "one")
        document = index_of(folder)
        document["own"] = {"deep": [1]}
        document["manifests"][0]["strange"] = True  # type: ignore[index]
        document["manifests"].append(  # type: ignore[attr-defined]
            descriptor(
                "application/x", b"x", annotations={"org.opencontainers.image.ref.name": "x"}
            )
        )
        (folder / "index.json").write_text(json.dumps(document, indent=4))
        write(folder, TWO, "two")
        changed = index_of(folder)
        assert changed["manifests"][:2] == document["manifests"]  # type: ignore[index]
        assert changed["own"] == {"deep": [1]}

    def test_layout_source_refuses_missing_name_and_lists_existing_ones(self, folder: Path) -> None:
        write(folder, ONE, "one")
        with pytest.raises(InputError, match="does not exist in there") as caught:
            source(folder, "two").manifest()
        assert "'one'" in caught.value.hint

    def test_layout_source_requires_name_when_there_are_several(self, folder: Path) -> None:
        write(folder, ONE, "one")
        check(source(folder), ONE)
        write(folder, TWO, "two")
        with pytest.raises(InputError, match="holds 2 images") as caught:
            source(folder).manifest()
        assert "'one', 'two'" in caught.value.hint

    def test_layout_source_refuses_name_of_two_images(self, folder: Path) -> None:
        write(folder, ONE, "one")
        document = index_of(folder)
        document["manifests"] *= 2  # type: ignore[operator]
        (folder / "index.json").write_text(json.dumps(document))
        with pytest.raises(InputError, match="name of 2 images at once"):
            source(folder, "one").manifest()

    def test_layout_source_picks_image_by_position(self, folder: Path) -> None:
        """An unnamed one, too, that a named one has joined."""
        write(folder, ONE)
        write(folder, TWO, "two")
        for position, stored in enumerate((ONE, TWO)):
            check(LayoutSource(FileReference("oci", str(folder), position=position)), stored)
        with pytest.raises(InputError, match="does not exist in there"):
            LayoutSource(FileReference("oci", str(folder), position=2)).manifest()
        with pytest.raises(InputError, match="holds 2 images") as caught:
            source(folder).manifest()
        assert caught.value.hint == "name one: it has '@0', 'two'"

    def test_layout_sink_refuses_position(self, folder: Path) -> None:
        write(folder, ONE)
        with pytest.raises(InputError, match="cannot be written"):
            LayoutSink(FileReference("oci", str(folder), position=0))

    def test_layout_source_takes_platforms_of_one_name_for_one_image(self, folder: Path) -> None:
        write(folder, ONE, "one")
        write(folder, TWO, "two")
        document: Any = index_of(folder)
        for entry, architecture in zip(document["manifests"], ("amd64", "arm64"), strict=True):
            entry["platform"] = {"os": "linux", "architecture": architecture}
            entry["annotations"]["org.opencontainers.image.ref.name"] = "v1"
        (folder / "index.json").write_text(json.dumps(document))
        top = source(folder, "v1").manifest()
        assert isinstance(top, ImageIndex)
        assert [str(entry.platform) for entry in top.manifests] == ["linux/amd64", "linux/arm64"]
        assert [entry.digest for entry in top.manifests] == [ONE.top.digest, TWO.top.digest]
        with LayoutSink(FileReference("oci", str(folder), "v1")) as sink:
            store(sink, ONE, named=False)
            sink.set_reference(ONE.top, replacing=top.digest)
        check(source(folder, "v1"), ONE)

    def test_layout_sink_refuses_unnamed_image_beside_named_ones(self, folder: Path) -> None:
        write(folder, ONE, "one")
        with pytest.raises(InputError, match="one without a name cannot join") as caught:
            LayoutSink(FileReference("oci", str(folder)))
        assert "oci:path:name" in caught.value.hint
        check(source(folder), ONE)


class TestDestination:
    def test_layout_refuses_unknown_layout_version(self, folder: Path) -> None:
        write(folder, ONE)
        (folder / "oci-layout").write_text('{"imageLayoutVersion":"2.0.0"}')
        for make in (LayoutSink, LayoutSource):
            with pytest.raises(InputError, match=r"layout version '2\.0\.0'"):
                make(FileReference("oci", str(folder)))

    def test_layout_sink_writes_into_folder_with_blobs_alone(self, folder: Path) -> None:
        """Of a killed writer, or of one that is at work."""
        write(folder, ONE)
        (folder / "oci-layout").unlink()
        (folder / "index.json").unlink()
        write(folder, TWO)
        check(source(folder), TWO)

    @pytest.mark.parametrize(
        "name", ["thesis.txt", "blobs/notes", "blobs/sha256/notes", f"blobs/sha1/{40 * '0'}"]
    )
    def test_layout_sink_refuses_folder_that_is_neither_empty_nor_layout(
        self, folder: Path, name: str
    ) -> None:
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("x")
        with pytest.raises(InputError, match="neither empty nor an OCI layout"):
            LayoutSink(FileReference("oci", str(folder)))
        assert files(folder) == {name: b"x"}

    def test_layout_sink_removes_folders_it_made_when_nothing_was_stored(
        self, tmp_path: Path
    ) -> None:
        with LayoutSink(FileReference("oci", str(tmp_path / "a" / "b" / "c"))) as sink:
            store(sink, ONE, named=False)
        assert list(tmp_path.iterdir()) == []

    def test_layout_sink_refuses_path_that_is_a_file(self, folder: Path) -> None:
        folder.write_text("x")
        with pytest.raises(InputError, match="not a directory"):
            LayoutSink(FileReference("oci", str(folder)))

    def test_layout_sink_reports_full_disk(self, folder: Path) -> None:
        write(folder, ONE)
        with (
            full_disk(),
            pytest.raises(InputError, match=r"cannot write to .*: file too large"),
            LayoutSink(FileReference("oci", str(folder))) as sink,
            sink.begin_blob() as writer,
        ):
            writer.take(in_pieces(bytes(2000)))
        check(source(folder), ONE)
        assert not list(folder.glob(".*"))


class TestDamage:
    def test_layout_source_detects_damaged_manifest(self, folder: Path) -> None:
        write(folder, index(ONE, TWO))
        top = source(folder).manifest()
        for path in (blob_path(folder, top.digest), blob_path(folder, TWO.top.digest)):
            good = path.read_bytes()
            for bad in (good[:-1], good + b" ", good.replace(b"size", b"sizE", 1)):
                path.write_bytes(bad)
                with pytest.raises(IntegrityError, match="is damaged"):
                    check(source(folder), index(ONE, TWO))
            path.write_bytes(good)

    def test_layout_source_detects_damaged_blob(self, folder: Path) -> None:
        write(folder, ONE)
        (layer,) = ONE.top.layers if isinstance(ONE.top, ImageManifest) else ()
        blob_path(folder, layer.digest).write_bytes(b"layer 0ne")
        with pytest.raises(IntegrityError):
            check(source(folder), ONE)
        # A copy of it goes nowhere.
        target = FileReference("oci", str(folder.parent / "copy"))
        with LayoutSink(target) as sink:
            with pytest.raises(IntegrityError):
                copy_blob(source(folder), sink, layer)
            assert not sink.has_blob(layer)

    @pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
    def test_layout_source_refuses_blob_that_is_not_a_regular_file(
        self, folder: Path, kind: str
    ) -> None:
        write(folder, ONE)
        blob, *_ = ONE.blobs
        path = blob_path(folder, blob.digest)
        path.unlink()
        match kind:
            case "fifo":
                os.mkfifo(path)
            case "folder":
                path.mkdir()
            case _:
                path.symlink_to("/dev/zero")
        with pytest.raises(InputError, match=r"not a regular file|is a directory"):
            source(folder).open_blob(blob)

    @pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"schemaVersion":2,"manifests":{}}'])
    def test_layout_refuses_malformed_index(self, folder: Path, data: bytes) -> None:
        write(folder, ONE)
        (folder / "index.json").write_bytes(data)
        with pytest.raises(InputError):
            source(folder).manifest()
        with pytest.raises(InputError):
            LayoutSink(FileReference("oci", str(folder)))
        assert (folder / "index.json").read_bytes() == data

    def test_layout_source_refuses_oversized_index(self, folder: Path) -> None:
        write(folder, ONE)
        with (folder / "index.json").open("ab") as file:
            file.truncate(1 << 33)
        with pytest.raises(InputError, match="is longer than"):
            source(folder).manifest()


class TestSeveralWriters:
    def test_layout_sinks_in_parallel_lose_no_name(self, folder: Path) -> None:
        images = {f"v{number}": image(b"shared", bytes([number])) for number in range(16)}
        barrier = threading.Barrier(8)

        def work(part: list[str]) -> None:
            barrier.wait()
            for name in part:
                write(folder, images[name], name)

        names = list(images)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, [names[start::8] for start in range(8)]))
        for name, stored in images.items():
            check(source(folder, name), stored)

    def test_layout_sink_refuses_image_whose_blob_was_removed_meanwhile(self, folder: Path) -> None:
        write(folder, ONE, "one")
        blob, *_ = ONE.blobs
        with LayoutSink(FileReference("oci", str(folder), "two")) as sink:
            assert sink.has_blob(blob)
            blob_path(folder, blob.digest).unlink()
            sink.put_manifest(ONE.top)
            with pytest.raises(ChangedError):
                sink.set_reference(ONE.top)
        with pytest.raises(InputError, match="does not exist in there"):
            source(folder, "two").manifest()

    def test_layout_sink_keeps_unfinished_files_of_running_writer(self, folder: Path) -> None:
        with LayoutSink(FileReference("oci", str(folder), "one")) as sink:
            store(sink, ONE, named=False)
            write(folder, TWO, "two")
            sink.set_reference(ONE.top)
        check(source(folder, "one"), ONE)
        check(source(folder, "two"), TWO)


WRITER = """
import os, signal, sys
from coco_kp.transport import staging, layout
from coco_kp.model.reference import FileReference
from tests.support.stored import image, store

steps, folder = int(sys.argv[1]), sys.argv[2]
calls = 0

def counted(name, module=os):
    real = getattr(module, name)
    def step(*args, **kwargs):
        global calls
        calls += 1
        if calls > steps:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    setattr(module, name, step)

for name in ("write", "fsync", "replace", "open", "mkdir", "rename"):
    counted(name)
with layout.LayoutSink(FileReference("oci", folder, "v1")) as sink:
    store(sink, image(b"x" * 1000, b"new"))
print("done")
"""


class TestKilledWriters:
    def test_layout_sink_killed_at_any_system_call_leaves_old_or_new_image(
        self, folder: Path
    ) -> None:
        """Kill the writer before each of its system calls in turn."""
        new = image(b"x" * 1000, b"new")
        write(folder, ONE, "v1")
        outcomes = set()
        for steps in range(200):
            command = [sys.executable, "-c", WRITER, str(steps), str(folder)]
            result = subprocess.run(command, capture_output=True, check=False)
            assert result.returncode in (0, -signal.SIGKILL), result.stderr
            try:
                check(source(folder, "v1"), ONE)
                outcomes.add("old")
            except (CocoKpError, AssertionError):
                check(source(folder, "v1"), new)
                outcomes.add("new")
            if result.returncode == 0:
                break
            write(folder, ONE, "v1")
            assert not list(folder.glob(".*"))
        assert result.returncode == 0
        assert outcomes == {"old", "new"}

    def test_layout_sink_killed_at_any_system_call_leaves_new_folder_usable(
        self, folder: Path
    ) -> None:
        for steps in range(200):
            command = [sys.executable, "-c", WRITER, str(steps), str(folder)]
            result = subprocess.run(command, capture_output=True, check=False)
            assert result.returncode in (0, -signal.SIGKILL), result.stderr
            write(folder, ONE, "v2")
            check(source(folder, "v2"), ONE)
            assert not list(folder.glob(".*"))
            if result.returncode == 0:
                break
            shutil.rmtree(folder)
        assert result.returncode == 0


class TestRefusals:
    @pytest.mark.parametrize("name", ["index.json", ONE.top.digest.hex])
    def test_layout_sink_takes_its_files_away_when_one_cannot_have_its_name(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        refuse(monkeypatch, "replace", lambda path: path.endswith(name))
        with pytest.raises(InputError, match="input/output error"):
            write(folder, ONE)
        assert not folder.exists()
        monkeypatch.undo()
        write(folder, TWO)
        before = files(folder)
        refuse(monkeypatch, "replace", lambda path: path.endswith(name))
        with pytest.raises(InputError, match="input/output error"):
            write(folder, ONE, "one")
        assert files(folder) == before

    def test_layout_sink_keeps_its_files_once_index_has_its_name(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(directory: Path) -> None:
            if directory == folder and (folder / "index.json").exists():
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(staging, "sync_directory", fail)
        with pytest.raises(InPlaceError, match="is in place") as caught:
            write(folder, ONE)
        assert not caught.value.hint
        check(source(folder), ONE)

    @pytest.mark.parametrize("keep", [False, True])
    def test_layout_sink_tells_what_stays_where_a_crash_may_bring_the_old_image_back(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, keep: bool
    ) -> None:
        write(folder, ONE)

        def fail(directory: Path) -> None:
            if directory == folder:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(staging, "sync_directory", fail)
        with (
            LayoutSink(FileReference("oci", str(folder), None), keep_replaced=keep) as sink,
            pytest.raises(InPlaceError) as caught,
        ):
            store(sink, TWO)
        assert (caught.value.code == "old-image-there") is not keep
        monkeypatch.undo()
        assert ONE.top.digest in prune(folder).blobs
        check(source(folder), TWO)

    def test_layout_sink_writes_what_it_cannot_look_at_or_fails(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with LayoutSink(FileReference("oci", str(folder), None)) as sink:
            store(sink, ONE, named=False)
            refuse(monkeypatch, "stat", lambda path: path.endswith("oci-layout"))
            with pytest.raises(InputError, match="oci-layout"):
                sink.set_reference(ONE.top)
        monkeypatch.undo()
        assert not folder.exists()
