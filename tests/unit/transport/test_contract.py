"""What every sink and source promises (coco_kp.transport.base), for each of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from coco_kp.deadline import within
from coco_kp.errors import (
    ChangedError,
    CocoKpError,
    InputError,
    IntegrityError,
    MissingManifestError,
)
from coco_kp.locks import locked
from coco_kp.model.digest import Digest
from coco_kp.model.manifest import describe, parse_descriptor
from coco_kp.model.reference import parse_image_reference
from coco_kp.transport import (
    CHUNK,
    Access,
    Sink,
    Source,
    open_sink,
    open_source,
    read_blob,
)
from tests.sim.registry import Registry, serve
from tests.support.blobs import copy_blob, in_pieces, put_blob
from tests.support.stored import Image, check, check_parts, image, index, store

OLD = image(b"old layer", b"shared layer")
NEW = image(b"new layer", b"shared layer", b"")
BIG = image(os.urandom(3 * CHUNK + 17))
LIST = index(OLD, NEW)


@dataclass
class Place:
    """Somewhere an image can be, and how what is really there can be seen."""

    name: str
    leftovers: Callable[[], list[str]]

    def sink(self) -> Sink:
        return open_sink(parse_image_reference(self.name), Access(tls_verify=False))

    def source(self) -> Source:
        return open_source(parse_image_reference(self.name), Access(tls_verify=False))


@pytest.fixture(params=["oci", "oci unnamed", "oci-archive", "dir", "docker"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    def hidden() -> list[str]:
        return [str(path) for path in tmp_path.rglob(".*")]

    if request.param == "docker":
        registry = Registry()
        with serve(registry) as host:
            yield Place(f"docker://{host}/team/app:v1", lambda: list(registry.uploads))
        return
    names = {
        "oci": f"oci:{tmp_path}/layout:v1",
        "oci unnamed": f"oci:{tmp_path}/layout",
        "oci-archive": f"oci-archive:{tmp_path}/image.tar:v1",
        "dir": f"dir:{tmp_path}/folder",
    }
    yield Place(names[request.param], hidden)


class TestRoundTrip:
    @pytest.mark.parametrize("stored", [OLD, NEW, BIG, LIST], ids=["old", "new", "big", "list"])
    def test_sink_image_is_read_back_by_source(self, place: Place, stored: Image) -> None:
        with place.sink() as sink:
            store(sink, stored)
        with place.source() as source:
            check(source, stored)
        assert not place.leftovers()

    def test_sink_replaces_image_with_new_one(self, place: Place) -> None:
        for stored in (OLD, LIST, NEW):
            with place.sink() as sink:
                store(sink, stored)
            with place.source() as source:
                check(source, stored)

    def test_source_image_copied_to_layout_is_identical(self, place: Place, tmp_path: Path) -> None:
        with place.sink() as sink:
            store(sink, BIG)
        reference = parse_image_reference(f"oci:{tmp_path}/copy:x")
        with place.source() as source, open_sink(reference) as sink:
            for blob in BIG.blobs:
                copy_blob(source, sink, blob)
            sink.put_manifest(source.manifest())
            sink.set_reference(source.manifest())
        with open_source(reference) as copied:
            check(copied, BIG)


class TestNothingShowsBeforeItsTime:
    def test_sink_image_stays_invisible_until_reference_is_set(self, place: Place) -> None:
        with place.sink() as sink:
            store(sink, OLD)
        with place.sink() as sink:
            store(sink, LIST, named=False)
            with place.source() as source:
                check(source, OLD)
        with place.source() as source:
            check(source, OLD)
        assert not place.leftovers()

    def test_sink_without_reference_leaves_no_image(self, place: Place) -> None:
        with place.sink() as sink:
            store(sink, NEW, named=False)
        with pytest.raises(CocoKpError):
            place.source().manifest()
        assert not place.leftovers()

    def test_sink_image_can_be_read_back_before_reference_is_set(self, place: Place) -> None:
        with place.sink() as sink:
            store(sink, LIST, named=False)
            with sink.read_back() as source:
                assert source.manifest(LIST.top.descriptor()).raw == LIST.top.raw
                check_parts(source, LIST)
                with pytest.raises(CocoKpError):
                    source.manifest()

    def test_blob_writer_without_commit_drops_blob(self, place: Place) -> None:
        blob = describe("x", b"data")
        with place.sink() as sink:
            with sink.begin_blob() as writer:
                writer.take(in_pieces(b"data"))
            assert not sink.has_blob(blob)
        assert not place.leftovers()


class TestInPlace:
    def test_sink_replaces_image_that_is_as_it_was_read(self, place: Place) -> None:
        with place.sink() as sink:
            store(sink, OLD)
        with place.sink() as sink:
            store(sink, NEW, named=False)
            sink.set_reference(NEW.top, replacing=OLD.top.digest)
        with place.source() as source:
            check(source, NEW)

    def test_sink_refuses_to_replace_image_that_changed_meanwhile(self, place: Place) -> None:
        with place.sink() as sink:
            store(sink, OLD)
        with place.sink() as sink:
            store(sink, NEW, named=False)
            with place.sink() as other:
                store(other, LIST)
            with pytest.raises(ChangedError, match="changed meanwhile") as caught:
                sink.set_reference(NEW.top, replacing=OLD.top.digest)
        assert caught.value.exit_code == 6
        with place.source() as source:
            check(source, LIST)
        assert not place.leftovers()

    def test_sink_refuses_to_replace_image_that_is_gone(self, place: Place) -> None:
        with place.sink() as sink:
            store(sink, NEW, named=False)
            with pytest.raises(ChangedError):
                sink.set_reference(NEW.top, replacing=OLD.top.digest)
        with pytest.raises(CocoKpError):
            place.source().manifest()

    @pytest.mark.parametrize("place", ["oci", "oci-archive", "dir"], indirect=True)
    def test_sink_names_image_under_the_lock_of_its_folder(
        self, place: Place, tmp_path: Path
    ) -> None:
        folder = {"oci": tmp_path / "layout", "dir": tmp_path / "folder"}
        with place.sink() as sink:
            store(sink, OLD, named=False)
            with (
                locked(folder.get(place.name.partition(":")[0], tmp_path)),
                within(0),
                pytest.raises(InputError, match="another process keeps .* locked"),
            ):
                sink.set_reference(OLD.top)
        with pytest.raises(CocoKpError):
            place.source().manifest()

    @pytest.mark.parametrize("place", ["oci", "oci unnamed", "dir"], indirect=True)
    def test_sink_refuses_image_of_which_others_removed_a_blob(self, place: Place) -> None:
        """It was not copied, for it was there."""
        with place.sink() as sink:
            store(sink, OLD)
        with place.sink() as sink:
            store(sink, NEW, named=False)
            with place.sink() as other:
                store(other, BIG)
            with pytest.raises(ChangedError):
                sink.set_reference(NEW.top)
        with place.source() as source:
            check(source, BIG)
        assert not place.leftovers()


class TestBlobs:
    def test_sink_has_blob_once_it_is_written(self, place: Place) -> None:
        blob = describe("x", b"data")
        with place.sink() as sink:
            assert not sink.has_blob(blob)
            put_blob(sink, blob, b"data")
            assert sink.has_blob(blob)

    def test_sink_does_not_have_blob_of_another_size(self, place: Place) -> None:
        blob = describe("x", b"data")
        other = parse_descriptor({**blob.document, "size": 5}, "x")
        with place.sink() as sink:
            put_blob(sink, blob, b"data")
            assert place.name.startswith("oci-archive") or not sink.has_blob(other)

    @pytest.mark.parametrize("size", [None, 100_000])
    def test_blob_writer_accepts_blob_in_pieces(self, place: Place, size: int | None) -> None:
        data = os.urandom(100_000)
        blob = describe("x", data)
        with place.sink() as sink:
            with sink.begin_blob(size) as writer:
                writer.take(in_pieces(data, 7001))
                writer.commit(blob.digest, len(data))
            with sink.read_back() as source:
                assert read_blob(source, blob, len(data)) == data

    def test_blob_writer_accepts_blob_through_file_descriptor(self, place: Place) -> None:
        data = os.urandom(100_000)
        blob = describe("x", data)
        with place.sink() as sink:
            with sink.begin_blob(len(data)) as writer:
                if writer.fd is None:
                    assert place.name.startswith("docker://"), "sent, not written"
                    writer.take(in_pieces(data))
                else:
                    assert os.write(writer.fd, data) == len(data)
                writer.commit(blob.digest, len(data))
            with sink.read_back() as source:
                assert read_blob(source, blob, len(data)) == data

    @pytest.mark.parametrize("size", [None, 4])
    def test_blob_writer_refuses_wrong_size_and_drops_blob(
        self, place: Place, size: int | None
    ) -> None:
        blob = describe("x", b"data")
        with place.sink() as sink:
            with sink.begin_blob(size) as writer:
                writer.take(in_pieces(b"data"))
                with pytest.raises(IntegrityError, match="expected 5"):
                    writer.commit(blob.digest, 5)
            assert not sink.has_blob(blob)
        assert not place.leftovers()

    def test_sink_accepts_same_blob_twice(self, place: Place) -> None:
        blob = describe("x", b"data")
        with place.sink() as sink:
            for _ in range(2):
                with sink.begin_blob() as writer:
                    writer.take(in_pieces(b"data"))
                    writer.commit(blob.digest, 4)
            with sink.read_back() as source:
                assert read_blob(source, blob, 4) == b"data"

    def test_blob_writer_refuses_data_after_commit(self, place: Place) -> None:
        with place.sink() as sink, sink.begin_blob() as writer:
            writer.take(in_pieces(b""))
            writer.commit(Digest.of(b""), 0)
            with pytest.raises(ValueError, match="finished"):
                writer.take(in_pieces(b"more"))
            writer.abort()
            assert sink.has_blob(describe("x", b""))

    def test_source_fails_for_missing_blob_and_manifest(self, place: Place) -> None:
        with place.sink() as sink:
            store(sink, OLD)
        with place.source() as source:
            source.manifest()
            with pytest.raises(CocoKpError):
                source.open_blob(describe("x", b"missing"))
            with pytest.raises(MissingManifestError, match="lacks the manifest sha256:"):
                source.manifest(describe(OLD.top.media_type, b"missing"))
