"""``dir:`` folders: skopeo's names, what is removed and what never is."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from coco_kp.errors import InPlaceError, InputError, RefusedError
from coco_kp.model.reference import FileReference
from coco_kp.transport import staging
from coco_kp.transport.directory import DirectorySink, DirectorySource
from tests.support.command import files
from tests.support.refusing import refuse
from tests.support.stored import Image, check, image, index, store

ONE = image(b"layer one", b"shared")
TWO = image(b"layer two", b"shared")
LIST = index(ONE, TWO)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "folder"


def write(folder: Path, stored: Image) -> None:
    with DirectorySink(FileReference("dir", str(folder))) as sink:
        store(sink, stored)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def expected(stored: Image) -> set[str]:
    return {
        "version",
        "manifest.json",
        *(f"{child.digest.hex}.manifest.json" for child in stored.children),
        *(blob.digest.hex for blob in stored.blobs),
    }


@pytest.mark.parametrize("stored", [ONE, LIST], ids=["image", "list"])
def test_directory_sink_writes_files_named_as_skopeo_does(folder: Path, stored: Image) -> None:
    write(folder, stored)
    assert names(folder) == expected(stored)
    assert (folder / "version").read_text() == "Directory Transport Version: 1.1\n"
    assert (folder / "manifest.json").read_bytes() == stored.top.raw


def test_directory_sink_removes_files_of_previous_image(folder: Path) -> None:
    for stored in (LIST, ONE, TWO, LIST, TWO):
        write(folder, stored)
        (folder / "signature-1").write_bytes(b"of the one before")
        (folder / "notes.txt").write_text("kept")
    write(folder, ONE)
    assert names(folder) == expected(ONE) | {"notes.txt"}


def test_directory_sink_accepts_index_naming_absent_images(folder: Path) -> None:
    with DirectorySink(FileReference("dir", str(folder))) as sink:
        store(sink, Image(LIST.top, ONE.blobs, LIST.children[:1]))
    assert names(folder) == expected(LIST) - {
        f"{TWO.top.digest.hex}.manifest.json",
        *(blob.digest.hex for blob in TWO.blobs.keys() - ONE.blobs.keys()),
    }


def test_directory_sink_keeps_blobs_shared_with_previous_image(folder: Path) -> None:
    """A new manifest over the same blobs, as a rewrap makes it, moves none of them."""
    write(folder, ONE)
    rewrapped = Image(ONE.top.replaced(layers=ONE.top.layers[:1]), {})  # type: ignore[union-attr, call-arg]
    with DirectorySink(FileReference("dir", str(folder))) as sink:
        assert all(sink.has_blob(blob) for blob in ONE.blobs)
        store(sink, rewrapped)
    check(DirectorySource(FileReference("dir", str(folder))), rewrapped)
    assert len(names(folder)) == 4


def test_directory_sink_refuses_folder_with_other_files(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.txt").write_text("x")
    with pytest.raises(RefusedError, match="not empty"):
        DirectorySink(FileReference("dir", str(folder)))
    assert names(folder) == {"thesis.txt"}


def test_directory_transport_refuses_path_that_is_not_a_directory(folder: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        DirectorySource(FileReference("dir", str(folder))).manifest()
    folder.write_text("x")
    with pytest.raises(InputError, match="not a directory"):
        DirectorySink(FileReference("dir", str(folder)))


def test_directory_sink_takes_its_files_away_when_manifest_cannot_have_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, TWO)
    before = files(folder)
    refuse(monkeypatch, "replace", lambda path: path.endswith("/manifest.json"))
    with pytest.raises(InputError, match="input/output error"):
        write(folder, ONE)
    assert files(folder) == before


def test_directory_transport_names_blob_that_cannot_be_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A digest that stands alone was masked as a key, and the path with it."""
    write(folder, ONE)
    blob = next(iter(ONE.blobs))
    refuse(monkeypatch, "open", lambda path: path.endswith(blob.digest.hex))
    with pytest.raises(InputError, match=f"cannot read '{folder}/{blob.digest.hex[:12]}…'"):
        DirectorySource(FileReference("dir", str(folder))).open_blob(blob)


def test_directory_sink_tells_what_stays_where_a_crash_may_bring_the_old_image_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, ONE)

    def fail(_directory: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(staging, "sync_directory", fail)
    with pytest.raises(InPlaceError) as caught:
        write(folder, TWO)
    assert "files of an older image stay" in caught.value.hint
    monkeypatch.undo()
    assert names(folder) == expected(ONE) | expected(TWO)
    write(folder, TWO)
    assert names(folder) == expected(TWO)
