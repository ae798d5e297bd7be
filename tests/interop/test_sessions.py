"""Many images of one session before real registries: listed, looked at, with few connections."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from coco_kp.errors import DeniedError, RemoteError
from coco_kp.model.reference import RegistryReference
from coco_kp.transport import list_repositories, list_tags, open_sink, open_source
from coco_kp.transport.registry import listing
from coco_kp.transport.registry.session import Session
from tests.peers.registry import REGISTRIES
from tests.support.access import PLAIN
from tests.support.stored import image, store

pytestmark = pytest.mark.peer

WORKERS = 4
IMAGES = {f"team/app{r}": [f"v{t}" for t in range(6)] for r in range(5)}
ONE = image(b"layer one", b"layer two")


@pytest.fixture(params=REGISTRIES)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "registry"
    folder.mkdir()
    with REGISTRIES[request.param](folder) as host:
        with Session() as session:
            for image_name in names(host):
                with open_sink(image_name, PLAIN, session) as sink:
                    store(sink, ONE)
        yield host


def names(host: str) -> list[RegistryReference]:
    return [RegistryReference(host, name, tag) for name, tags in IMAGES.items() for tag in tags]


def connections(host: str) -> set[tuple[str, ...]]:
    """Name the connections that there are and, for a minute, were to a place on loopback."""
    port = f"{int(host.rpartition(':')[2]):04X}"
    found = re.findall(r": 0100007F:(\w+) 0100007F:(\w+) ", Path("/proc/net/tcp").read_text())
    return {tuple(sorted(ends)) for ends in found if port in ends}


@pytest.mark.parametrize("page", [1000, 2])
def test_real_registry_lists_repositories_and_tags(
    address: str, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_PAGE", page)
    with Session() as session:
        try:
            repositories = sorted(list_repositories(address, PLAIN, session))
        except RemoteError as error:
            # go-containerregistry's registry gives some of its repositories, and no way to others.
            assert page == 2
            assert "is cut off" in error.message  # noqa: PT017
        else:
            assert repositories == list(IMAGES)
        for name, tags in IMAGES.items():
            place = RegistryReference(address, name, "latest")
            assert sorted(list_tags(place, PLAIN, session)) == tags
        with pytest.raises(DeniedError, match="NAME_UNKNOWN"):
            list(list_tags(RegistryReference(address, "team/none", "v1"), PLAIN, session))


def test_real_registry_says_digests_of_many_images_over_few_connections(address: str) -> None:
    before = connections(address)

    def look(image_name: RegistryReference) -> None:
        with open_source(image_name, PLAIN, session) as source:
            assert source.digest() == ONE.top.digest
            assert source.manifest().digest == ONE.top.digest

    with Session() as session, ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(look, names(address)))
        opened = connections(address) - before
    assert 0 < len(opened) <= WORKERS + 1, "one to see that there is no TLS"


def test_real_registry_gets_no_blob_again_that_another_repository_has(address: str) -> None:
    copy = RegistryReference(address, "team/copy", "v1")
    with (
        Session() as session,
        open_source(names(address)[0], PLAIN, session) as source,
        open_sink(copy, PLAIN, session) as sink,
    ):
        mounted = [sink.mount_blob(blob, source) for blob in ONE.blobs]
        # go-containerregistry's registry keeps blobs of all repositories together, and mounts none.
        assert all(ok or sink.has_blob(blob) for ok, blob in zip(mounted, ONE.blobs, strict=True))
