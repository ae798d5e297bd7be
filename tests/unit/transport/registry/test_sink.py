"""An image that is changed in place: it must be what was read, whatever a registry can tell."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coco_kp.errors import ChangedError, RemoteError
from coco_kp.model.reference import RegistryReference
from coco_kp.transport.registry import RegistrySink, RegistrySource
from tests.sim.http_server import Reply, Request
from tests.sim.registry import Registry, error
from tests.support.access import PLAIN, REPOSITORY
from tests.support.stored import check, image, store

OLD = image(b"old layer", b"shared layer")
NEW = image(b"new layer", b"shared layer")
OTHER = image(b"other layer")

Fault = Callable[[Request], Reply | None]


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

    with RegistrySink(image_name, PLAIN, sleep=write_other) as sink:
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

    with RegistrySink(image_name, PLAIN, sleep=fail) as sink:
        store(sink, OLD)
        store(sink, NEW, named=False)
        sink.set_reference(NEW.top, replacing=OLD.top.digest)
    assert f"{sink.reference} is in place, but may have changed since" in caplog.text


def test_registry_sink_waits_for_nobody_where_the_image_is_new(
    sink: RegistrySink, pauses: list[float]
) -> None:
    store(sink, OLD)
    assert not pauses
