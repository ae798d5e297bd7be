"""Which key wraps, who keeps it, and that nothing is written before all else is known to work."""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coco_kp.crypto import SAMPLE_KEK, Kek
from coco_kp.errors import InputError, KekError, RefusedError, RemoteError, UnreachableError
from coco_kp.kbs.admin import Admin
from coco_kp.kbs.record import Record
from coco_kp.keys.file_reference import FileReference
from coco_kp.keys.reference import AwsKmsReference, ExecReference, Pkcs11Reference, TransitReference
from coco_kp.keys.register import Registrar
from coco_kp.keys.resolve import (
    FetchedKek,
    GivenKek,
    KeySettings,
    KeySource,
    NewKek,
    SampleKek,
    StayingKey,
    UnkeptKeyError,
    opener,
    resolve,
)
from coco_kp.keys.wrapper import KekOpener, KekRecipient, PacketForm
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.layer_options import PrivateOptions
from coco_kp.model.resource_uri import ResourceUri, parse_key_id
from tests.sim.http_server import Reply, Request
from tests.support.refusing import refuse

if TYPE_CHECKING:
    from tests.sim.kbs import SimulatedKbs

KID = parse_key_id("kbs:///default/key/1")
PATH = "default/key/1"
POST = f"POST resource/{PATH}"
OPTIONS = PrivateOptions(bytes(32), bytes(16), f"sha256:{'0' * 64}")


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "registered")


@pytest.fixture
def registrar(admin: Admin, record: Record) -> Registrar:
    return Registrar(admin, record)


@pytest.fixture
def key_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "keys"
    directory.mkdir()
    return directory


def prepared(source: KeySource, kid: ResourceUri | None, settings: KeySettings) -> KekRecipient:
    recipient = resolve(source, kid, settings).prepare()
    assert isinstance(recipient, KekRecipient)
    return recipient


def made(registrar: Registrar, kid: ResourceUri | None, key_dir: Path | None) -> KekRecipient:
    recipient = prepared(NewKek(), kid, KeySettings(registrar=registrar, key_dir=key_dir))
    recipient.publish()
    return recipient


# Keys that are made


def test_new_key_under_a_users_key_id_that_only_the_kbs_would_keep_is_refused(
    registrar: Registrar,
) -> None:
    """Two CI runners would each make one, and the second replaces the first in the KBS."""
    with pytest.raises(UnkeptKeyError, match="kept by the KBS alone"):
        resolve(NewKek(), KID, KeySettings(registrar=registrar))


def test_new_key_that_nobody_would_keep_is_refused() -> None:
    for kid in (KID, None):
        with pytest.raises(UnkeptKeyError, match="must be kept somewhere"):
            resolve(NewKek(), kid, KeySettings())


def test_new_key_has_a_key_id_that_nobody_else_has(
    sim: SimulatedKbs, registrar: Registrar, key_dir: Path
) -> None:
    """With its scheme, which upstream leaves out (docs/protocols.md 6.3, 6)."""
    kids = set()
    for directory in (None, key_dir):
        key = made(registrar, None, directory)
        kids.add(key.kid)
        assert re.fullmatch(r"kbs:///default/image-kek/[0-9a-f-]{36}", key.name)
        assert sim.resources[key.kid.path] == key.kek.raw()
    assert len(kids) == 2
    assert (key_dir / key.kid.path).read_bytes() == key.kek.raw()


def test_new_key_is_written_and_registered_only_when_published(
    sim: SimulatedKbs, registrar: Registrar, record: Record, tmp_path: Path
) -> None:
    file = tmp_path / "kek"
    settings = KeySettings(registrar=registrar)
    key = prepared(NewKek((FileReference(str(file)),)), KID, settings)
    assert key.open(key.wrap(OPTIONS.to_json())) == OPTIONS
    assert not file.exists()
    assert not sim.requests
    assert not record.folder.exists()
    assert not key.kept

    key.publish()
    key.publish()
    assert file.read_bytes() == sim.resources[PATH] == key.kek.raw()
    assert file.stat().st_mode & 0o777 == 0o600
    assert sim.calls(POST) == 1
    assert key.kept == (f"'{file}'",)


def test_new_key_file_is_removed_when_its_registration_is_refused(
    registrar: Registrar, record: Record, tmp_path: Path
) -> None:
    """Else the same command would fail the next time, because the file exists."""
    file = tmp_path / "kek"
    key = prepared(NewKek((FileReference(str(file)),)), KID, KeySettings(registrar=registrar))
    Registrar(registrar._admin, record).register(KID, Kek.generate())  # somebody was faster
    with pytest.raises(RefusedError, match=r"another key.*kek' was removed again"):
        key.publish()
    assert not file.exists()


@pytest.mark.parametrize("fault", [Reply(500), Reply(200, truncate=0, body=b"x")])
def test_new_key_file_is_kept_when_the_kbs_may_have_it(
    sim: SimulatedKbs, registrar: Registrar, tmp_path: Path, fault: Reply
) -> None:
    file = tmp_path / "kek"
    sim.faults[POST] = lambda _: fault
    key = prepared(NewKek((FileReference(str(file)),)), KID, KeySettings(registrar=registrar))
    with pytest.raises(RemoteError, match="the new key is kept in"):
        key.publish()
    assert file.read_bytes() == key.kek.raw()


@pytest.mark.parametrize("variant", ["AdminAuthAccess", "PluginNotFound"])
def test_new_key_file_is_removed_when_the_kbs_did_not_look_at_the_key(
    sim: SimulatedKbs, registrar: Registrar, tmp_path: Path, variant: str
) -> None:
    """With another token, the same command would fail because the file exists."""
    file = tmp_path / "kek"
    body = json.dumps({"type": f"https://example/{variant}", "detail": ""}).encode()
    sim.faults[POST] = lambda _: Reply(401, {}, body)
    key = prepared(NewKek((FileReference(str(file)),)), KID, KeySettings(registrar=registrar))
    with pytest.raises(RemoteError, match=rf"{variant}.*was removed again"):
        key.publish()
    assert not file.exists()


def test_new_key_file_is_kept_when_only_the_record_cannot_be_written(
    sim: SimulatedKbs, registrar: Registrar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The KBS has the key, and the disk is full."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = tmp_path / "kek"
    monkeypatch.setattr(os, "pwrite", full)
    key = prepared(NewKek((FileReference(str(file)),)), KID, KeySettings(registrar=registrar))
    with pytest.raises(InputError, match=r"is registered, and the record.*the new key is kept in"):
        key.publish()
    assert sim.resources == {PATH: file.read_bytes()}


def test_new_key_file_does_not_stay_where_its_directory_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    file = tmp_path / "kek"
    monkeypatch.setattr("coco_kp.files.sync_directory", fails)
    key = resolve(NewKek((FileReference(str(file)),)), KID).prepare()
    with pytest.raises(InputError, match="cannot write"):
        key.publish()
    assert not list(tmp_path.iterdir())


def test_new_key_file_that_cannot_be_taken_away_again_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is gone: the key's file has its name, and the image will get none."""

    def fails(_: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    file = tmp_path / "kek"
    key = prepared(NewKek((FileReference(str(file)),)), KID, KeySettings())
    monkeypatch.setattr("coco_kp.files.sync_directory", fails)
    refuse(monkeypatch, "unlink", lambda _: True, errno.EROFS)
    with pytest.raises(InputError, match="read-only file system; the new key is kept in"):
        key.publish()
    assert file.read_bytes() == key.kek.raw()


def test_new_key_file_that_cannot_be_looked_at_is_not_said_to_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "stat", lambda path: path.endswith("kek"))
    with pytest.raises(InputError, match="cannot look at '.*kek': input/output error"):
        resolve(NewKek((FileReference(str(tmp_path / "kek")),)), KID).prepare()


def test_new_key_file_that_exists_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    file = tmp_path / "kek"
    file.write_bytes(b"mine")
    with pytest.raises(RefusedError, match="exists"):
        resolve(NewKek((FileReference(str(file)),)), KID).prepare()
    assert file.read_bytes() == b"mine"


def test_new_key_file_in_a_missing_directory_is_refused_before_anything_is_done(
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError, match="cannot write"):
        resolve(NewKek((FileReference(str(tmp_path / "no" / "kek")),)), KID).prepare()


# Keys in a directory


def test_key_dir_keeps_kek_for_next_process(
    sim: SimulatedKbs, admin: Admin, record: Record, key_dir: Path
) -> None:
    first = made(Registrar(admin, record), KID, key_dir).kek
    file = key_dir / PATH
    assert file.read_bytes() == first.raw()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    second = made(Registrar(admin, record), KID, key_dir).kek
    assert second.fingerprint == first.fingerprint
    assert sim.resources[PATH] == first.raw()


def test_key_dir_keeps_kek_of_an_hsm_of_the_kbs(
    sim: SimulatedKbs, admin: Admin, record: Record, key_dir: Path
) -> None:
    """The key IDs of its plugin have a part more."""
    sim.with_pkcs11()
    kid = parse_key_id("kbs+pkcs11:///resource/default/key/1")
    keys = [made(Registrar(admin, record), kid, key_dir).kek for _ in range(2)]
    file = key_dir / "resource" / PATH
    assert {key.raw() for key in keys} == {file.read_bytes()}
    assert (key_dir / "resource").stat().st_mode & 0o777 == 0o700


def test_key_dir_may_be_relative(
    registrar: Registrar, key_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(key_dir.parent)
    keys = [made(registrar, KID, Path(key_dir.name)).kek for _ in range(2)]
    assert {key.raw() for key in keys} == {(key_dir / PATH).read_bytes()}


def test_key_dir_yields_one_kek_to_concurrent_calls(
    sim: SimulatedKbs, registrar: Registrar, key_dir: Path
) -> None:
    """Upstream draws one for each layer, and only the last stays (docs/protocols.md 6.3, 5)."""
    with ThreadPoolExecutor(16) as pool:
        keys = list(pool.map(lambda _: made(registrar, KID, key_dir), range(16)))
    assert {key.kek.fingerprint for key in keys} == {Kek(sim.resources[PATH]).fingerprint}
    assert sim.calls(POST) == 1


def test_key_dir_syncs_kek_and_its_directories_to_disk(
    registrar: Registrar, key_dir: Path, synced: list[str]
) -> None:
    made(registrar, KID, key_dir)
    file = key_dir / PATH
    before, after = synced[:2], synced[3:]
    assert before == [str(key_dir), str(file.parents[1])]
    assert str(file.parent) in after


def test_key_dir_has_kek_before_it_is_registered(
    sim: SimulatedKbs, admin: Admin, record: Record, key_dir: Path
) -> None:
    stored: list[bytes] = []

    def look(request: Request) -> Reply:
        stored.append((key_dir / PATH).read_bytes())
        assert stored == [request.body]
        return Reply(401)

    sim.faults[POST] = look
    with pytest.raises(RemoteError):
        made(Registrar(admin, record), KID, key_dir)
    del sim.faults[POST]
    assert [made(Registrar(admin, record), KID, key_dir).kek.raw()] == stored


def test_key_dir_without_the_key_that_was_registered_makes_none(
    sim: SimulatedKbs, admin: Admin, record: Record, key_dir: Path
) -> None:
    Registrar(admin, record).register(KID, Kek.generate())
    with pytest.raises(RefusedError, match="was registered before"):
        made(Registrar(admin, record), KID, key_dir)
    assert not list(key_dir.iterdir())
    assert sim.calls(POST) == 1


def test_key_dir_refuses_file_that_is_not_a_key(
    sim: SimulatedKbs, registrar: Registrar, key_dir: Path
) -> None:
    file = key_dir / PATH
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no key")
    with pytest.raises(KekError, match="expected a 32-byte key"):
        made(registrar, KID, key_dir)
    assert file.read_bytes() == b"no key"
    assert not sim.requests


def test_key_dir_refuses_key_id_too_long_for_file_name(
    sim: SimulatedKbs, registrar: Registrar, key_dir: Path
) -> None:
    with pytest.raises(InputError, match="file name too long"):
        made(registrar, parse_key_id(f"kbs:///default/key/{'k' * 300}"), key_dir)
    assert not sim.requests


def test_key_dir_follows_no_symlink_out_of_it(
    sim: SimulatedKbs, registrar: Registrar, key_dir: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (key_dir / "default").symlink_to(outside)
    with pytest.raises(RefusedError, match="leads out of the directory of keys"):
        made(registrar, KID, key_dir)
    (outside / "key").mkdir()
    (outside / "key" / "1").write_bytes(os.urandom(32))
    with pytest.raises(RefusedError, match="is outside the directory"):
        made(registrar, KID, key_dir)
    assert not sim.requests


def test_key_dir_that_cannot_be_written_is_reported(
    sim: SimulatedKbs, registrar: Registrar, key_dir: Path
) -> None:
    (key_dir / "default").write_bytes(b"a file where a directory must be")
    with pytest.raises(InputError, match="cannot store a key"):
        made(registrar, KID, key_dir)
    assert not sim.requests


@pytest.mark.parametrize("kid", ["kbs+external:///a/b/c", "kbs://other/a/b/c"])
def test_nothing_is_made_for_key_id_that_kbs_cannot_hold(
    sim: SimulatedKbs, registrar: Registrar, record: Record, key_dir: Path, kid: str
) -> None:
    with pytest.raises(InputError):
        made(registrar, parse_key_id(kid), key_dir)
    assert not list(key_dir.iterdir())
    assert not record.folder.exists()
    assert not sim.requests


@pytest.mark.parametrize("place", ["mine", "team/key/a", "resource/team/key/a"])
def test_key_file_in_key_dir_that_is_another_key_ids_is_refused(key_dir: Path, place: str) -> None:
    """Whoever may name a key file could else have it under a name of their own."""
    for path in ("team/key/a", "resource/team/key/a", "mallory/key/b", "mine"):
        file = key_dir / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(32))
        file.chmod(0o600)
    settings = KeySettings(key_dir=key_dir)
    source = FetchedKek(FileReference(place))
    with pytest.raises(RefusedError, match="name different keys"):
        resolve(source, parse_key_id("kbs:///mallory/key/b"), settings).prepare()
    if place != "mine":
        with pytest.raises(RefusedError, match="name different keys"):
            resolve(source, parse_key_id("kbs:///mallory/key/other"), settings).prepare()
    resolve(FetchedKek(FileReference("mine")), parse_key_id("kbs:///mallory/key/c"), settings)
    resolve(FetchedKek(FileReference("team/key/a")), parse_key_id("/team/key/a"), settings)


# Keys that are there


def test_fetched_key_wraps_and_opens(tmp_path: Path) -> None:
    raw = os.urandom(32)
    file = tmp_path / "kek"
    file.write_bytes(raw)
    file.chmod(0o644)
    warnings: list[str] = []
    source = FetchedKek(FileReference(str(file)))
    key = prepared(source, KID, KeySettings(warn=warnings.append))
    packet = key.wrap(OPTIONS.to_json())
    assert KekOpener(Kek(raw)).open(packet) == opener(source).open(packet) == OPTIONS
    assert key.name == str(KID)
    assert ["others may read" in warning for warning in warnings] == [True]


def test_fetched_key_of_another_length_is_refused_with_how_to_decode_it() -> None:
    text = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="
    source = FetchedKek(ExecReference(("echo", "-n", text)))
    with pytest.raises(KekError, match="found 44 bytes") as refused:
        resolve(source, KID).prepare()
    assert "looks like base64" in refused.value.hint
    assert text not in str(refused.value)


def test_key_without_key_id_is_refused(tmp_path: Path) -> None:
    for source in (GivenKek(Kek.generate()), FetchedKek(FileReference(str(tmp_path / "kek")))):
        with pytest.raises(InputError, match="key ID is missing"):
            resolve(source, None)


def test_sample_key_goes_with_no_key_id_registration_or_a256ctr(registrar: Registrar) -> None:
    key = prepared(SampleKek(), None, KeySettings())
    assert key.kek.fingerprint == Kek(SAMPLE_KEK).fingerprint
    with pytest.raises(InputError):
        resolve(SampleKek(), KID)
    with pytest.raises(InputError):
        resolve(SampleKek(), None, KeySettings(registrar=registrar))
    with pytest.raises(InputError, match="no guest can open"):
        resolve(SampleKek(), None, KeySettings(PacketForm(Algorithm.A256CTR)))


# Keys that stay


@pytest.mark.parametrize(
    ("reference", "kid", "says"),
    [
        (TransitReference("k"), None, "no guest asks"),
        (Pkcs11Reference((("object", "k"),)), None, "no guest asks"),
        (TransitReference("k"), "kbs:///default/key/1", "no guest can open"),
        (AwsKmsReference("", "alias/k"), "kbs:///default/key/1", "no guest can open"),
    ],
)
def test_form_that_no_guest_can_open_is_refused(
    reference: TransitReference | Pkcs11Reference | AwsKmsReference, kid: str | None, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        resolve(StayingKey(reference), parse_key_id(kid) if kid else None)


def test_key_that_stays_is_neither_registered_nor_used_with_a256ctr(registrar: Registrar) -> None:
    source = StayingKey(Pkcs11Reference((("object", "k"),)))
    with pytest.raises(InputError, match="does not leave"):
        resolve(source, KID, KeySettings(registrar=registrar))
    with pytest.raises(InputError, match="A256GCM only"):
        resolve(source, KID, KeySettings(PacketForm(Algorithm.A256CTR)))


def test_who_encrypts_for_aws_kms_learns_which_guests_open_it() -> None:
    warnings: list[str] = []
    source = StayingKey(AwsKmsReference("", "alias/k"))
    resolve(source, None, KeySettings(warn=warnings.append))
    assert ["KMS_PROVIDER=aws" in warning for warning in warnings] == [True]


@pytest.mark.parametrize("source", [NewKek(), SampleKek(), StayingKey(TransitReference("k"))])
def test_source_can_be_pickled(source: KeySource) -> None:
    assert pickle.loads(pickle.dumps(source)) == source  # noqa: S301


def test_given_key_is_shown_nowhere() -> None:
    kek = Kek.generate()
    key = prepared(GivenKek(kek), KID, KeySettings())
    for text in (repr(GivenKek(kek)), repr(key)):
        assert kek.raw().hex() not in text
        assert str(kek.raw()) not in text


def test_unreachable_kbs_leaves_new_key_where_it_is_kept(
    sim: SimulatedKbs, registrar: Registrar, tmp_path: Path
) -> None:
    file = tmp_path / "kek"
    sim.breaks[POST] = 9
    key = prepared(NewKek((FileReference(str(file)),)), KID, KeySettings(registrar=registrar))
    with pytest.raises(UnreachableError, match="kept in"):
        key.publish()
    assert file.exists()
