"""OCI archives: what is replaced, what is refused."""

from __future__ import annotations

import gzip
import io
import os
import re
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from coco_kp.errors import InputError, IntegrityError, RefusedError
from coco_kp.model.manifest import describe
from coco_kp.model.reference import FileReference
from coco_kp.transport import read_blob
from coco_kp.transport.layout import LayoutSink, LayoutSource
from coco_kp.transport.oci_archive import OciArchiveSink, OciArchiveSource
from tests.support.blobs import put_blob
from tests.support.refusing import refuse
from tests.support.stored import Image, check, image, index, store

ONE = image(b"layer one", b"shared")
TWO = image(b"layer two", b"shared")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "image.tar"


def write(path: Path, stored: Image, name: str | None = None) -> None:
    with OciArchiveSink(FileReference("oci-archive", str(path), name)) as sink:
        store(sink, stored)


def source(path: Path, name: str | None = None) -> OciArchiveSource:
    return OciArchiveSource(FileReference("oci-archive", str(path), name))


def tar_of_layout(
    tmp_path: Path, *more: tarfile.TarInfo, prefix: str = "", without: str = ""
) -> bytes:
    """What ``tar -c`` makes of a layout, with members of choice before it."""
    folder = tmp_path / "layout"
    with LayoutSink(FileReference("oci", str(folder), "v1")) as sink:
        store(sink, ONE)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for member in more:
            archive.addfile(member)
        archive.add(
            folder,
            arcname=prefix or ".",
            filter=lambda member: None if without and member.name.endswith(without) else member,
        )
    return stream.getvalue()


def test_oci_archive_sink_writes_tar_with_oci_layout(path: Path, tmp_path: Path) -> None:
    write(path, index(ONE, TWO), "v1")
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "out", filter="data")
    check(LayoutSource(FileReference("oci", str(tmp_path / "out"), "v1")), index(ONE, TWO))


@pytest.mark.parametrize("packed", [False, True])
def test_oci_archive_source_reads_layout_in_any_tar(
    path: Path, tmp_path: Path, packed: bool
) -> None:
    data = tar_of_layout(tmp_path)
    path.write_bytes(gzip.compress(data) if packed else data)
    with source(path, "v1") as opened:
        check(opened, ONE)


def test_oci_archive_sink_is_reproducible(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        write(tmp_path / name, ONE, "v1")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_oci_archive_source_keeps_reading_while_archive_is_replaced(path: Path) -> None:
    write(path, ONE)
    with source(path) as old:
        write(path, TWO)
        check(old, ONE)
    with source(path) as new:
        check(new, TWO)


@pytest.mark.parametrize(
    ("old", "new", "lost"),
    [
        ("v1", None, "'v1'"),
        ("v1", "v2", "'v1'"),
        ("v1", "v1", ""),
        (None, "v1", r"\(no name\)"),
        (None, None, ""),
    ],
)
def test_oci_archive_sink_refuses_to_replace_images_of_other_names(
    path: Path, old: str | None, new: str | None, lost: str
) -> None:
    write(path, ONE, old)
    if not lost:
        write(path, TWO, new)
        return
    before = path.read_bytes()
    with pytest.raises(RefusedError, match=f"would be lost: {lost}"):
        write(path, TWO, new)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"a thesis", bytes(10240)])
def test_oci_archive_sink_refuses_to_replace_file_that_is_not_an_archive(
    path: Path, content: bytes
) -> None:
    path.write_bytes(content)
    with pytest.raises(RefusedError, match="not an OCI archive"):
        write(path, ONE)
    assert path.read_bytes() == content


def test_oci_archive_sink_accepts_blobs_from_several_threads(path: Path) -> None:
    contents = [os.urandom(50_000 + number) for number in range(16)]
    blobs = {describe("x", content): content for content in contents}
    with OciArchiveSink(FileReference("oci-archive", str(path))) as sink:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda item: put_blob(sink, *item), blobs.items()))
        store(sink, ONE)
    with source(path) as opened:
        for blob, content in blobs.items():
            assert read_blob(opened, blob, 1 << 20) == content


def test_oci_archive_source_reads_blobs_that_are_hard_links(path: Path, tmp_path: Path) -> None:
    """As ``tar -c`` writes a layout that shares files with another one beside it."""
    folder = tmp_path / "layout"
    tar_of_layout(tmp_path)
    stored = [file for file in folder.rglob("*") if file.parent.name == "sha256"]
    with tarfile.open(path, mode="w") as archive:
        for number, file in enumerate(stored):
            (tmp_path / str(number)).hardlink_to(file)
            archive.add(tmp_path / str(number), arcname=f"cache/{number}")
        archive.add(folder, arcname=".")
        assert any(member.islnk() for member in archive.getmembers())
    with source(path, "v1") as opened:
        check(opened, ONE)


def test_oci_archive_source_reads_what_was_appended_last(path: Path, tmp_path: Path) -> None:
    """As ``tar -r`` appends the files of a layout in which the name moved."""
    write(path, TWO, "v1")
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "later", filter="data")
    path.unlink()
    write(path, ONE, "v1")
    with tarfile.open(path, mode="a") as archive:
        archive.add(tmp_path / "later", arcname=".")
    with source(path, "v1") as opened:
        check(opened, TWO)


class TestHostile:
    @pytest.mark.parametrize(
        ("name", "kind", "link"),
        [
            ("../x", tarfile.REGTYPE, ""),
            ("/x", tarfile.REGTYPE, ""),
            ("null", tarfile.CHRTYPE, ""),
        ],
    )
    def test_oci_archive_source_refuses_unsafe_members(
        self, path: Path, tmp_path: Path, name: str, kind: bytes, link: str
    ) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        path.write_bytes(tar_of_layout(tmp_path, member))
        with pytest.raises(InputError, match=r"leads out|neither a file"):
            source(path)

    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
    def test_oci_archive_source_follows_no_link_out_of_archive(
        self, path: Path, tmp_path: Path, kind: bytes
    ) -> None:
        (tmp_path / "secret").write_bytes(b"layer one")
        blob = next(iter(ONE.blobs))
        member = tarfile.TarInfo(f"blobs/sha256/{blob.digest.hex}")
        member.type, member.linkname = kind, str(tmp_path / "secret")
        path.write_bytes(tar_of_layout(tmp_path, member, without=member.name))
        wanted = pytest.raises(InputError, match="lacks the blob|hard link to no file")
        with wanted, source(path, "v1") as opened:
            opened.open_blob(blob)

    def test_oci_archive_source_refuses_layout_in_subfolder(
        self, path: Path, tmp_path: Path
    ) -> None:
        path.write_bytes(tar_of_layout(tmp_path, prefix="folder"))
        with pytest.raises(InputError, match="has no 'oci-layout'"):
            source(path)

    def test_oci_archive_source_detects_damage(self, path: Path) -> None:
        write(path, ONE)
        data = path.read_bytes()
        for good, bad in ((b"layer one", b"layer 0ne"), (b"diff_ids", b"diff_idz")):
            path.write_bytes(data.replace(good, bad))
            with source(path) as opened, pytest.raises(IntegrityError):
                check(opened, ONE)
        path.write_bytes(data.replace(b'"config":{', b'"config": '))
        with source(path) as opened, pytest.raises(IntegrityError, match="is damaged"):
            check(opened, ONE)


def test_oci_archive_sink_refuses_archive_that_others_made_meanwhile(path: Path) -> None:
    with OciArchiveSink(FileReference("oci-archive", str(path), "two")) as sink:
        store(sink, TWO, named=False)
        write(path, ONE, "one")
        with pytest.raises(RefusedError, match="holds other images"):
            sink.set_reference(TWO.top)
    check(source(path, "one"), ONE)


def test_oci_archive_sink_that_cannot_make_its_file_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "open", lambda path: bool(re.search(r"/[0-9a-f]{16}$", path)))
    with pytest.raises(InputError, match="input/output error"):
        OciArchiveSink(FileReference("oci-archive", str(tmp_path / "archive.tar")))
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_oci_archive_that_cannot_be_read_again_is_not_called_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = FileReference("oci-archive", str(tmp_path / "archive.tar"))
    with OciArchiveSink(reference) as sink:
        store(sink, ONE)
    with OciArchiveSink(reference) as sink:
        store(sink, ONE, named=False)
        refuse(monkeypatch, "open", lambda path: path.endswith("archive.tar"))
        with pytest.raises(InputError, match="input/output error"):
            sink.set_reference(ONE.top, replacing=ONE.top.digest)
