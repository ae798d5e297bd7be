"""A tag: it must be what was read, whatever a registry can tell; and where no answer comes."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from coco_kp.errors import CancelledError, ChangedError, DeniedError, IntegrityError, RemoteError
from coco_kp.model.digest import Digest
from coco_kp.model.reference import RegistryReference
from coco_kp.transport import Access
from coco_kp.transport.registry.session import Session
from coco_kp.transport.registry.sink import RegistrySink
from coco_kp.transport.registry.source import RegistrySource
from tests.sim.http_server import BreakOff, Reply, Request
from tests.sim.registry import Registry, error, serve, unauthorized
from tests.support.access import PLAIN, REPOSITORY
from tests.support.stored import check, image, store

OLD = image(b"old layer", b"shared layer")
NEW = image(b"new layer", b"shared layer")
OTHER = image(b"other layer")

ASTRAY = Reply(307, {"Location": "ftp://elsewhere.example/"})
"""Leads to where nobody may go."""

Fault = Callable[[Request], Reply | BreakOff | None]


def head(reply: Reply) -> Fault:
    """Answer so whenever only the headers of a tag are asked for."""
    return lambda request: (
        reply if request.method == "HEAD" and request.path.endswith("/manifests/v1") else None
    )


WITHOUT_DIGEST = [
    head(Reply(200)),
    head(Reply(200, {"Docker-Content-Digest": "sha512:" + "0" * 128})),
    head(error(405, "UNSUPPORTED", "not supported")),
    head(error(403, "DENIED", "no")),
    head(error(404, "MANIFEST_UNKNOWN", "unknown")),
]


def test_registry_source_asks_for_digest_with_head_alone(
    registry: Registry, sink: RegistrySink, source: RegistrySource
) -> None:
    store(sink, OLD)
    registry.seen.clear()
    assert source.digest() == OLD.top.digest
    assert [r.method for r in registry.seen if r.path != "/v2/"] == ["HEAD"]


@pytest.mark.parametrize("fault", WITHOUT_DIGEST)
def test_registry_source_reads_tag_where_head_tells_no_digest(
    registry: Registry, sink: RegistrySink, source: RegistrySource, fault: Fault
) -> None:
    store(sink, OLD)
    registry.faults = [fault]
    assert source.digest() == OLD.top.digest


@pytest.mark.parametrize("digest", ["sha256:", "sha256:" + "A" * 64, "sha256:../../etc/passwd"])
def test_registry_source_refuses_digest_that_is_none(
    registry: Registry, source: RegistrySource, digest: str
) -> None:
    registry.faults = [head(Reply(200, {"Docker-Content-Digest": digest}))]
    with pytest.raises(RemoteError, match="states an invalid digest"):
        source.digest()


def test_registry_source_says_which_tag_there_is_not(source: RegistrySource) -> None:
    with pytest.raises(DeniedError, match=rf"{source.reference}: GET .*404"):
        source.digest()


def test_registry_source_checks_image_whose_digest_is_its_name(
    registry: Registry, sink: RegistrySink, host: str
) -> None:
    store(sink, OLD)
    for digest, found in ((OLD.top.digest, True), (NEW.top.digest, False)):
        with RegistrySource(RegistryReference(host, REPOSITORY, None, digest), PLAIN) as named:
            if found:
                assert named.digest() == digest
            else:
                with pytest.raises(DeniedError):
                    named.digest()
    assert len(registry.requests("HEAD", "manifests")) == 0


@pytest.mark.parametrize("fault", WITHOUT_DIGEST)
def test_registry_sink_reads_tag_again_where_head_tells_no_digest(
    registry: Registry, sink: RegistrySink, source: RegistrySource, fault: Fault
) -> None:
    store(sink, OLD)
    store(sink, NEW, named=False)
    registry.faults = [fault]
    sink.set_reference(NEW.top, replacing=OLD.top.digest)
    registry.faults = []
    check(source, NEW)


@pytest.mark.parametrize("fault", WITHOUT_DIGEST)
def test_registry_sink_refuses_changed_image_where_head_tells_no_digest(
    registry: Registry, sink: RegistrySink, source: RegistrySource, fault: Fault
) -> None:
    store(sink, OTHER)
    store(sink, NEW, named=False)
    registry.faults = [fault]
    with pytest.raises(ChangedError):
        sink.set_reference(NEW.top, replacing=OLD.top.digest)
    registry.faults = []
    check(source, OTHER)


def test_registry_sink_writes_nothing_where_tag_cannot_be_read_again(
    registry: Registry, sink: RegistrySink
) -> None:
    store(sink, OLD)
    store(sink, NEW, named=False)
    registry.faults = [lambda r: error(403, "DENIED", "no") if r.method != "PUT" else None]
    with pytest.raises(RemoteError, match="cannot be read again"):
        sink.set_reference(NEW.top, replacing=OLD.top.digest)
    assert registry.manifests[REPOSITORY, "v1"][1] == OLD.top.raw


def test_registry_sink_tells_who_wrote_just_before_another_did(
    image_name: RegistryReference, source: RegistrySource
) -> None:
    """Both found the tag as they had read it; a key that was removed would be back unnoticed."""

    def write_other(_seconds: float) -> None:
        with RegistrySink(image_name, PLAIN) as other:
            store(other, OTHER)

    with (
        Session(sleep=write_other) as session,
        RegistrySink(image_name, PLAIN, session) as sink,
    ):
        store(sink, OLD)
        store(sink, NEW, named=False)
        with pytest.raises(RemoteError, match="another image took the place of this one"):
            sink.set_reference(NEW.top, replacing=OLD.top.digest)
    check(source, OTHER)


def test_registry_sink_warns_where_its_image_cannot_be_looked_at_again(
    registry: Registry, image_name: RegistryReference, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_seconds: float) -> None:
        registry.faults = [lambda _: error(403, "DENIED", "no")]

    with Session(sleep=fail) as session, RegistrySink(image_name, PLAIN, session) as sink:
        store(sink, OLD)
        store(sink, NEW, named=False)
        sink.set_reference(NEW.top, replacing=OLD.top.digest)
    assert f"{sink.reference} is in place, but may have changed since" in caplog.text


def test_registry_sink_waits_for_nobody_where_the_image_is_new(
    sink: RegistrySink, pauses: list[float]
) -> None:
    store(sink, OLD)
    assert not pauses


# No answer.


def moves(request: Request) -> bool:
    return request.method == "PUT" and request.path.endswith("/manifests/v1")


def looks(request: Request) -> bool:
    return request.method != "PUT" and request.path.endswith("/manifests/v1")


def done(registry: Registry, answer: Reply | BreakOff) -> Fault:
    """Do what moves the tag, and answer so, or not at all."""

    def fault(request: Request) -> Reply | BreakOff | None:
        if not moves(request):
            return None
        registry.route(request)
        return answer

    return fault


def sent(registry: Registry) -> int:
    """Count the requests that moved the tag, or tried to."""
    return len(registry.requests("PUT", "/manifests/v1"))


NO_ANSWER = [BreakOff(), Reply(502), Reply(504)]


@pytest.mark.parametrize("answer", NO_ANSWER)
@pytest.mark.parametrize("replacing", [None, OLD.top.digest])
def test_registry_sink_succeeds_where_only_the_answer_was_lost(
    registry: Registry, sink: RegistrySink, answer: Reply | BreakOff, replacing: Digest | None
) -> None:
    """It was said that the image is as it was, and the registry had the new one."""
    store(sink, OLD)
    before = sent(registry)
    store(sink, NEW, named=False)
    registry.faults = [done(registry, answer)]
    sink.set_reference(NEW.top, replacing=replacing)
    assert sent(registry) == before + 1, "what was done is not asked for again"
    assert sink.left_behind() == ()


@pytest.mark.parametrize("answer", NO_ANSWER)
def test_registry_sink_sends_manifest_again_that_did_not_arrive(
    registry: Registry, sink: RegistrySink, source: RegistrySource, answer: Reply | BreakOff
) -> None:
    answers = [answer, answer]
    registry.faults = [lambda r: answers.pop() if moves(r) and answers else None]
    store(sink, NEW)
    check(source, NEW)


@pytest.mark.parametrize("answer", NO_ANSWER)
def test_registry_sink_tells_that_the_image_is_as_it_was_where_it_can_be_seen(
    registry: Registry, sink: RegistrySink, answer: Reply | BreakOff
) -> None:
    registry.faults = [lambda r: answer if moves(r) else None]
    with pytest.raises(RemoteError) as caught:
        store(sink, NEW)
    assert "may be in place" not in caught.value.message
    assert sent(registry) == PLAIN.retries + 1
    assert sink.left_behind() != ()


@pytest.mark.parametrize("answer", NO_ANSWER)
@pytest.mark.parametrize("look", [BreakOff(), Reply(503), error(403, "DENIED", "no"), ASTRAY])
def test_registry_sink_says_that_the_image_may_be_in_place_where_nobody_can_tell(
    registry: Registry, sink: RegistrySink, answer: Reply | BreakOff, look: Reply | BreakOff
) -> None:
    registry.faults = [done(registry, answer), lambda r: look if looks(r) else None]
    with pytest.raises(RemoteError, match="v1 may be in place: the registry did not say") as caught:
        store(sink, NEW)
    assert caught.value.exit_code == 6
    assert sink.left_behind() == (), "nobody knows whether the tag points to them"


def test_registry_sink_says_that_the_image_may_be_in_place_where_no_token_may_be_asked_for(
    registry: Registry, tmp_path: Path
) -> None:
    """Such an error is none of the registry: it would have the new key removed."""
    ca, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca.cert_pem.write_to_path(tmp_path / "ca.crt")
    plain = unauthorized('Bearer realm="http://tokens.example/"')
    with (
        serve(registry, tls=context) as host,
        RegistrySink(RegistryReference(host, REPOSITORY, "v1"), Access(cert_dir=tmp_path)) as sink,
    ):
        store(sink, NEW, named=False)
        registry.faults = [done(registry, plain)]
        with pytest.raises(RemoteError, match="v1 may be in place: .* is plain http"):
            sink.set_reference(NEW.top)
        assert sink.left_behind() == ()
    assert registry.manifests[REPOSITORY, "v1"][1] == NEW.top.raw


@pytest.mark.parametrize("look", [BreakOff(), ASTRAY])
def test_registry_sink_is_done_where_nobody_can_look_again(
    registry: Registry, sink: RegistrySink, look: Reply | BreakOff
) -> None:
    """The image is in place: an error would have its new key removed as one of no image."""
    store(sink, OLD)
    store(sink, NEW, named=False)
    moved = sent(registry)
    registry.faults = [lambda r: look if looks(r) and sent(registry) > moved else None]
    sink.set_reference(NEW.top, replacing=OLD.top.digest)
    assert registry.manifests[REPOSITORY, "v1"][1] == NEW.top.raw


def test_registry_sink_is_done_where_the_last_pause_is_cut_short(
    registry: Registry, image_name: RegistryReference
) -> None:
    def ended(_seconds: float) -> None:
        raise CancelledError("the call was cancelled")

    with Session(sleep=ended) as session, RegistrySink(image_name, PLAIN, session) as sink:
        store(sink, OLD)
        store(sink, NEW, named=False)
        sink.set_reference(NEW.top, replacing=OLD.top.digest)
    assert registry.manifests[REPOSITORY, "v1"][1] == NEW.top.raw


def test_registry_sink_goes_on_where_it_may_not_read_what_it_wrote(
    registry: Registry, sink: RegistrySink
) -> None:
    lost = [BreakOff()]
    denied = error(403, "DENIED", "no")
    registry.faults = [
        lambda r: lost.pop() if moves(r) and lost else None,
        lambda r: denied if looks(r) else None,
    ]
    store(sink, NEW)
    assert registry.manifests[REPOSITORY, "v1"][1] == NEW.top.raw
    assert not lost


def test_registry_sink_is_not_sure_where_a_repeat_is_refused(
    registry: Registry, sink: RegistrySink
) -> None:
    """As by registries that let no tag be moved: the first request had made it."""
    denied = error(403, "DENIED", "no")

    def fault(request: Request) -> Reply | BreakOff | None:
        if not moves(request):
            return denied if looks(request) else None
        if sent(registry) > 1:
            return denied
        registry.route(request)
        return BreakOff()

    registry.faults = [fault]
    with pytest.raises(RemoteError, match="v1 may be in place"):
        store(sink, NEW)
    assert sink.left_behind() == ()


def test_registry_sink_does_not_repeat_over_what_others_changed_meanwhile(
    registry: Registry, image_name: RegistryReference, source: RegistrySource
) -> None:
    def write_other(_seconds: float) -> None:
        if registry.faults:
            registry.faults = []
            with RegistrySink(image_name, PLAIN) as other:
                store(other, OTHER)

    with (
        Session(sleep=write_other) as session,
        RegistrySink(image_name, PLAIN, session) as sink,
    ):
        store(sink, OLD)
        store(sink, NEW, named=False)
        registry.faults = [lambda r: BreakOff() if moves(r) else None]
        with pytest.raises(RemoteError, match="another image took the place of this one"):
            sink.set_reference(NEW.top, replacing=OLD.top.digest)
        assert sink.left_behind() == ()
    check(source, OTHER)


def test_registry_sink_repeats_nothing_blindly_over_an_image_that_it_changes(
    registry: Registry, sink: RegistrySink
) -> None:
    store(sink, OLD)
    before = sent(registry)
    store(sink, NEW, named=False)
    denied = error(403, "DENIED", "no")
    registry.faults = [
        lambda r: BreakOff() if moves(r) else None,
        lambda r: denied if looks(r) and sent(registry) > before else None,
    ]
    with pytest.raises(RemoteError, match="may be in place"):
        sink.set_reference(NEW.top, replacing=OLD.top.digest)
    assert sent(registry) == before + 1


def test_registry_sink_says_that_the_image_may_be_in_place_where_its_digest_is_another(
    registry: Registry, sink: RegistrySink
) -> None:
    other = Reply(201, {"Docker-Content-Digest": str(OTHER.top.digest)})
    registry.faults = [lambda r: other if moves(r) else None]
    with pytest.raises(IntegrityError, match="v1 may be in place: .*the registry says"):
        store(sink, NEW)
    assert sink.left_behind() == ()
