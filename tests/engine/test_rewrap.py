"""``coco-kp rewrap``: other recipients, the same layers, and never an image that nobody opens."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coco_kp.crypto import Kek
from coco_kp.errors import InputError, IntegrityError
from coco_kp.image import rewrap
from coco_kp.image.progress import Progress
from coco_kp.image.rewrap import Changes, rewrap_image
from coco_kp.keys.wrapper import KekOpener, KekRecipient, sample_recipient
from coco_kp.model.layer_encryption import MAX_PACKETS
from coco_kp.model.manifest import MAX_MANIFEST
from coco_kp.model.resource_uri import parse_key_id
from tests.support.altered import altered, unscheme
from tests.support.command import KID, Command, files
from tests.support.documents import Document
from tests.support.image import PACKETS, Image
from tests.support.layout import entries
from tests.support.patience import PATIENCE
from tests.support.recipients import Careless

NEW = "kbs:///default/key/2"
OTHER = "kbs:///default/key/3"


def blobs_of_layers(image: Image) -> list[bytes]:
    return [layer.blob for layer in image.layers]


def manifest_of(image: Image) -> str:
    """Return the name of the manifest's file."""
    digest: str = entries(image.folder)[0]["digest"]
    return digest.removeprefix("sha256:")


def test_rewrap_replaces_old_key_with_new_key(
    encrypted: Image, key: Path, make_key: Callable[[str], Path], command: Command
) -> None:
    new, before = make_key("new"), blobs_of_layers(encrypted)
    old_manifest = manifest_of(encrypted)
    inodes = {path.name: path.stat().st_ino for path in encrypted.folder.rglob("sha256/*")}
    out = command(
        *("rewrap", encrypted.reference, "--keypath", key),
        *("--to-keyid", NEW, "--to-keypath", new),
    ).out
    assert out.splitlines()[-1].endswith(f": layers 4 rewrapped; can be opened by '{NEW}'")
    command("verify", encrypted.reference, "--keypath", new)
    assert command("verify", encrypted.reference, "--keypath", key, ok=False).code == 4
    assert blobs_of_layers(encrypted) == before
    assert {layer.packet["kid"] for layer in encrypted.layers} == {NEW}
    now = {path.name: path.stat().st_ino for path in encrypted.folder.rglob("sha256/*")}
    assert inodes.items() - now.items() == {(old_manifest, inodes[old_manifest])}, (
        "no blob was written again, and the manifest that the old key opens is gone"
    )


def test_rewrap_keeps_replaced_manifest_on_request_until_prune(
    encrypted: Image, key: Path, make_key: Callable[[str], Path], command: Command
) -> None:
    old = encrypted.folder / "blobs" / "sha256" / manifest_of(encrypted)
    command(
        *("rewrap", encrypted.reference, "--keypath", key, "--keep-replaced"),
        *("--to-keyid", NEW, "--to-keypath", make_key("new")),
    )
    assert old.exists()
    size = old.stat().st_size
    for more in (("--dry-run",), ()):
        pruned = command("prune", f"oci:{encrypted.folder}", "--format", "json", *more).json
        assert pruned == {
            "layout": f"oci:{encrypted.folder}",
            "removed": [f"sha256:{old.name}"],
            "bytes": size,
            "dry_run": bool(more),
        }
    assert not old.exists()
    out = command("prune", f"oci:{encrypted.folder}").out
    assert out == f"oci:{encrypted.folder}: removed 0 blobs, 0 B\n"
    assert command("prune", f"oci:{encrypted.folder}:x", ok=False).code == 2


def test_rewrap_adds_and_removes_recipients(
    encrypted: Image, key: Path, make_key: Callable[[str], Path], command: Command
) -> None:
    new = make_key("new")
    image = encrypted.reference
    command("rewrap", image, "--keypath", key, "--add", f"keyid={NEW},keypath={new}")
    for path in (key, new):
        command("verify", image, "--keypath", path)
    once_more = command("inspect", image).out
    command("rewrap", image, "--keypath", key, "--add", f"keyid={NEW},keypath={new}")
    assert command("inspect", image).out == once_more, "who is there is not added again"
    command("rewrap", image, "--keypath", new, "--remove", KID)
    command("verify", image, "--keypath", new)
    assert command("verify", image, "--keypath", key, ok=False).code == 4


def test_rewrap_into_another_place_leaves_old_image_unchanged(
    encrypted: Image, key: Path, make_key: Callable[[str], Path], tmp_path: Path, command: Command
) -> None:
    new, before = make_key("new"), files(encrypted.folder)
    target = Image(tmp_path / "target")
    command(
        *("rewrap", encrypted.reference, target.reference, "--keypath", key),
        *("--to-keyid", NEW, "--to-keypath", new),
    )
    assert files(encrypted.folder) == before
    assert blobs_of_layers(target) == blobs_of_layers(encrypted)
    command("verify", target.reference, "--keypath", new)


@pytest.mark.parametrize("form", ["oci", "oci-archive", "dir"])
def test_rewrap_in_place_fails_when_another_rewrap_was_faster(
    form: str,
    encrypted: Image,
    key: Path,
    make_key: Callable[[str], Path],
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a key would be back that the faster one removed."""
    image = f"{form}:{tmp_path}/image"
    copy = ("rewrap", encrypted.reference, image, "--keypath", key)
    command(*copy, "--add", f"keyid={NEW},keypath={make_key('new')}")
    real, removed = rewrap._changed, list[int]()

    def changed(*arguments: Any) -> Any:
        if not removed:
            removed.append(0)
            command("rewrap", image, "--keypath", key, "--remove", NEW)
        return real(*arguments)

    monkeypatch.setattr(rewrap, "_changed", changed)
    slower = ("rewrap", image, "--keypath", key, "--add", f"keyid={OTHER},keypath={key}")
    outcome = command(*slower, ok=False)
    assert outcome.code == 6
    assert "changed meanwhile" in outcome.err
    assert "run again" in outcome.err
    assert NEW not in command("inspect", image).out
    command(*slower)
    assert OTHER in command("inspect", image).out


def test_rewrap_repairs_kids_without_scheme(
    encrypted: Image, key: Path, tmp_path: Path, command: Command
) -> None:
    image = altered(encrypted, tmp_path / "altered", unscheme)
    keys = tmp_path / "keys.json"
    command("keys", "import", keys, "default/key/1", key)
    opening = ("--keys", keys)
    assert command("verify", image.reference, *opening, ok=False).code == 3
    command(*("rewrap", image.reference, "--keypath", key, "--to-keyid", KID, "--to-keypath", key))
    command("verify", image.reference, *opening, "--target", "coco")


def test_rewrap_names_recipients_of_other_tools_and_removes_them_on_request(
    encrypted: Image, key: Path, make_key: Callable[[str], Path], tmp_path: Path, command: Command
) -> None:
    def add(manifest: Document) -> None:
        for layer in manifest["layers"]:
            layer["annotations"][PACKETS.replace("provider.attestation-agent", "jwe")] = "e30="

    image = altered(encrypted, tmp_path / "jwe", add)
    new = make_key("new")
    to = ("--to-keyid", NEW, "--to-keypath", new, "--format", "json")
    outcome = command("rewrap", image.reference, "--keypath", key, *to)
    assert outcome.json["recipients"] == [NEW, "jwe"]
    remove = ("--remove", "jwe", "--format", "json")
    outcome = command("rewrap", image.reference, "--keypath", new, *remove)
    assert outcome.json["recipients"] == [NEW]
    assert not any(".jwe" in name for layer in image.layers for name in layer.annotations)


class TestRefused:
    """And the image is as it was."""

    @pytest.fixture(autouse=True)
    def unchanged(self, encrypted: Image) -> object:
        before = files(encrypted.folder)
        yield
        assert files(encrypted.folder) == before

    def test_rewrap_refuses_packets_that_hold_different_layer_keys(
        self, encrypted: Image, key: Path, tmp_path: Path, command: Command
    ) -> None:
        """Which of them is the layer's, rewrap cannot tell without reading the layer."""

        def change(manifest: Document) -> None:
            one, _, other, _ = (layer["annotations"] for layer in manifest["layers"])
            one[PACKETS] += f",{other[PACKETS]}"

        image = altered(encrypted, tmp_path / "altered", change)
        arguments = ("--keypath", key, "--to-keyid", NEW, "--to-keypath", key)
        assert command("rewrap", image.reference, *arguments, ok=False).code == 5

    def test_rewrap_refuses_recipient_that_wraps_another_key(
        self, encrypted: Image, key: Path
    ) -> None:
        careless = Careless(sample_recipient())
        opener = KekOpener(Kek(key.read_bytes()))
        for changes in (Changes(replace_by=(careless,)), Changes(add=(careless,))):
            with pytest.raises(IntegrityError, match="holds another key"):
                rewrap_image(encrypted.reference, [opener], changes)


def test_rewrap_does_not_read_layers(
    encrypted: Image, key: Path, make_key: Callable[[str], Path], command: Command
) -> None:
    new = make_key("new")
    before: dict[Path, bytes] = {}
    for layer in encrypted.manifest["layers"]:
        path = encrypted.folder / "blobs/sha256" / layer["digest"][7:]
        before.setdefault(path, path.read_bytes())
        path.write_bytes(bytes(layer["size"]))
    arguments = ("--keypath", key, "--to-keyid", NEW, "--to-keypath", new)
    command("rewrap", encrypted.reference, *arguments)
    for path, data in before.items():
        path.write_bytes(data)
    command("verify", encrypted.reference, "--keypath", new)


@pytest.mark.parametrize("how", [("--to-keyid", NEW, "--to-keypath"), ("--add",)])
def test_rewrap_writes_packets_under_the_provider_name_that_the_layer_has(
    how: tuple[str, ...],
    plain: Image,
    key: Path,
    make_key: Callable[[str], Path],
    tmp_path: Path,
    command: Command,
) -> None:
    """Guests look at the first provider by name alone: another name would lock somebody out."""
    image, new = Image(tmp_path / "other"), make_key("new")
    own = ("--keyid", KID, "--keypath", key)
    command("encrypt", plain.reference, image.reference, *own, "--provider-name", "other")
    last = f"keyid={NEW},keypath={new}" if how == ("--add",) else new
    command("rewrap", image.reference, "--keypath", key, *how, last)
    for layer in image.layers:
        names = [name for name in layer.annotations if ".enc.keys." in name]
        assert names == ["org.opencontainers.image.enc.keys.provider.other"]
    command("verify", image.reference, "--keypath", new, "--target", "coco")


def test_rewrap_dry_run_names_who_could_open_the_image_and_writes_nothing(
    encrypted: Image, key: Path, make_key: Callable[[str], Path], command: Command
) -> None:
    before = files(encrypted.folder)
    arguments = ("rewrap", encrypted.reference, "--dry-run", "--keypath", key)
    add = ("--add", f"keyid={NEW},keypath={make_key('new')}")
    found = command(*arguments, *add, "--format", "json").json
    assert (found["digest"], found["dry_run"], found["rewrapped"]) == (None, True, 4)
    assert found["recipients"] == [KID, NEW]
    assert (
        f"could be opened by '{KID}', '{NEW}'; nothing was written" in command(*arguments, *add).out
    )
    assert command(*arguments, "--remove", NEW, ok=False).code == 3
    assert files(encrypted.folder) == before


def additions(count: int) -> Changes:
    kids = [parse_key_id(f"kbs:///default/more/{number}") for number in range(count)]
    return Changes(add=tuple(KekRecipient(kid, Kek(bytes(32))) for kid in kids))


def test_rewrap_that_is_dry_refuses_more_recipients_than_anybody_reads(
    encrypted: Image, key: Path
) -> None:
    """It was said once the image was written, when it was read back."""
    more = additions(MAX_PACKETS)
    opener = KekOpener(Kek(key.read_bytes()))
    with pytest.raises(InputError, match="^layer 0 of .* would have more than 64 packets"):
        rewrap_image(encrypted.reference, [opener], more, dry_run=True)
    rewrap_image(encrypted.reference, [opener], replace(more, add=more.add[1:]), dry_run=True)


def test_rewrap_that_is_dry_refuses_manifest_that_would_be_too_large(
    encrypted: Image, key: Path, tmp_path: Path
) -> None:
    """It was said once the layers were copied."""

    def padded(manifest: Document) -> None:
        manifest["annotations"] = {"x": "x" * (MAX_MANIFEST - 10_000)}

    image = altered(encrypted, tmp_path / "padded", padded)
    more = additions(20)
    opener = KekOpener(Kek(key.read_bytes()))
    with pytest.raises(InputError, match="would have over 4194304 bytes"):
        rewrap_image(image.reference, [opener], more, dry_run=True)
    rewrap_image(image.reference, [opener], replace(more, add=more.add[:1]), dry_run=True)


def test_rewrap_of_many_layers_for_many_recipients_is_refused_in_little_memory(
    encrypted: Image, key: Path, tmp_path: Path
) -> None:
    """All packets were made before anybody knew that no manifest holds them."""

    def repeated(manifest: Document) -> None:
        manifest["layers"] = manifest["layers"][:1] * 1000

    image = altered(encrypted, tmp_path / "many", repeated)
    opener = KekOpener(Kek(key.read_bytes()))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="would have over 4194304 bytes"):
            rewrap_image(image.reference, [opener], additions(MAX_PACKETS - 1), dry_run=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 48 << 20


def test_rewrap_copies_as_many_layers_at_once_as_it_has_jobs(
    key: Path, encrypted: Image, tmp_path: Path
) -> None:
    kek, lock = Kek(key.read_bytes()), threading.Lock()
    changes = Changes(add=(KekRecipient(parse_key_id(NEW), Kek.generate()),))

    class Counting(Progress):
        now = most = 0

        def __init__(self, jobs: int) -> None:
            self.another = threading.Event()
            self.waits = PATIENCE if jobs > 1 else 0.02

        def begin(self, *_: object) -> None:
            with lock:
                self.now += 1
                self.most = max(self.most, self.now)
                if self.now > 1:
                    self.another.set()
            self.another.wait(self.waits)  # for one that begins beside it

        def end(self, *_: object) -> None:
            with lock:
                self.now -= 1

    at_once = []
    for jobs in (1, 4):
        counting, target = Counting(jobs), f"oci:{tmp_path}/{jobs}"
        rewrap_image(
            encrypted.reference,
            [KekOpener(kek)],
            changes,
            destination=target,
            jobs=jobs,
            progress=counting,
        )
        at_once.append(counting.most)
    assert at_once[0] == 1
    assert at_once[1] > 1


def test_rewrap_command_takes_jobs(
    key: Path, encrypted: Image, tmp_path: Path, command: Command, make_key: Callable[[str], Path]
) -> None:
    new = ("--to-keyid", NEW, "--to-keypath", make_key("new"))
    target = Image(tmp_path / "target")
    command("rewrap", encrypted.reference, target.reference, "--keypath", key, *new, "--jobs", "1")
    assert blobs_of_layers(target) == blobs_of_layers(encrypted)
