"""Reading from a registry: manifests, downloads that break, redirects, refusals."""

from __future__ import annotations

import json
import logging
import math
import os
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from coco_kp.errors import InputError, IntegrityError, RefusedError, RemoteError, UnreachableError
from coco_kp.model.digest import Digest
from coco_kp.model.manifest import MAX_MANIFEST, describe
from coco_kp.model.reference import RegistryReference
from coco_kp.transport import Access, read_blob
from coco_kp.transport.registry.session import Session
from coco_kp.transport.registry.sink import RegistrySink
from coco_kp.transport.registry.source import RegistrySource
from tests.sim.http_server import BreakOff, Reply, Request, http_server
from tests.sim.registry import Registry, TokenServer, error, ranged, serve, serve_tokens
from tests.support.access import PLAIN, REPOSITORY
from tests.support.blobs import copy_blob
from tests.support.stored import check, image, index, store

DATA = os.urandom(999_999) + b"\0"  # which DAMAGED has not
DAMAGED = DATA[:-1] + b"x"
BLOB = describe("x", DATA)
ONE = image(b"layer one")
OCI = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(autouse=True)
def blob_there(registry: Registry) -> None:
    registry.blobs[REPOSITORY, str(BLOB.digest)] = DATA


class TestManifests:
    def test_registry_source_by_digest_returns_that_manifest_or_fails(
        self, registry: Registry, sink: RegistrySink, host: str
    ) -> None:
        store(sink, ONE)
        registry.manifests[REPOSITORY, "v1"] = (OCI, b"replaced")
        name = RegistryReference(host, REPOSITORY, None, ONE.top.digest)
        with RegistrySource(name, PLAIN) as source:
            check(source, ONE)
        registry.manifests[REPOSITORY, str(ONE.top.digest)] = (OCI, ONE.top.raw + b" ")
        with (
            RegistrySource(name, PLAIN) as source,
            pytest.raises(IntegrityError, match="does not have that digest"),
        ):
            source.manifest()

    def test_registry_source_detects_damaged_manifest(
        self, registry: Registry, sink: RegistrySink, source: RegistrySource
    ) -> None:
        stored = index(ONE)
        store(sink, stored)
        child = stored.children[0]
        registry.manifests[REPOSITORY, str(child.digest)] = (OCI, child.raw + b" ")
        with pytest.raises(IntegrityError, match="is damaged"):
            source.manifest(child.descriptor())
        header = {"Docker-Content-Digest": str(Digest.of(b"other")), "Content-Type": OCI}
        registry.faults = [lambda _: Reply(200, header, ONE.top.raw)]
        with pytest.raises(IntegrityError, match="the registry says"):
            source.manifest()

    @pytest.mark.parametrize(
        ("content_type", "words"),
        [
            (f"{OCI}; charset=utf-8", None),
            ("application/json", None),
            ("text/plain", None),
            ("", None),
            ("application/vnd.docker.distribution.manifest.v2+json", "what points to it says"),
            ("application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
        ],
    )
    def test_registry_source_checks_content_type_of_manifest(
        self, registry: Registry, source: RegistrySource, content_type: str, words: str | None
    ) -> None:
        registry.manifests[REPOSITORY, "v1"] = (content_type, ONE.top.raw)
        if words is None:
            assert source.manifest().raw == ONE.top.raw
            return
        with pytest.raises(InputError, match=words):
            source.manifest()

    def test_registry_source_accepts_all_manifest_media_types(
        self, registry: Registry, source: RegistrySource
    ) -> None:
        registry.manifests[REPOSITORY, "v1"] = (OCI, ONE.top.raw)
        source.manifest()
        (request,) = registry.requests("GET", "manifests")
        assert request.headers["Accept"].split(", ") == [
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.docker.distribution.manifest.v2+json",
            "application/vnd.oci.image.index.v1+json",
            "application/vnd.docker.distribution.manifest.list.v2+json",
        ]

    def test_registry_source_refuses_oversized_manifest(
        self, registry: Registry, source: RegistrySource
    ) -> None:
        registry.manifests[REPOSITORY, "v1"] = (OCI, bytes(MAX_MANIFEST + 1))
        with pytest.raises(RemoteError, match=f"longer than {MAX_MANIFEST} bytes"):
            source.manifest()

    def test_registry_source_quotes_error_for_missing_manifest(
        self, source: RegistrySource
    ) -> None:
        with pytest.raises(RemoteError, match="404 Not Found: MANIFEST_UNKNOWN") as caught:
            source.manifest()
        assert "check the name" in caught.value.hint


class TestDownloads:
    @pytest.mark.parametrize("ranges", [True, False])
    @pytest.mark.parametrize("took", [0, 1, 500_000, 999_999])
    def test_blob_download_resumes_after_broken_connection(
        self, registry: Registry, source: RegistrySource, ranges: bool, took: int
    ) -> None:
        broken: list[Request] = []

        def fault(request: Request) -> Reply | None:
            if "blobs" not in request.path or broken:
                return None
            broken.append(request)
            return Reply(200, {"Content-Length": str(len(DATA))}, DATA, truncate=took)

        registry.faults, registry.ranges = [fault], ranges
        assert read_blob(source, BLOB, 1 << 20) == DATA
        again = registry.requests("GET", "blobs")[1]
        assert again.headers.get("Range") == (f"bytes={took}-" if took else None)

    @pytest.mark.parametrize("ranges", [True, False])
    def test_blob_download_that_begins_in_the_middle_is_asked_for_once(
        self, registry: Registry, source: RegistrySource, ranges: bool
    ) -> None:
        """The whole blob was asked for first, and that answer dropped."""
        registry.ranges = ranges
        with source.open_blob(BLOB, verify=False, offset=500_000) as reader:
            assert reader.readall() == DATA[500_000:]
        (request,) = registry.requests("GET", "blobs")
        assert request.headers["Range"] == "bytes=500000-"

    def test_blob_download_resumes_when_chunked_body_ends_early(
        self, registry: Registry, source: RegistrySource
    ) -> None:
        """Nothing tells such an end from a real one but the size in the descriptor."""
        chunked = {"Transfer-Encoding": "chunked"}
        half = DATA[:500_000]
        broken = [Reply(200, chunked, b"%x\r\n%b\r\n0\r\n\r\n" % (len(half), half))]
        registry.faults = [lambda r: broken.pop() if "blobs" in r.path and broken else None]
        assert read_blob(source, BLOB, 1 << 20) == DATA

    @pytest.mark.parametrize("ranges", [True, False])
    def test_blob_download_resumes_when_each_connection_breaks(
        self, registry: Registry, source: RegistrySource, ranges: bool
    ) -> None:
        """Without ranges each starts anew; one breaks off within what is known already."""
        lengths = [100_000, 200_000, 150_000, 180_000, 999_999]

        def fault(request: Request) -> Reply | None:
            if "blobs" not in request.path or not lengths:
                return None
            whole = ranged(request, DATA, ranges=ranges)
            return replace(whole, truncate=lengths.pop(0))

        registry.faults, registry.ranges = [fault], ranges
        assert read_blob(source, BLOB, 1 << 20) == DATA

    def test_manifest_is_asked_for_again_when_its_body_breaks(
        self, registry: Registry, source: RegistrySource, pauses: list[float]
    ) -> None:
        registry.manifests[REPOSITORY, "v1"] = (OCI, ONE.top.raw)
        registry.manifests[REPOSITORY, str(ONE.top.digest)] = (OCI, ONE.top.raw)
        broken = [3, 0, 3, 0]

        def fault(request: Request) -> Reply | None:
            if "manifests" not in request.path or not broken or len(pauses) == 2:
                return None
            return Reply(200, {"Content-Type": OCI}, ONE.top.raw, truncate=broken.pop())

        registry.faults = [fault]
        assert source.manifest().raw == ONE.top.raw
        pauses.clear()
        assert source.manifest(ONE.top.descriptor()).raw == ONE.top.raw
        assert len(pauses) == 2

    def test_retries_decide_how_often_a_registry_may_fail(
        self,
        registry: Registry,
        image_name: RegistryReference,
        session: Session,
        pauses: list[float],
    ) -> None:
        registry.faults = [lambda r: Reply(503) if "manifests" in r.path else None]
        access = replace(PLAIN, retries=7)
        with (
            RegistrySource(image_name, access, session) as source,
            pytest.raises(RemoteError, match="503"),
        ):
            source.manifest()
        assert len(pauses) == 7

    def test_blob_download_gives_up_without_progress(
        self, registry: Registry, source: RegistrySource, pauses: list[float]
    ) -> None:
        length = {"Content-Length": str(len(DATA))}
        registry.faults = [
            lambda r: Reply(200, length, b"", truncate=0) if "blobs" in r.path else None
        ]
        with pytest.raises(UnreachableError, match="ended early"):
            read_blob(source, BLOB, 1 << 20)
        assert [int(math.log2(pause)) for pause in pauses] == [0, 0, 1, 2]

    @pytest.mark.parametrize(
        "given", ["bytes 0-999999/1000000", "bytes 499999-999999/1000000", "bytes 5000000-6/7", ""]
    )
    def test_blob_download_refuses_wrong_content_range(
        self, registry: Registry, source: RegistrySource, given: str
    ) -> None:
        length = {"Content-Length": str(len(DATA))}
        replies = [
            Reply(206, {"Content-Range": given}, DATA[500_000:]),
            Reply(200, length, DATA, truncate=500_000),
        ]
        registry.faults = [lambda r: replies.pop() if "blobs" in r.path else None]
        with pytest.raises(RemoteError, match="asked for bytes from 500000 on"):
            read_blob(source, BLOB, 1 << 20)

    def test_blob_download_refuses_partial_content_that_was_not_requested(
        self, registry: Registry, source: RegistrySource
    ) -> None:
        registry.faults = [lambda r: Reply(206, {}, DATA) if "blobs" in r.path else None]
        with pytest.raises(RemoteError, match="206 Partial Content"):
            source.open_blob(BLOB)

    @pytest.mark.parametrize("bad", [DAMAGED, DATA + b"x"])
    def test_blob_download_detects_damaged_content(
        self, registry: Registry, source: RegistrySource, bad: bytes
    ) -> None:
        registry.blobs[REPOSITORY, str(BLOB.digest)] = bad
        with pytest.raises(IntegrityError):
            read_blob(source, BLOB, 1 << 21)

    def test_copy_blob_of_damaged_content_leaves_no_upload_behind(
        self, registry: Registry, source: RegistrySource, sink: RegistrySink
    ) -> None:
        registry.mounts = False
        registry.blobs[REPOSITORY, str(BLOB.digest)] = DAMAGED
        registry.faults = [lambda r: error(404, "X", "x") if r.method == "HEAD" else None]
        with pytest.raises(IntegrityError):
            copy_blob(source, sink, BLOB)
        assert not registry.uploads
        assert not registry.requests("PUT")


class TestRedirects:
    def test_blob_redirect_sends_no_credentials_to_other_host(
        self, registry: Registry, source: RegistrySource, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        elsewhere: list[Request] = []

        def store_of_blobs(request: Request) -> Reply:
            elsewhere.append(request)
            return ranged(request, DATA)

        registry.tokens = TokenServer()
        with serve_tokens(registry.tokens), http_server(store_of_blobs) as base:
            registry.redirect_blobs_to = base
            assert read_blob(source, BLOB, 1 << 20) == DATA
        (request,) = elsewhere
        assert request.query == {"signature": ["s3cr3t"]}
        assert "Authorization" not in request.headers
        assert "Authorization" in registry.requests("GET", "blobs")[0].headers
        assert "s3cr3t" not in caplog.text

    def test_blob_redirect_failure_shows_no_url_signature(
        self, registry: Registry, source: RegistrySource
    ) -> None:
        with http_server(lambda _: Reply(403, {}, b"<Code>AccessDenied</Code>")) as base:
            registry.redirect_blobs_to = base
            with pytest.raises(RemoteError, match="403 Forbidden: <Code>AccessDenied") as caught:
                source.open_blob(BLOB)
        assert "s3cr3t" not in str(caught.value)

    def test_blob_redirect_loop_is_refused(
        self, registry: Registry, source: RegistrySource, host: str
    ) -> None:
        registry.redirect_blobs_to = f"http://{host}/v2/{REPOSITORY}/blobs"
        with pytest.raises(RemoteError, match="redirected more than 5 times"):
            source.open_blob(BLOB)

    @pytest.mark.parametrize("where", ["ftp://h/x", "file:///etc/passwd", "http://u:p@h/x"])
    def test_blob_redirect_to_unusable_location_is_refused(
        self, registry: Registry, source: RegistrySource, where: str
    ) -> None:
        registry.redirect_blobs_to = where
        with pytest.raises(RemoteError, match="without a usable Location"):
            source.open_blob(BLOB)

    def test_blob_redirect_from_https_to_plain_http_is_refused(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        ca, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("127.0.0.1").configure_cert(context)
        ca.cert_pem.write_to_path(tmp_path / "ca.crt")
        registry.redirect_blobs_to = "http://127.0.0.1:1"
        with (
            serve(registry, tls=context) as host,
            RegistrySource(
                RegistryReference(host, REPOSITORY, "v1"), Access(cert_dir=tmp_path)
            ) as source,
            pytest.raises(RefusedError, match=r"itself named a place .*plain http") as caught,
        ):
            source.open_blob(BLOB)
        assert "X-Forwarded-Proto" in caught.value.hint
        assert caught.value.code == "registry-names-http"


class TestBusy:
    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    def test_registry_source_retries_after_busy_status(
        self, registry: Registry, source: RegistrySource, pauses: list[float], status: int
    ) -> None:
        registry.manifests[REPOSITORY, "v1"] = (OCI, ONE.top.raw)
        replies = [Reply(status, {"Retry-After": "9"})] * 3
        registry.faults = [lambda r: replies.pop() if "manifests" in r.path and replies else None]
        assert source.manifest().raw == ONE.top.raw
        assert pauses == [9, 9, 9]

    def test_registry_source_gives_up_on_busy_registry_and_quotes_its_error(
        self, registry: Registry, source: RegistrySource, pauses: list[float]
    ) -> None:
        busy = error(429, "TOOMANYREQUESTS", "pull rate limit")
        registry.faults = [lambda r: busy if "manifests" in r.path else None]
        with pytest.raises(
            RemoteError, match=r"429 .*: TOOMANYREQUESTS: pull rate limit"
        ) as caught:
            source.manifest()
        assert caught.value.exit_code == 6
        assert len(pauses) == 4
        assert "try again later" in caught.value.hint

    @pytest.mark.parametrize(("status", "code"), [(400, 6), (401, 8), (403, 8), (404, 8), (500, 6)])
    def test_registry_source_tells_refusals_from_failures_by_exit_code(
        self,
        registry: Registry,
        source: RegistrySource,
        pauses: list[float],
        status: int,
        code: int,
    ) -> None:
        registry.faults = [
            lambda r: error(status, "NO", "no") if "manifests" in r.path else None,
        ]
        with pytest.raises(RemoteError) as caught:
            source.manifest()
        assert caught.value.exit_code == code
        assert bool(pauses) is (status == 500)

    def test_registry_error_text_is_made_printable_and_short(
        self, registry: Registry, source: RegistrySource
    ) -> None:
        body = json.dumps({"errors": [{"code": "X", "message": "\x1b[31m\n" + "y" * 2000}, 7]})
        registry.faults = [
            lambda r: Reply(400, {}, body.encode()) if "manifests" in r.path else None
        ]
        with pytest.raises(RemoteError) as caught:
            source.manifest()
        assert "X: [31m yyy" in caught.value.message
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 500

    @pytest.mark.parametrize(
        "body", [b"", b"[]", b'{"errors":5}', b'{"errors":[5]}', b"\xff", b"{"]
    )
    def test_registry_error_with_any_body_is_reported(
        self, registry: Registry, source: RegistrySource, body: bytes
    ) -> None:
        registry.faults = [lambda r: Reply(400, {}, body) if "manifests" in r.path else None]
        with pytest.raises(RemoteError, match="400 Bad Request"):
            source.manifest()


class TestContact:
    def test_registry_source_speaks_plain_http_only_when_asked(
        self, host: str, session: Session
    ) -> None:
        name = RegistryReference(host, REPOSITORY, "v1")
        with (
            RegistrySource(name, Access(), session) as source,
            pytest.raises(UnreachableError, match=r"GET https://127.*: TLS failed"),
        ):
            source.manifest()

    def test_registry_source_reports_server_that_is_not_a_registry(self) -> None:
        with http_server(lambda _: Reply(404, {}, b"<h1>A web site</h1>")) as base:
            name = RegistryReference(base.removeprefix("http://"), REPOSITORY, "v1")
            source = RegistrySource(name, PLAIN)
            with pytest.raises(RemoteError, match="GET https://"):
                source.manifest()

    def test_registry_source_gives_up_quickly_on_refused_connection(
        self, session: Session, pauses: list[float]
    ) -> None:
        name = RegistryReference("127.0.0.1:1", REPOSITORY, "v1")
        with (
            RegistrySource(name, Access(), session) as source,
            pytest.raises(UnreachableError, match="connection refused"),
        ):
            source.manifest()
        assert len(pauses) == 1

    def test_registry_source_contacts_docker_hub_by_its_registry_host(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []

        def request(_self: object, _method: str, url: str, **_more: object) -> None:
            asked.append(url)
            raise UnreachableError("stop here")

        monkeypatch.setattr("coco_kp.http.HttpClient.request", request)
        source = RegistrySource(RegistryReference("docker.io", "library/nginx", "latest"), Access())
        with pytest.raises(UnreachableError):
            source.manifest()
        assert asked == ["https://registry-1.docker.io/v2/"]


class TestMounts:
    @pytest.fixture
    def other(self, host: str) -> RegistryReference:
        return RegistryReference(host, "team/other", "v1")

    def test_blob_mount_transfers_no_bytes(
        self, registry: Registry, source: RegistrySource, other: RegistryReference
    ) -> None:
        with RegistrySink(other, PLAIN) as sink:
            copy_blob(source, sink, BLOB)
        assert registry.blobs["team/other", str(BLOB.digest)] == DATA
        assert not registry.blobs_sent()
        assert not registry.requests("GET", "blobs")

    @pytest.mark.parametrize("how", ["not offered", "refused", "broken"])
    def test_blob_mount_that_fails_falls_back_to_copy(
        self,
        registry: Registry,
        source: RegistrySource,
        other: RegistryReference,
        session: Session,
        how: str,
    ) -> None:
        def fault(request: Request) -> Reply | BreakOff | None:
            if "mount" not in request.query:
                return None
            return error(403, "DENIED", "no mounts") if how == "refused" else BreakOff()

        registry.mounts = False
        registry.faults = [] if how == "not offered" else [fault]
        with RegistrySink(other, PLAIN, session) as sink:
            copy_blob(source, sink, BLOB)
        assert registry.blobs["team/other", str(BLOB.digest)] == DATA
        assert not registry.uploads, "the upload that came instead of the mount was left open"

    def test_blob_mount_that_is_not_done_deletes_nothing_on_another_host(
        self, registry: Registry, source: RegistrySource, other: RegistryReference
    ) -> None:
        elsewhere: list[Request] = []

        def take(request: Request) -> Reply:
            elsewhere.append(request)
            return Reply(204)

        with http_server(take) as base, RegistrySink(other, PLAIN) as sink:
            upload = Reply(202, {"Location": f"{base}/v2/theirs/manifests/v1"})
            registry.faults = [lambda r: upload if "mount" in r.query else None]
            assert not sink.mount_blob(BLOB, source)
        assert not elsewhere

    def test_blob_mount_is_not_tried_between_registries(
        self, registry: Registry, sink: RegistrySink
    ) -> None:
        del registry.blobs[REPOSITORY, str(BLOB.digest)]
        elsewhere = RegistrySource(RegistryReference("127.0.0.1:1", REPOSITORY, "v1"), PLAIN)
        assert not sink.mount_blob(BLOB, elsewhere)
        assert not registry.requests("POST")


class TestDestinations:
    def test_registry_sink_refuses_reference_without_tag(self, host: str) -> None:
        name = RegistryReference(host, REPOSITORY, None, BLOB.digest)
        with pytest.raises(InputError, match="cannot be written"):
            RegistrySink(name, PLAIN)

    def test_registry_sink_quotes_refusal_of_manifest(
        self, registry: Registry, sink: RegistrySink
    ) -> None:
        refusal = error(400, "MANIFEST_INVALID", "OCI is not supported")
        registry.faults = [
            lambda r: refusal if r.method == "PUT" and "manifests" in r.path else None
        ]
        with pytest.raises(
            RemoteError, match=r"does not take the manifest: .*OCI is not supported"
        ):
            store(sink, ONE)
        assert len(sink.left_behind()) == 2
        assert (REPOSITORY, "v1") not in registry.manifests

    def test_registry_sink_refuses_digest_other_than_that_of_its_manifest(
        self, registry: Registry, sink: RegistrySink
    ) -> None:
        other = Reply(201, {"Docker-Content-Digest": str(Digest.of(b"other"))})
        registry.faults = [lambda r: other if r.method == "PUT" and "manifests" in r.path else None]
        with pytest.raises(IntegrityError, match="the registry says"):
            store(sink, ONE)

    def test_registry_sink_leaves_nothing_behind_once_tag_is_set(self, sink: RegistrySink) -> None:
        store(sink, ONE)
        assert sink.left_behind() == ()
