"""The engine before a registry in this process, which fails as it is told."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from coco_kp.crypto import Kek
from coco_kp.image.encrypt import encrypt_image
from coco_kp.image.progress import Progress
from coco_kp.keys.wrapper import KekRecipient
from coco_kp.model.resource_uri import parse_key_id
from tests.sim.http_server import Reply, Request
from tests.sim.registry import Registry, error
from tests.support.access import PLAIN
from tests.support.command import KID, Command
from tests.support.documents import TAR, Layer
from tests.support.image import Image, tar, write_image

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PLAIN_HTTP = ("--src-tls-verify=false", "--dest-tls-verify=false")


@pytest.fixture
def pushed(host: str, plain: Image, key: Path, registry: Registry, command: Command) -> str:
    """An encrypted image in the registry, as it was pushed before."""
    target = f"docker://{host}/team/app:1"
    arguments = ("--keyid", KID, "--keypath", key)
    command("encrypt", plain.reference, target, *PLAIN_HTTP, *arguments)
    command("verify", target, "--tls-verify=false", "--keypath", key)
    registry.seen.clear()
    return target


def test_encrypt_into_registry_pushes_tag_last(
    pushed: str, plain: Image, key: Path, registry: Registry, command: Command
) -> None:
    arguments = ("--keyid", KID, "--keypath", key)
    command("encrypt", plain.reference, pushed, *PLAIN_HTTP, *arguments)
    assert [r.path for r in registry.seen if r.method == "PUT"][-1] == "/v2/team/app/manifests/1"
    assert registry.seen[-1].path == "/v2/team/app/manifests/1"


def test_progress_of_encrypt_says_uploading_for_registries_alone(
    host: str, plain: Image, key: Path, tmp_path: Path
) -> None:
    recipient = KekRecipient(parse_key_id(KID), Kek(key.read_bytes()))
    for place, told in ((f"docker://{host}/team/app:1", "uploading"), (f"oci:{tmp_path}/e", "")):
        progress = Expecting()
        encrypt_image(
            plain.reference, place, [recipient], destination_access=PLAIN, progress=progress
        )
        assert progress.expected == [("encrypting", told)]


class Expecting(Progress):
    """Keeps what is done, and what goes on after it."""

    def __init__(self) -> None:
        self.expected: list[tuple[str, str]] = []

    def expect(self, size: int, verb: str, names: Mapping[str, str], then: str = "") -> None:  # noqa: ARG002
        self.expected.append((verb, then))


@pytest.mark.parametrize(
    "refuses",
    [
        lambda r: r.method == "PUT" and "/manifests/" in r.path,
        lambda r: r.method == "PUT" and r.path.endswith("/manifests/1"),
        lambda r: r.method == "POST",
    ],
    ids=["manifest", "tag", "blob"],
)
def test_encrypt_refused_by_registry_leaves_old_image_and_names_leftovers(
    pushed: str,
    plain: Image,
    key: Path,
    registry: Registry,
    command: Command,
    refuses: Callable[[Request], bool],
) -> None:
    before = registry.manifests["team/app", "1"]
    there = set(registry.blobs)
    registry.faults.append(lambda r: error(403, "DENIED", "no more") if refuses(r) else None)
    arguments = ("--keyid", KID, "--keypath", key)
    outcome = command("encrypt", plain.reference, pushed, *PLAIN_HTTP, *arguments, ok=False)
    assert outcome.code == 8
    assert "no more" in outcome.err
    for _, digest in set(registry.blobs) - there:
        assert digest in outcome.err
    registry.faults.clear()
    assert registry.manifests["team/app", "1"] == before
    command("verify", pushed, "--tls-verify=false", "--keypath", key)


def test_encrypt_refuses_registry_that_returns_another_manifest(
    pushed: str, plain: Image, key: Path, registry: Registry, command: Command
) -> None:
    before = registry.manifests["team/app", "1"]

    def other(request: Request) -> Reply | None:
        if request.method == "GET" and "/manifests/sha256:" in request.path:
            media_type, body = before
            return Reply(200, {"Content-Type": media_type}, body)
        return None

    registry.faults.append(other)
    arguments = ("--keyid", KID, "--keypath", key)
    outcome = command("encrypt", plain.reference, pushed, *PLAIN_HTTP, *arguments, ok=False)
    assert outcome.code == 5
    assert registry.manifests["team/app", "1"] == before


@pytest.mark.parametrize("operation", ["encrypt", "decrypt", "rewrap"])
def test_command_sets_no_tag_in_registry_that_loses_blobs(
    pushed: str,
    host: str,
    plain: Image,
    key: Path,
    registry: Registry,
    command: Command,
    operation: str,
) -> None:
    target = f"docker://{host}/other/app:1"
    registry.mounts = False
    registry.faults.append(
        lambda r: error(404, "BLOB_UNKNOWN", "gone") if r.method == "HEAD" else None
    )
    arguments = {
        "encrypt": (plain.reference, target, "--keyid", KID, "--keypath", key),
        "decrypt": (pushed, target, "--keypath", key),
        "rewrap": (pushed, target, "--keypath", key, "--to-keyid", KID, "--to-keypath", key),
    }[operation]
    outcome = command(operation, *arguments, *PLAIN_HTTP, ok=False)
    assert outcome.code == 5
    assert "lacks the blob" in outcome.err
    assert ("other/app", "1") not in registry.manifests


def test_rewrap_within_registry_transfers_no_layer(
    pushed: str, host: str, key: Path, registry: Registry, command: Command
) -> None:
    target = f"docker://{host}/other/app:1"
    command(
        *("rewrap", pushed, target, *PLAIN_HTTP, "--keypath", key),
        *("--to-keyid", "/default/key/2", "--to-keypath", key),
    )
    assert not registry.blobs_sent()
    assert not registry.requests("GET", "/blobs/sha256")
    assert len(registry.requests("POST", "/other/app/blobs/uploads/")) == 4, "mounted"
    command("verify", target, "--tls-verify=false", "--keypath", key)


def test_encrypt_reuse_in_registry_uploads_only_what_changed(
    pushed: str, plain: Image, key: Path, registry: Registry, command: Command
) -> None:
    arguments = ("--keyid", KID, "--keypath", key, "--reuse", pushed)
    command("encrypt", plain.reference, pushed, *PLAIN_HTTP, *arguments)
    assert not registry.blobs_sent()
    downloaded = [r.path.rpartition("/")[2] for r in registry.requests("GET", "/blobs/")]
    assert sorted(downloaded) == sorted(set(downloaded)), "each layer is read once, to check it"


KEPT = 1_500_000
"""Bytes of a broken upload that the registry keeps: the middle of the second chunk."""


@pytest.fixture
def large(tmp_path: Path) -> Image:
    """An image with one uncompressed layer, which is several chunks long."""
    archive = tar({"data": os.urandom(3 * 1024 * 1024 + 12_345)})
    return write_image(tmp_path / "large", [Layer(archive)])


@pytest.fixture(params=["1", "2"])
def jobs(request: pytest.FixtureRequest) -> str:
    """How many threads work on a layer: the second makes what is sent ahead."""
    return str(request.param)


def break_upload_of_layer(registry: Registry, image: Image) -> None:
    """Have the first upload break that is not the config's, which is there already."""
    config = image.manifest["config"]["digest"]
    for repository in ("team/app", "other/app"):
        registry.blobs[repository, config] = image.config
    registry.breaks = [("PATCH", KEPT)]


def change_source_after_break(registry: Registry, image: Image, at: int) -> None:
    """Have the upload break, and change a byte of the layer at its source before it goes on."""
    (descriptor,) = image.manifest["layers"]
    path = image.folder / "blobs" / descriptor["digest"].replace(":", "/")

    def change(request: Request) -> None:
        if request.method == "GET" and "/uploads/" in request.path:
            data = bytearray(path.read_bytes())
            data[at] ^= 1
            path.write_bytes(data)

    break_upload_of_layer(registry, image)
    registry.faults = [change]


def parts_of_layer(registry: Registry) -> list[bytes]:
    """What came of the large layer: the bodies of its upload's requests."""
    patches = registry.requests("PATCH")
    name = next(request.path for request in patches if len(request.body) >= KEPT)
    return [request.body for request in patches if request.path == name]


def test_encrypt_goes_on_after_break_and_makes_the_missing_part_again(
    host: str,
    large: Image,
    key: Path,
    registry: Registry,
    command: Command,
    jobs: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It needs no temporary file for that."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "there-is-none"))
    target = f"docker://{host}/team/app:1"
    break_upload_of_layer(registry, large)
    arguments = ("--keyid", KID, "--keypath", key, "--jobs", jobs)
    command("encrypt", large.reference, target, *PLAIN_HTTP, *arguments)
    first, second = parts_of_layer(registry)
    assert len(first) + len(second) == len(large.layers[0].blob), "it did not go on"
    back = Image(tmp_path / "back")
    command(
        "decrypt",
        target,
        back.reference,
        "--src-tls-verify=false",
        "--keypath",
        key,
        "--jobs",
        jobs,
    )
    assert back.layers[0].blob == large.layers[0].blob


def test_decrypt_goes_on_after_break_and_makes_the_missing_part_again(
    host: str,
    large: Image,
    key: Path,
    registry: Registry,
    command: Command,
    jobs: str,
    tmp_path: Path,
) -> None:
    encrypted, target = Image(tmp_path / "encrypted"), f"docker://{host}/team/app:1"
    command(
        "encrypt",
        large.reference,
        encrypted.reference,
        "--keyid",
        KID,
        "--keypath",
        key,
        "--jobs",
        jobs,
    )
    break_upload_of_layer(registry, large)
    command(
        "decrypt",
        encrypted.reference,
        target,
        "--dest-tls-verify=false",
        "--keypath",
        key,
        "--jobs",
        jobs,
    )
    digest = large.manifest["layers"][0]["digest"]
    assert registry.blobs["team/app", digest] == large.layers[0].blob


def test_encrypt_from_registry_asks_for_the_missing_part_again(
    pushed: str, host: str, large: Image, key: Path, registry: Registry, command: Command, jobs: str
) -> None:
    plain, target = f"docker://{host}/team/plain:1", f"docker://{host}/other/app:1"
    arguments = ("--keyid", KID, "--keypath", key, "--jobs", jobs)
    command("encrypt", large.reference, pushed, *PLAIN_HTTP, *arguments)
    command("decrypt", pushed, plain, *PLAIN_HTTP, "--keypath", key, "--jobs", jobs)
    registry.seen.clear()
    break_upload_of_layer(registry, large)
    command("encrypt", plain, target, *PLAIN_HTTP, *arguments)
    digest = large.manifest["layers"][0]["digest"]
    reads = registry.requests("GET", f"/team/plain/blobs/{digest}")
    assert f"bytes={1024 * 1024}-" in [read.headers.get("Range") for read in reads]
    command("verify", target, "--tls-verify=false", "--keypath", key)


def test_encrypt_of_zstd_layer_goes_on_after_break(
    host: str, key: Path, registry: Registry, command: Command, jobs: str, tmp_path: Path
) -> None:
    archive = tar({"data": os.urandom(3 * 1024 * 1024)})
    layer = Layer(zstd.compress(archive), f"{TAR}+zstd", archive)
    image = write_image(tmp_path / "zstd", [layer])
    target = f"docker://{host}/team/app:1"
    break_upload_of_layer(registry, image)
    own = ("--keyid", KID, "--keypath", key, "--jobs", jobs)
    command("encrypt", image.reference, target, *PLAIN_HTTP, *own)
    command("verify", target, "--tls-verify=false", "--keypath", key)
    assert len(parts_of_layer(registry)) == 2


@pytest.mark.parametrize("at", [1024 * 1024, KEPT - 1, KEPT, KEPT + 10])
def test_encrypt_sends_nothing_of_a_source_that_gives_other_bytes_the_second_time(
    host: str, large: Image, key: Path, registry: Registry, command: Command, jobs: str, at: int
) -> None:
    """The same key stream over two plaintexts would give both away."""
    change_source_after_break(registry, large, at)
    outcome = command(
        *("encrypt", large.reference, f"docker://{host}/team/app:1", *PLAIN_HTTP),
        *("--keyid", KID, "--keypath", key, "--jobs", jobs),
        ok=False,
    )
    assert outcome.code == 5
    assert "gave other bytes when it was read again" in outcome.err
    assert not any(parts_of_layer(registry)[1:])
    assert not registry.manifests


def test_encrypt_refuses_source_that_changes_beyond_what_was_read(
    host: str, large: Image, key: Path, registry: Registry, command: Command, jobs: str
) -> None:
    change_source_after_break(registry, large, -1)
    outcome = command(
        *("encrypt", large.reference, f"docker://{host}/team/app:1", *PLAIN_HTTP),
        *("--keyid", KID, "--keypath", key, "--jobs", jobs),
        ok=False,
    )
    assert outcome.code == 5
    assert not registry.manifests
