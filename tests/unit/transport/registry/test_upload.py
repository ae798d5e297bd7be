"""Uploads: the way they take, and how they go on where they broke."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import pytest

from coco_kp.errors import DeniedError, IntegrityError, RemoteError, UnreachableError
from coco_kp.model.digest import Digest
from coco_kp.model.manifest import Descriptor, describe
from coco_kp.model.reference import RegistryReference
from coco_kp.transport.registry.session import Session
from coco_kp.transport.registry.sink import RegistrySink
from coco_kp.transport.registry.upload import SMALL
from tests.sim.http_server import BreakOff, Reply, Request, http_server
from tests.sim.link import breaking_link
from tests.sim.registry import Registry, error
from tests.support.access import PLAIN, REPOSITORY
from tests.support.blobs import in_pieces, put_blob
from tests.support.patience import wait_until
from tests.support.stored import image

Fault = Callable[[Request], Reply | BreakOff | None]

DATA = os.urandom(3_000_000)
BLOB = describe("x", DATA)
TOP = image(b"x").top


def stored(registry: Registry, blob: Descriptor = BLOB) -> bytes | None:
    return registry.blobs.get((REPOSITORY, str(blob.digest)))


def upload(sink: RegistrySink, *, size: int | None = len(DATA)) -> None:
    with sink.begin_blob(size) as writer:
        writer.take(in_pieces(DATA))
        writer.commit(BLOB.digest, len(DATA))


def once(method: str, reply: Reply | BreakOff, times: int = 1) -> Fault:
    """A fault that answers the first requests of a method."""
    left = [times]

    def fault(request: Request) -> Reply | BreakOff | None:
        if request.method != method or "uploads" not in request.path or not left[0]:
            return None
        left[0] -= 1
        return reply

    return fault


def answer_to_put_lost(registry: Registry) -> Fault:
    """A fault that does what the PUT asks for, once, and gives no answer."""

    def fault(request: Request) -> BreakOff | None:
        if request.method != "PUT" or "uploads" not in request.path:
            return None
        registry.faults.clear()
        registry.route(request)
        return BreakOff()

    return fault


def pieces_of(least: str, registry: Registry) -> Fault:
    """A registry that wants pieces of so many bytes at least."""

    def fault(request: Request) -> Reply | None:
        if request.method != "POST":
            return None
        reply = registry.route(request)
        return replace(reply, headers={**reply.headers, "OCI-Chunk-Min-Length": least})

    return fault


class TestTheWay:
    @pytest.mark.parametrize("size", [None, len(DATA)])
    def test_upload_sends_post_then_one_patch_then_put(
        self, registry: Registry, sink: RegistrySink, size: int | None
    ) -> None:
        upload(sink, size=size)
        assert stored(registry) == DATA
        uploads = [request for request in registry.seen if "uploads" in request.path]
        assert [request.method for request in uploads] == ["POST", "PATCH", "PUT"]
        post, patch, put = uploads
        assert post.path == f"/v2/{REPOSITORY}/blobs/uploads/"
        assert patch.headers["Content-Type"] == "application/octet-stream"
        assert patch.headers.get("Content-Length") == (None if size is None else str(size))
        assert put.query["digest"] == [str(BLOB.digest)]
        assert put.query["state"] == ["1"], "the PATCH's Location was not followed"
        assert not registry.uploads

    @pytest.mark.parametrize("status", [200, 201, 202, 204])
    def test_upload_takes_any_2xx_for_success(
        self, registry: Registry, sink: RegistrySink, status: int
    ) -> None:
        registry.patched = registry.stored = registry.finished = status
        upload(sink)
        sink.put_manifest(TOP)
        assert stored(registry) == DATA

    @pytest.mark.parametrize("status", [307, 308])
    @pytest.mark.parametrize("size", [None, len(DATA)])
    def test_upload_follows_redirects_within_the_origin(
        self, registry: Registry, sink: RegistrySink, status: int, size: int | None
    ) -> None:
        moved: list[str] = []

        def move(request: Request) -> Reply | None:
            path = request.path
            if path.startswith("/v2/moved/"):
                moved.append(request.method)
                registry.seen[-1] = request = replace(request, path=f"/v2/{path[10:]}")
                return registry.route(request)
            query = urlencode(request.query, doseq=True)
            return Reply(status, {"Location": f"/v2/moved/{path[4:]}?{query}"})

        registry.faults = [move]
        upload(sink, size=size)
        sink.put_manifest(TOP)
        assert stored(registry) == DATA
        assert moved == ["GET", "POST", "PATCH", "PUT", "PUT"]

    def test_upload_follows_no_redirect_to_another_origin(
        self, registry: Registry, sink: RegistrySink
    ) -> None:
        elsewhere: list[Request] = []

        def take(request: Request) -> Reply:
            elsewhere.append(request)
            return Reply(202)

        with http_server(take) as base:
            registry.faults = [once("PATCH", Reply(307, {"Location": f"{base}/x"}))]
            with pytest.raises(RemoteError, match="PATCH http://.*: 307 Temporary Redirect"):
                upload(sink)
        assert not elsewhere

    def test_upload_that_is_dropped_deletes_nothing_on_another_host(
        self, registry: Registry, sink: RegistrySink
    ) -> None:
        elsewhere: list[str] = []

        def take(request: Request) -> Reply:
            elsewhere.append(request.method)
            return Reply(202)

        with http_server(take) as base:
            registry.faults = [once("POST", Reply(202, {"Location": f"{base}/x"}))]
            with sink.begin_blob(len(DATA)) as writer:
                writer.take(in_pieces(DATA))
        assert elsewhere == ["PATCH"]

    @pytest.mark.parametrize("data", [b"", b"x", b"xy"])
    @pytest.mark.parametrize("known", [True, False])
    def test_upload_handles_smallest_blobs(
        self, registry: Registry, sink: RegistrySink, data: bytes, known: bool
    ) -> None:
        blob = describe("x", data)
        with sink.begin_blob(len(data) if known else None) as writer:
            writer.take(in_pieces(data))
            writer.commit(blob.digest, len(data))
        assert stored(registry, blob) == data

    @pytest.mark.parametrize("more", [0, 1])
    def test_upload_sends_whole_with_its_digest_what_is_small(
        self, registry: Registry, sink: RegistrySink, more: int
    ) -> None:
        """A PATCH of its own is a round trip that many small layers take, one after the other."""
        data = DATA[: SMALL + more]
        put_blob(sink, describe("x", data), data)
        assert stored(registry, describe("x", data)) == data
        uploads = [request.method for request in registry.seen if "uploads" in request.path]
        assert uploads == (["POST", "PATCH", "PUT"] if more else ["POST", "PUT"])

    def test_upload_of_small_blob_that_is_dropped_asks_for_nothing(
        self, registry: Registry, sink: RegistrySink
    ) -> None:
        with sink.begin_blob(1000) as writer:
            writer.take(in_pieces(DATA[:1000]))
        assert not registry.seen

    @pytest.mark.parametrize("finished", [True, False])
    def test_upload_is_committed_no_second_time_and_not_before_it_was_taken(
        self, registry: Registry, sink: RegistrySink, finished: bool
    ) -> None:
        with sink.begin_blob(0) as writer:
            if finished:
                writer.take(in_pieces(b""))
                writer.commit(Digest.of(b""), 0)
            before = len(registry.seen)
            with pytest.raises(ValueError, match="not taken, or is finished"):
                writer.commit(Digest.of(b""), 0)
        assert len(registry.seen) == before

    def test_upload_starts_before_last_byte_is_written(
        self, registry: Registry, sink: RegistrySink
    ) -> None:
        def look(offset: int) -> None:
            if offset == 2_000_000:
                wait_until(lambda: registry.requests("POST", "uploads"))

        with sink.begin_blob(len(DATA)) as writer:
            writer.take(in_pieces(DATA, between=look))
            writer.commit(BLOB.digest, len(DATA))
        assert stored(registry) == DATA

    def test_upload_is_skipped_for_blob_that_registry_has(
        self, registry: Registry, sink: RegistrySink
    ) -> None:
        put_blob(sink, BLOB, DATA)
        registry.seen.clear()
        put_blob(sink, BLOB, DATA)
        assert {request.method for request in registry.seen} == {"HEAD"}

    def test_upload_is_listed_as_left_behind(self, sink: RegistrySink) -> None:
        assert sink.left_behind() == ()
        put_blob(sink, BLOB, DATA)
        assert sink.left_behind() == (BLOB.digest,)


class TestBroken:
    @pytest.mark.parametrize("size", [None, len(DATA)])
    @pytest.mark.parametrize("took", [0, 1, 2, 1_000_000, 2_999_999])
    def test_upload_resumes_where_it_broke(
        self, registry: Registry, sink: RegistrySink, size: int | None, took: int
    ) -> None:
        registry.breaks = [("PATCH", took)]
        upload(sink, size=size)
        assert stored(registry) == DATA
        first, *others = registry.requests("PATCH")
        if len(first.body) == len(DATA):  # of HTTP chunks, whole ones are kept
            assert not others
            return
        (second,) = others
        if took > 1:
            assert len(first.body) >= took
            assert len(second.body) == len(DATA) - len(first.body), (
                "it did not go on, but began anew"
            )
            if size is not None:
                assert second.headers["Content-Range"] == f"{len(first.body)}-{len(DATA) - 1}"
            assert len(registry.requests("POST")) == 1

    @pytest.mark.parametrize("size", [None, len(DATA)])
    def test_upload_of_which_only_the_answer_was_lost_sends_no_empty_part(
        self, registry: Registry, sink: RegistrySink, size: int | None
    ) -> None:
        """Distribution refuses one, again and again (416)."""
        registry.breaks = [("PATCH", len(DATA))]
        upload(sink, size=size)
        assert stored(registry) == DATA
        assert len(registry.requests("PATCH")) == 1

    def test_upload_resumes_as_long_as_there_is_progress(
        self, registry: Registry, sink: RegistrySink
    ) -> None:
        registry.breaks = [("PATCH", 100_000)] * 12
        upload(sink)
        assert stored(registry) == DATA
        assert len(registry.requests("PATCH")) == 13

    @pytest.mark.parametrize("partial", [True, False])
    @pytest.mark.parametrize("size", [None, 300_000])
    def test_upload_makes_progress_over_link_that_breaks_every_30_kb(
        self,
        registry: Registry,
        host: str,
        session: Session,
        partial: bool,
        size: int | None,
    ) -> None:
        registry.partial = partial
        data = DATA[:300_000]
        with (
            breaking_link(host, 30_000) as link,
            RegistrySink(RegistryReference(link, REPOSITORY, "v1"), PLAIN, session) as sink,
            sink.begin_blob(size) as writer,
        ):
            writer.take(in_pieces(data))
            writer.commit(Digest.of(data), len(data))
        assert stored(registry, describe("x", data)) == data
        assert len(registry.requests("POST")) <= (1 if partial else 5), (
            "it began anew although there was progress"
        )

    def test_upload_joins_pieces_that_lie_in_one_buffer(
        self, registry: Registry, sink: RegistrySink
    ) -> None:
        """A small PATCH held the later of two pieces twice, and the registry refused the digest."""
        registry.faults = [once("PATCH", BreakOff(), 2)]
        upload(sink)
        assert stored(registry) == DATA
        assert len(registry.requests("PUT")) == 1

    def test_upload_sends_no_smaller_pieces_than_registry_takes(
        self, registry: Registry, sink: RegistrySink
    ) -> None:
        registry.faults = [pieces_of("1000000", registry), once("PATCH", BreakOff(), 4)]
        upload(sink)
        assert stored(registry) == DATA
        assert [len(r.body) for r in registry.requests("PATCH")][4:] == [1_000_000] * 3

    def test_upload_holds_no_more_than_16_mib_however_large_registry_wants_pieces(
        self, registry: Registry, sink: RegistrySink
    ) -> None:
        data, most = bytes(34 << 20), 16 << 20
        registry.faults = [pieces_of("999999999", registry), once("PATCH", BreakOff(), 4)]
        with sink.begin_blob(len(data)) as writer:
            writer.take(lambda offset: iter([memoryview(data)[offset:]]))
            writer.commit(Digest.of(data), len(data))
        assert [len(r.body) for r in registry.requests("PATCH")][4:] == [most, most, 2 << 20]

    @pytest.mark.parametrize("method", ["PATCH", "PUT"])
    def test_upload_waits_as_long_as_registry_asks(
        self, registry: Registry, sink: RegistrySink, pauses: list[float], method: str
    ) -> None:
        registry.faults = [once(method, Reply(503, {"Retry-After": "9"}), 2)]
        upload(sink)
        assert stored(registry) == DATA
        assert pauses == [9, 9]

    def test_upload_gives_up_where_registry_asks_for_a_long_pause(
        self, registry: Registry, sink: RegistrySink, pauses: list[float]
    ) -> None:
        registry.faults = [once("PATCH", Reply(429, {"Retry-After": "3600"}), 99)]
        with pytest.raises(RemoteError, match="429"):
            upload(sink)
        assert not pauses

    def test_upload_gives_up_without_progress(
        self, registry: Registry, sink: RegistrySink, pauses: list[float]
    ) -> None:
        registry.faults = [once("PATCH", BreakOff(), 99)]
        with pytest.raises(UnreachableError, match="PATCH http://127"):
            upload(sink)
        assert len(registry.requests("PATCH")) == 5
        assert [int(math.log2(pause)) for pause in pauses] == [0, 0, 1, 2]
        assert stored(registry) is None

    @pytest.mark.parametrize(
        "reply",
        [
            Reply(500),
            Reply(503, {"Retry-After": "1"}),
            error(429, "TOOMANYREQUESTS", "slow down"),
            error(416, "BLOB_UPLOAD_INVALID", "range"),
            Reply(202, {"Location": "?state=2", "Range": "0-7"}),
        ],
        ids=lambda reply: str(reply.status),
    )
    def test_upload_resumes_after_transient_refusal_of_patch(
        self, registry: Registry, sink: RegistrySink, reply: Reply
    ) -> None:
        registry.faults = [once("PATCH", reply)]
        upload(sink)
        assert stored(registry) == DATA

    @pytest.mark.parametrize("status", [400, 403, 413])
    def test_upload_quotes_final_refusal_of_patch(
        self, registry: Registry, sink: RegistrySink, status: int
    ) -> None:
        registry.faults = [once("PATCH", error(status, "DENIED", "quota exceeded"), 99)]
        with pytest.raises(RemoteError, match=f"{status} .*: DENIED: quota exceeded"):
            upload(sink)
        assert len(registry.requests("PATCH")) == 1

    def test_upload_restarts_when_registry_forgot_it(
        self, registry: Registry, sink: RegistrySink
    ) -> None:
        def forget(request: Request) -> Reply | None:
            if request.method == "GET" and "uploads" in request.path:
                registry.uploads.clear()
            return None

        registry.breaks = [("PATCH", 1_000_000)]
        registry.faults = [forget]
        upload(sink)
        assert stored(registry) == DATA
        assert len(registry.requests("POST")) == 2

    @pytest.mark.parametrize("answer", ["", "0-99999999", "5-10", "nonsense", "0-" + "9" * 30])
    def test_upload_restarts_when_registry_reports_wrong_range(
        self, registry: Registry, sink: RegistrySink, answer: str
    ) -> None:
        registry.breaks = [("PATCH", 1_000_000)]
        registry.faults = [once("GET", Reply(204, {"Range": answer}))]
        upload(sink)
        assert stored(registry) == DATA

    def test_upload_restarts_when_late_data_of_broken_request_is_noticed(
        self, registry: Registry, sink: RegistrySink
    ) -> None:
        """Data of the broken request arrives after the registry has told its offset."""

        def late(request: Request) -> Reply | None:
            if request.method != "GET" or "uploads" not in request.path:
                return None
            (data,) = registry.uploads.values()
            reply = Reply(204, {"Range": f"0-{len(data) - 1}"})
            data.extend(b"late")
            return reply

        registry.breaks = [("PATCH", 1_000_000)]
        registry.faults = [late]
        upload(sink, size=None)
        assert stored(registry) == DATA

    def test_upload_restarts_when_late_data_shows_only_in_the_digest(
        self, registry: Registry, sink: RegistrySink
    ) -> None:
        """The same, and the registry does not say how much it has: only the digest tells."""

        def late(request: Request) -> Reply | None:
            data = registry.uploads.get(request.path.rpartition("/")[2])
            if data is None:
                return None
            if request.method == "GET":
                reply = Reply(204, {"Range": f"0-{len(data) - 1}"})
                data.extend(b"late")
                return reply
            if request.method == "PATCH":
                data.extend(request.body)
                return Reply(202, {"Location": request.path})
            return None

        registry.breaks = [("PATCH", 1_000_000)]
        registry.faults = [late]
        upload(sink, size=None)
        assert stored(registry) == DATA
        assert len(registry.requests("PUT")) == 2

    def test_upload_succeeds_when_answer_to_put_is_lost(
        self, registry: Registry, sink: RegistrySink
    ) -> None:
        registry.faults = [answer_to_put_lost(registry)]
        upload(sink)
        assert stored(registry) == DATA
        assert len(registry.requests("PUT")) == 1

    @pytest.mark.parametrize(
        "reply", [BreakOff(), Reply(503), Reply(500)], ids=["break", "503", "500"]
    )
    def test_upload_retries_put_after_transient_failure(
        self, registry: Registry, sink: RegistrySink, reply: Reply | BreakOff
    ) -> None:
        registry.faults = [once("PUT", reply, 2)]
        upload(sink)
        assert stored(registry) == DATA
        assert len(registry.requests("PUT")) == 3

    def test_upload_gives_up_when_put_keeps_failing(
        self, registry: Registry, sink: RegistrySink
    ) -> None:
        registry.faults = [once("PUT", error(503, "UNAVAILABLE", "storage"), 99)]
        with pytest.raises(RemoteError, match="503 Service Unavailable: UNAVAILABLE: storage"):
            upload(sink)
        assert len(registry.requests("PUT")) == 5

    @pytest.mark.parametrize(
        "denied", [error(403, "DENIED", "no HEAD here"), error(405, "UNSUPPORTED", "no HEAD")]
    )
    def test_upload_goes_on_where_nobody_may_look_after_a_put_broke(
        self, registry: Registry, sink: RegistrySink, denied: Reply
    ) -> None:
        registry.faults = [
            once("PUT", BreakOff()),
            lambda request: denied if request.method == "HEAD" else None,
        ]
        upload(sink)
        assert stored(registry) == DATA
        assert len(registry.requests("PUT")) == 2

    def test_upload_tells_put_that_broke_before_the_look_that_is_refused(
        self, registry: Registry, sink: RegistrySink
    ) -> None:
        registry.faults = [
            once("PUT", BreakOff(), 99),
            lambda request: error(403, "DENIED", "pull") if request.method == "HEAD" else None,
        ]
        with pytest.raises(UnreachableError, match="^PUT http://127"):
            upload(sink)

    @pytest.mark.parametrize(
        ("asked", "answer", "raised", "words"),
        [
            ("GET", BreakOff(), UnreachableError, "the connection was closed"),
            ("POST", error(403, "DENIED", "expired"), DeniedError, "403 Forbidden: DENIED: exp"),
        ],
        ids=["GET", "POST"],
    )
    def test_upload_tells_patch_that_broke_before_what_fails_after_it(
        self,
        registry: Registry,
        sink: RegistrySink,
        asked: str,
        answer: Reply | BreakOff,
        raised: type[RemoteError],
        words: str,
    ) -> None:
        """What failed last was told alone: nothing of the line that had broken."""
        registry.partial = False
        registry.faults = [
            once("PATCH", BreakOff()),
            lambda request: (
                answer if registry.requests("PATCH") and request.method == asked else None
            ),
        ]
        with pytest.raises(raised, match=f"^PATCH http.*[;:] {asked} http.*: {words}") as caught:
            upload(sink)
        assert type(caught.value) is raised, "a denial stays one, for no repeat helps"

    def test_upload_does_not_retry_refused_digest_and_is_cancelled(
        self, registry: Registry, sink: RegistrySink
    ) -> None:
        with sink.begin_blob(4) as writer:
            writer.take(in_pieces(b"data"))
            with pytest.raises(RemoteError, match="DIGEST_INVALID"):
                writer.commit(Digest.of(b"other"), 4)
        assert len(registry.requests("PUT")) == 1
        assert not registry.uploads, "the upload was not cancelled"

    def test_upload_fails_when_registry_reports_another_digest(
        self, registry: Registry, sink: RegistrySink
    ) -> None:
        other = {"Docker-Content-Digest": str(Digest.of(b"other"))}
        registry.faults = [once("PUT", Reply(201, other))]
        with pytest.raises(IntegrityError, match="the registry says"):
            upload(sink)

    def test_upload_quotes_refusal_to_start(self, registry: Registry, sink: RegistrySink) -> None:
        registry.faults = [once("POST", error(403, "DENIED", "read only"), 99)]
        with pytest.raises(RemoteError, match="403 Forbidden: DENIED: read only") as caught:
            upload(sink)
        assert "right" in caught.value.hint

    @pytest.mark.parametrize(
        "failure", [UnreachableError("the source is gone"), BrokenPipeError("the source is gone")]
    )
    def test_upload_raises_what_its_source_failed_with(
        self, registry: Registry, sink: RegistrySink, failure: Exception
    ) -> None:
        """A source that cannot be reached or read any more is no upload that broke."""

        def fail(offset: int) -> None:
            if offset >= 1_000_000:
                raise failure

        with (
            pytest.raises(type(failure), match="the source is gone"),
            sink.begin_blob(len(DATA)) as writer,
        ):
            writer.take(in_pieces(DATA, between=fail))
        assert len(registry.requests("PATCH")) <= 1
        assert not registry.uploads


class TestBrokenWhole:
    """A small blob, which is sent whole with its digest, and then as all others are."""

    data = DATA[:50_000]
    blob = describe("x", data)

    @pytest.mark.parametrize(
        "reply",
        [BreakOff(), Reply(503), Reply(404), Reply(416)],
        ids=["break", "503", "404", "416"],
    )
    def test_upload_sent_whole_goes_on_as_a_stream(
        self, registry: Registry, sink: RegistrySink, reply: Reply | BreakOff
    ) -> None:
        registry.faults = [once("PUT", reply)]
        put_blob(sink, self.blob, self.data)
        assert stored(registry, self.blob) == self.data
        uploads = [request.method for request in registry.seen if "uploads" in request.path]
        assert uploads == ["POST", "PUT", "DELETE", "POST", "PATCH", "PUT"]
        assert not registry.uploads

    def test_upload_sent_whole_tells_what_broke_before_that_no_other_is_begun(
        self, registry: Registry, sink: RegistrySink
    ) -> None:
        denied = error(403, "DENIED", "expired")
        registry.faults = [
            once("PUT", BreakOff()),
            lambda request: (
                denied if registry.requests("PUT") and request.method == "POST" else None
            ),
        ]
        with pytest.raises(DeniedError, match=r"^PUT http.*: POST http.*: DENIED: expired"):
            put_blob(sink, self.blob, self.data)

    @pytest.mark.parametrize("took", [0, 1, 20_000, 50_000])
    def test_upload_sent_whole_of_which_a_part_arrived_begins_anew(
        self, registry: Registry, sink: RegistrySink, took: int
    ) -> None:
        """What the registry has of it is not known: a second PUT would add to that."""
        registry.breaks = [("PUT", took)]
        put_blob(sink, self.blob, self.data)
        assert stored(registry, self.blob) == self.data
        assert not registry.uploads

    def test_upload_sent_whole_succeeds_when_the_answer_is_lost(
        self, registry: Registry, sink: RegistrySink
    ) -> None:
        registry.faults = [answer_to_put_lost(registry)]
        put_blob(sink, self.blob, self.data)
        assert stored(registry, self.blob) == self.data
        assert len(registry.requests("POST")) == 1

    def test_upload_sent_whole_that_is_refused_is_cancelled(
        self, registry: Registry, sink: RegistrySink
    ) -> None:
        registry.faults = [once("PUT", error(403, "DENIED", "quota exceeded"), 99)]
        with pytest.raises(RemoteError, match=r"403 .*: DENIED: quota exceeded"):
            put_blob(sink, self.blob, self.data)
        assert len(registry.requests("PUT")) == 1
        assert not registry.uploads


class TestDropped:
    def test_upload_abandoned_is_cancelled_at_registry(
        self, registry: Registry, sink: RegistrySink
    ) -> None:
        with sink.begin_blob(len(DATA)) as writer:
            writer.take(in_pieces(DATA))
            assert registry.uploads
        assert not registry.uploads
        assert registry.requests("DELETE")
        assert stored(registry) is None
        assert sink.left_behind() == ()

    def test_upload_writes_no_file(
        self, sink: RegistrySink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TMPDIR", str(tmp_path / "there-is-none"))
        upload(sink)
