"""Tar archives: every dialect is read, nothing hostile gets through."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import itertools
import lzma
import os
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coco_kp.errors import InputError
from coco_kp.transport import tar
from coco_kp.transport.tar import END, TarFile, member_header, padding
from coco_kp.unpacking import Unpacking
from tests.support.full_disk import full_disk

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": lambda data: zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}),
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}
LONG = "blobs/sha512/" + "ab" * 64


def archive(*members: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive by the standard library; a plain file holds its name, up to its size."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as writer:
        for member in members:
            content = io.BytesIO(member.name.encode().ljust(member.size, b"\0")[: member.size])
            writer.addfile(member, content if member.isreg() else None)
    return stream.getvalue()


def file(name: str, size: int = 10) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    return info


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def read(tmp_path: Path, data: bytes) -> TarFile:
    path = tmp_path / "archive.tar"
    path.write_bytes(data)
    return TarFile(path)


class TestFailures:
    """Of the disk, named by the file: the limit on file sizes stands in for a full one."""

    def test_tar_file_names_archive_that_cannot_be_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = read(tmp_path, archive(file("a")))
        blob = found.part(found.members["a"])
        monkeypatch.setattr(os, "pread", failing)
        monkeypatch.setattr(os, "preadv", failing)
        for attempt in (
            lambda: found.read("a", 100),
            lambda: TarFile(tmp_path / "archive.tar"),
            lambda: blob.readinto(memoryview(bytearray(10))),
        ):
            with pytest.raises(InputError, match=r"cannot read '.*/archive.tar': input/output"):
                attempt()

    def test_tar_file_names_temporary_folder_that_is_full(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "archive.tar"
        path.write_bytes(gzip.compress(archive(file("a", 100_000))))
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        with (
            full_disk(),
            pytest.raises(InputError, match=f"temporary file in '{tmp_path}': file too") as caught,
        ):
            TarFile(path)
        assert "TMPDIR" in caught.value.hint


def failing(*_: object) -> int:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


class TestDialects:
    @pytest.mark.parametrize(
        ("form", "names"),
        [
            (tarfile.USTAR_FORMAT, ("a", "b/c", "d")),
            (tarfile.USTAR_FORMAT, ("p" * 90 + "/" + "n" * 90, "x")),
            (tarfile.GNU_FORMAT, ("./a", "./b/./c", "x")),
            (tarfile.GNU_FORMAT, (LONG, "x")),
            (tarfile.PAX_FORMAT, ("a", "b/c", "d")),
            (tarfile.PAX_FORMAT, (LONG, "x")),
        ],
    )
    def test_tar_file_reads_every_dialect(
        self, tmp_path: Path, form: int, names: tuple[str, ...]
    ) -> None:
        data = archive(
            special("folder", tarfile.DIRTYPE),
            *(file(name, 500 + number) for number, name in enumerate(names)),
            form=form,
        )
        found = read(tmp_path, data)
        wanted = [name.replace("./", "") for name in names]
        assert list(found.members) == wanted
        for number, name in enumerate(names):
            content = found.read(wanted[number], 1000)
            assert content == name.encode().ljust(500 + number, b"\0")
        found.close()

    def test_member_header_is_read_by_standard_library(self, tmp_path: Path) -> None:
        data = b""
        for name, content in (("a", b""), (LONG, b"x" * 513), ("b", b"y" * 512)):
            data += member_header(name, len(content)) + content + padding(len(content))
        data += END
        with tarfile.open(fileobj=io.BytesIO(data)) as reader:
            assert {m.name: m.size for m in reader} == {"a": 0, LONG: 513, "b": 512}
        assert {n: m.size for n, m in read(tmp_path, data).members.items()} == {
            "a": 0,
            LONG: 513,
            "b": 512,
        }

    @pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_tar_file_reads_sizes_beyond_eight_gibibytes(
        self, tmp_path: Path, form: Literal[1, 2]
    ) -> None:
        path, size = tmp_path / "sparse.tar", 9 << 30
        with path.open("wb") as stream:
            stream.write(file("huge", size).tobuf(form))
            stream.seek(size, io.SEEK_CUR)
            stream.write(file("next", 0).tobuf(form) + END)
        found = TarFile(path)
        assert found.members["huge"].size == size
        assert "next" in found.members

    @pytest.mark.parametrize("name", COMPRESSIONS)
    @pytest.mark.parametrize("streams", [1, 2])
    def test_tar_file_unpacks_compressed_archive(
        self, tmp_path: Path, name: str, streams: int
    ) -> None:
        """Of several streams one behind the other, too, as parallel compressors write them."""
        data = archive(file("a", 1_000_000))
        cuts = [len(data) * part // streams for part in range(streams + 1)]
        packed = b"".join(COMPRESSIONS[name](data[a:b]) for a, b in itertools.pairwise(cuts))
        assert read(tmp_path, packed).read("a", 1_000_000).startswith(b"a\0")

    @pytest.mark.parametrize("name", COMPRESSIONS)
    @pytest.mark.parametrize("damage", ["cut", "flip", "garbage"])
    def test_tar_file_refuses_damaged_compressed_archive(
        self, tmp_path: Path, name: str, damage: str
    ) -> None:
        data = bytearray(COMPRESSIONS[name](archive(file("a", 100_000))))
        match damage:
            case "cut":
                del data[-20:]
            case "garbage":
                data += b"garbage"
            case _:
                data[len(data) // 2] ^= 0xFF
        with pytest.raises(InputError, match=f"cut off or damaged: {name}"):
            read(tmp_path, bytes(data))

    @pytest.mark.parametrize("name", COMPRESSIONS)
    def test_tar_file_bounds_what_compressed_archive_becomes(
        self, tmp_path: Path, name: str
    ) -> None:
        path = tmp_path / "archive.tar"
        path.write_bytes(COMPRESSIONS[name](archive(file("a", 3_000_000))))
        with pytest.raises(InputError, match="too many for its size"):
            TarFile(path, Unpacking(1000))

    def test_tar_file_resolves_links_within_archive_only(self, tmp_path: Path) -> None:
        found = read(
            tmp_path,
            archive(
                file("one/layer.tar"),
                special("two/layer.tar", tarfile.SYMTYPE, "../one/layer.tar"),
                special("three/layer.tar", tarfile.LNKTYPE, "one/layer.tar"),
                special("four", tarfile.SYMTYPE, "two/layer.tar"),
                special("five", tarfile.SYMTYPE, "/etc/passwd"),
                special("six", tarfile.SYMTYPE, "../../etc/passwd"),
                special("seven", tarfile.SYMTYPE, "seven"),
            ),
        )
        one = found.resolve("one/layer.tar")
        assert one is not None
        assert found.resolve("two/layer.tar") == found.resolve("three/layer.tar") == one
        for nowhere in ("four", "five", "six", "seven", "eight", "folder"):
            assert found.resolve(nowhere) is None


class TestAppended:
    """``tar -r`` appends members; where an archive is unpacked, the last of a name counts."""

    @pytest.mark.parametrize("other", ["a", "./a", ".//a"])
    def test_tar_file_takes_last_member_of_name(self, tmp_path: Path, other: str) -> None:
        found = read(tmp_path, archive(file("a", 1), file("b", 2), file(other, 3)))
        assert {name: member.size for name, member in found.members.items()} == {"a": 3, "b": 2}

    def test_tar_file_resolves_hard_link_to_what_was_before_it(self, tmp_path: Path) -> None:
        link, symbolic = (special(name, kind, "a") for name, kind in (("b", b"1"), ("c", b"2")))
        found = read(tmp_path, archive(file("a", 1), symbolic, link, file("a", 2)))
        assert [found.resolve(name).size for name in "abc"] == [2, 1, 2]  # type: ignore[union-attr]

    def test_tar_file_reads_appended_members_as_tar_unpacks_them(self, tmp_path: Path) -> None:
        link = special("b", tarfile.LNKTYPE, "a")
        data = archive(file("a", 10), link, file("a", 600), special("c", tarfile.SYMTYPE, "b"))
        found = read(tmp_path, data)
        (tmp_path / "unpacked").mkdir()
        subprocess.run(["tar", "-xC", tmp_path / "unpacked"], input=data, check=True)
        for name in "abc":
            assert found.read(name, 600) == (tmp_path / "unpacked" / name).read_bytes()

    def test_tar_file_check_alike_refuses_what_first_and_last_reader_read_differently(
        self, tmp_path: Path
    ) -> None:
        size = 700_000
        changed = bytearray(archive(*(file(name, size) for name in ("same", "same", "b", "b"))))
        changed[changed.rindex(b"b" + b"\0" * 600) + size - 1] ^= 1
        found = read(tmp_path, bytes(changed))
        found.check_alike("same")
        found.check_alike("missing")
        with pytest.raises(InputError, match="has 'b' twice, with different content"):
            found.check_alike("b")

    @pytest.mark.parametrize(
        "members",
        [
            (file("a", 1), file("a", 2)),
            (file("a", 1), special("a", tarfile.SYMTYPE, "b"), file("b", 2)),
            (special("a", tarfile.SYMTYPE, "b"), file("b", 1), file("b", 2)),
            (special("a", tarfile.SYMTYPE, "nothing"), file("a", 1)),
            (file("a", 1), special("a", tarfile.SYMTYPE, "nothing")),
        ],
    )
    def test_tar_file_check_alike_follows_links(
        self, tmp_path: Path, members: tuple[tarfile.TarInfo, ...]
    ) -> None:
        with pytest.raises(InputError, match="has 'a' twice"):
            read(tmp_path, archive(*members)).check_alike("a")


def extended(kind: bytes, data: bytes) -> bytes:
    """An extended header, which is about the next member."""
    header = tarfile.TarInfo("extended")
    header.type, header.size = kind, len(data)
    return header.tobuf(tarfile.USTAR_FORMAT) + data + padding(len(data))


def summed(header: bytes) -> bytes:
    """A header with the right checksum."""
    total = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
    return header[:148] + f"{total:06o}\0 ".encode() + header[156:]


class TestOneReading:
    """What Go's reader, GNU tar and Python's take for different archives is not read as any."""

    @pytest.mark.parametrize(
        "kind", [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE], ids=["folder", "soft", "hard"]
    )
    @pytest.mark.parametrize("size", ["header", "pax"])
    def test_tar_file_skips_no_content_of_what_has_none(
        self, tmp_path: Path, kind: bytes, size: str
    ) -> None:
        """Else members could hide there, which all others read."""
        hidden = archive(file("a", 3))
        member = special("b", kind, "a")
        if size == "header":
            member.size = len(hidden)
        header = member.tobuf(tarfile.USTAR_FORMAT)
        if size == "pax":
            header = extended(b"x", b"13 size=1024\n") + header
        data = archive(file("a", 1)).rstrip(b"\0").ljust(1024, b"\0") + header + hidden
        assert read(tmp_path, data).members["a"].size == 3
        with tarfile.open(fileobj=io.BytesIO(data)) as other:
            assert other.getmember("a").size == 3

    @pytest.mark.parametrize(
        "headers",
        [
            [(b"x", b"10 path=b\n"), (b"x", b"12 comment=\n")],
            [(b"x", b"10 path=b\n"), (b"g", b"12 comment=\n")],
            [(b"x", b"10 path=b\n"), (b"L", b"c\0")],
            [(b"L", b"c\0"), (b"x", b"10 path=b\n")],
            [(b"K", b"c\0"), (b"x", b"14 linkpath=b\n")],
            [(b"L", b"b\0"), (b"L", b"c\0")],
            [(b"g", b"10 path=b\n")],
            [(b"g", b"10 size=1\n")],
        ],
    )
    def test_tar_file_refuses_extended_headers_that_readers_take_differently(
        self, tmp_path: Path, headers: list[tuple[bytes, bytes]]
    ) -> None:
        data = b"".join(extended(kind, content) for kind, content in headers)
        with pytest.raises(InputError, match="not all readers understand alike"):
            read(tmp_path, data + archive(file("a")))

    def test_tar_file_reads_extended_headers_beside_each_other(self, tmp_path: Path) -> None:
        comment = extended(b"g", b"12 comment=\n")
        names = extended(b"K", b"d\0") + extended(b"L", b"c\0") + extended(b"x", b"10 size=5\n")
        found = read(tmp_path, comment + comment + names + archive(file("a", 5), file("b", 6)))
        assert {name: member.size for name, member in found.members.items()} == {"c": 5, "b": 6}

    def test_tar_file_takes_empty_file_called_as_a_directory_for_one(self, tmp_path: Path) -> None:
        old = file("a/", 0)
        assert list(read(tmp_path, archive(old, file("a/b", 1))).members) == ["a/b"]

    def test_tar_file_refuses_file_that_is_called_as_a_directory(self, tmp_path: Path) -> None:
        named = member_header("index.json", 5).replace(b"index.json\0", b"index.json/")
        with pytest.raises(InputError, match="neither a file nor a directory"):
            read(tmp_path, summed(named) + b"x" * 5 + padding(5) + END)

    def test_tar_file_refuses_prefix_where_star_has_times(self, tmp_path: Path) -> None:
        """Go's reader ends the prefix there, GNU tar's goes on."""
        name = "p" * 150 + "/a"
        header = bytearray(file(name, 0).tobuf(tarfile.USTAR_FORMAT))
        assert list(read(tmp_path, bytes(header) + END).members) == [name]
        header[508:] = b"tar\0"
        with pytest.raises(InputError, match="a name that not all readers understand alike"):
            read(tmp_path, summed(bytes(header)) + END)

    def test_tar_file_refuses_words_where_gnu_has_times(self, tmp_path: Path) -> None:
        """Go's reader takes them for a prefix of the name, GNU tar does not look at them."""
        header = bytearray(file("a", 0).tobuf(tarfile.GNU_FORMAT))
        header[345:369] = b"14524770000\0" * 2
        assert list(read(tmp_path, summed(bytes(header)) + END).members) == ["a"]
        for start in (345, 357):
            header[start : start + 4] = b"evil"
            with pytest.raises(InputError, match="not a tar archive, or is damaged"):
                read(tmp_path, summed(bytes(header)) + END)
            header[start : start + 12] = bytes(12)

    def test_tar_file_refuses_name_with_zero_byte_in_extended_header(self, tmp_path: Path) -> None:
        data = extended(b"x", b"12 path=b\0c\n") + archive(file("a"))
        with pytest.raises(InputError, match="damaged extended header"):
            read(tmp_path, data)


class TestHostile:
    @pytest.mark.parametrize(
        ("members", "words"),
        [
            *(
                ([file("good"), member], "leads out of it")
                for member in (
                    *(file("/etc/passwd"), file("../x"), file("a/../../x"), file("a/..")),
                    *(special("/a", tarfile.DIRTYPE), special("..", tarfile.DIRTYPE)),
                    special("..", tarfile.SYMTYPE, "x"),
                )
            ),
            *(
                ([file("good"), special("a", kind)], "neither a file nor a directory")
                for kind in (
                    *(tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"),
                    tarfile.GNUTYPE_SPARSE,
                )
            ),
            *(
                (
                    [special("s", b"2", "c"), file("c"), special("b", b"1", target), file("later")],
                    "'b' .* is a hard link to no file before it",
                )
                for target in ("nothing", "later", "s")
            ),
            # Unpacked, what stands below a link would stand elsewhere.
            *(
                (members, "'a' in .* is a directory and something else")
                for members in (
                    [special("a", tarfile.SYMTYPE, "b"), file("a-"), file("b/x"), file("a/x")],
                    [file("a/x/y"), file("a"), file("a.b")],
                    [file("a"), special("a", tarfile.DIRTYPE)],
                    [special("a", tarfile.DIRTYPE), special("a", tarfile.SYMTYPE, "b")],
                    [file("a"), special("a/x", tarfile.DIRTYPE)],
                )
            ),
        ],
    )
    def test_tar_file_refuses_unsafe_members(
        self, tmp_path: Path, members: list[tarfile.TarInfo], words: str
    ) -> None:
        with pytest.raises(InputError, match=words):
            read(tmp_path, archive(*members))

    def test_tar_file_refuses_sparse_pax_member(self, tmp_path: Path) -> None:
        member = file("a")
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": "99999999"}
        with pytest.raises(InputError, match="sparse"):
            read(tmp_path, archive(member))

    def test_tar_file_does_not_load_oversized_extended_header(self, tmp_path: Path) -> None:
        header = tarfile.TarInfo("pax")
        header.type, header.size = tarfile.XHDTYPE, 64 << 20
        path = tmp_path / "archive.tar"
        with path.open("wb") as stream:
            stream.write(header.tobuf(tarfile.USTAR_FORMAT))
            stream.truncate(65 << 20)
        tracemalloc.start()
        try:
            with pytest.raises(InputError, match="extended header of"):
                TarFile(path)
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize(
        "record",
        [
            *(b"x", b"5 a=b", b"99 path=x\n", b"4 a=b\n", b"0 a=b\n", b"7 path\n", b"-1 path=x\n"),
            *(b"9 path=\xff\n", b"011 path=xx\n", b"11 size=-1x\n", b"10 size=x1\n"),
        ],
    )
    def test_tar_file_refuses_damaged_extended_header(self, tmp_path: Path, record: bytes) -> None:
        header = tarfile.TarInfo("pax")
        header.type, header.size = tarfile.XHDTYPE, len(record)
        data = header.tobuf(tarfile.USTAR_FORMAT) + record + padding(len(record))
        with pytest.raises(InputError, match=r"extended header|not UTF-8"):
            read(tmp_path, data + archive(file("a")))

    def test_tar_file_refuses_damaged_header(self, tmp_path: Path) -> None:
        good = archive(file("a"), file("b"))
        for position in (0, 100, 124, 148, 156, 257, 511):
            bad = bytearray(good)
            bad[position] ^= 0x55
            with pytest.raises(InputError, match="not a tar archive"):
                read(tmp_path, bytes(bad))

    def test_tar_file_refuses_truncated_archive(self, tmp_path: Path) -> None:
        good = archive(file("a", 600), file("b", 600)).rstrip(b"\0")
        for length in (0, 1, 511, 512, 800, 1024, 1535, 1536, 2000, len(good) - 1):
            with pytest.raises(InputError, match="cut off"):
                read(tmp_path, good[:length])

    def test_tar_file_limits_number_of_members(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tar, "MAX_MEMBERS", 3)
        names = [file(name, 0) for name in "abcd"]
        assert len(read(tmp_path, archive(*names[:3])).members) == 3
        with pytest.raises(InputError, match="more than 3 members"):
            read(tmp_path, archive(*names))

    def test_tar_file_limits_length_of_all_names(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Compressed, names of gigabytes take no room, and would all be held."""
        monkeypatch.setattr(tar, "MAX_NAMES", 1000)
        names = [file(letter * 250, 0) for letter in "abcde"]
        assert len(read(tmp_path, archive(*names[:4])).members) == 4
        with pytest.raises(InputError, match="names of more than 1000 characters"):
            read(tmp_path, archive(*names))
        links = [special(letter, tarfile.SYMTYPE, "x" * 250) for letter in "abcd"]
        with pytest.raises(InputError, match="names of more than 1000 characters"):
            read(tmp_path, archive(*links))

    def test_tar_file_reads_member_once_however_many_names_it_has(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A small compressed archive would else cost hours."""
        links = [special(f"l{number}", tarfile.LNKTYPE, "a") for number in range(100)]
        found = read(tmp_path, archive(file("a", 9999), *links, file("a", 9999), *links))
        counted: list[int] = []
        pread = os.pread

        def counting(fd: int, size: int, offset: int) -> bytes:
            counted.append(size)
            return pread(fd, size, offset)

        monkeypatch.setattr(os, "pread", counting)
        for link in links:
            found.check_alike(link.name)
        assert sum(counted) == 2 * 9999

    def test_tar_file_read_limits_size_and_names_missing_member(self, tmp_path: Path) -> None:
        found = read(tmp_path, archive(file("a", 10)))
        assert len(found.read("a", 10)) == 10
        with pytest.raises(InputError, match="longer than 9"):
            found.read("a", 9)
        with pytest.raises(InputError, match="has no 'b'"):
            found.read("b", 9)

    @settings(max_examples=300)
    @given(
        st.binary(max_size=2048)
        | st.tuples(st.integers(0, 2047), st.binary(min_size=1, max_size=40)).map(
            lambda change: splice(*change)
        )
    )
    @example(b"")
    def test_tar_file_reads_or_refuses_any_bytes(
        self, tmp_path_factory: pytest.TempPathFactory, data: bytes
    ) -> None:
        path = tmp_path_factory.getbasetemp() / "any.tar"
        path.write_bytes(data)
        try:
            found = TarFile(path)
        except InputError:
            return
        for member in found.members.values():
            assert member.offset + member.size <= len(data)
        found.close()


def splice(position: int, new: bytes) -> bytes:
    """A good archive with some bytes replaced, and its checksums right again."""
    data = bytearray(archive(file("a", 100), special("b", tarfile.SYMTYPE, "a")))
    data[position : position + len(new)] = new
    for start in (0, 1024):
        data[start : start + 512] = summed(bytes(data[start : start + 512]))
    return bytes(data)
