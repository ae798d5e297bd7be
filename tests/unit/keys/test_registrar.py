"""KEKs are made, stored, registered, confirmed, recorded, and only then used."""

from __future__ import annotations

import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import pytest

from coco_kp.crypto import Kek
from coco_kp.errors import (
    CocoKpError,
    InputError,
    KekError,
    RefusedError,
    RemoteError,
    UnreachableError,
)
from coco_kp.kbs.admin import Admin
from coco_kp.kbs.record import Entry, Record
from coco_kp.keys.registrar import Registrar
from coco_kp.model.kbs_url import KbsUrl
from coco_kp.model.resource_uri import ResourceUri, parse_key_id
from tests.sim.http_server import Reply, Request
from tests.support.patience import ends

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sim.kbs import SimulatedKbs

KID = parse_key_id("kbs:///default/key/1")
PATH = "default/key/1"
POST = f"POST resource/{PATH}"


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "registered")


@pytest.fixture
def key_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    folder.mkdir()
    return folder


@pytest.fixture
def registrar(admin: Admin, record: Record) -> Registrar:
    return Registrar(admin, record)


def test_registrar_returns_kek_that_kbs_holds(sim: SimulatedKbs, registrar: Registrar) -> None:
    assert registrar.kek_for(KID).raw() == sim.resources[PATH]


def test_registrar_uses_one_kek_for_all_layers(sim: SimulatedKbs, registrar: Registrar) -> None:
    """Upstream draws one for each layer, and only the last stays (docs/protocols.md 6.3, 5)."""
    assert len({registrar.kek_for(KID).fingerprint for _ in range(5)}) == 1
    assert sim.calls(POST) == 1


def test_registrar_registers_once_for_concurrent_calls(
    sim: SimulatedKbs, registrar: Registrar
) -> None:
    sim.faults[POST] = lambda _: time.sleep(0.1)
    with ThreadPoolExecutor(32) as pool:
        keks = list(pool.map(lambda _: registrar.kek_for(KID).fingerprint, range(32)))
    assert len(keks) == 32
    assert len(set(keks)) == 1
    assert sim.calls(POST) == 1


@pytest.mark.parametrize(
    "fault",
    [
        *(Reply(401), Reply(500), Reply(200, truncate=0, body=b"x"), Reply(204)),
        Reply(200, body=b"<html>Welcome"),  # of a server that has a page for everything
    ],
)
def test_registrar_returns_no_kek_without_confirmation_by_kbs(
    sim: SimulatedKbs, registrar: Registrar, record: Record, fault: Reply
) -> None:
    sim.faults[POST] = lambda _: fault
    with pytest.raises(RemoteError):
        registrar.kek_for(KID)
    assert all(file.read_bytes() == b"" for file in record.folder.iterdir())
    del sim.faults[POST]
    assert registrar.kek_for(KID).raw() == sim.resources[PATH]


def test_registrar_fails_when_kbs_keeps_breaking_connection(
    sim: SimulatedKbs, registrar: Registrar
) -> None:
    sim.breaks[POST] = 4
    with pytest.raises(UnreachableError):
        registrar.kek_for(KID)
    assert sim.breaks[POST] == 1
    assert not sim.resources


@pytest.mark.usefixtures("impatient")
def test_registrar_gives_up_when_kbs_never_answers(sim: SimulatedKbs, registrar: Registrar) -> None:
    sim.faults[POST] = lambda _: Reply(body=b" " * 10_000, delay=0.1)
    with ends(), ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(registrar.kek_for, KID) for _ in range(8)]
        failures = [future.exception() for future in futures]
    assert all(isinstance(failure, UnreachableError) for failure in failures)


def test_registrar_counts_wait_for_record_against_same_deadline(
    admin: Admin, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is waited for and the KBS is asked until one and the same time."""
    ends_at: list[float] = []
    entry, put = Record.entry, Admin.put

    def entered(
        self: Record, url: KbsUrl, kid: ResourceUri, end: float
    ) -> AbstractContextManager[Entry]:
        ends_at.append(end)
        return entry(self, url, kid, end)

    def asked(self: Admin, kid: ResourceUri, resource: bytes, end: float | None = None) -> None:
        assert end is not None
        ends_at.append(end)
        put(self, kid, resource, end)

    monkeypatch.setattr(Record, "entry", entered)
    monkeypatch.setattr(Admin, "put", asked)
    Registrar(admin, record).kek_for(KID)
    assert len(ends_at) == 2
    assert len(set(ends_at)) == 1


def test_registrar_error_and_log_show_no_key(
    sim: SimulatedKbs, registrar: Registrar, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    seen: list[bytes] = []

    def echo(request: Request) -> Reply:
        seen.append(request.body)
        return Reply(500, body=request.body.hex().encode())

    sim.faults[POST] = echo
    with pytest.raises(RemoteError) as refused:
        registrar.kek_for(KID)
    assert seen
    for key in seen:
        assert key.hex() not in str(refused.value) + caplog.text


def test_registrar_with_key_dir_keeps_kek_for_next_process(
    sim: SimulatedKbs, admin: Admin, record: Record, key_dir: Path
) -> None:
    first = Registrar(admin, record, key_dir=key_dir).kek_for(KID)
    file = key_dir / PATH
    assert file.read_bytes() == first.raw()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700

    second = Registrar(admin, record, key_dir=key_dir).kek_for(KID)
    assert second.fingerprint == first.fingerprint
    assert sim.resources[PATH] == first.raw()


def test_registrar_syncs_stored_kek_and_its_folders_to_disk(
    admin: Admin, record: Record, key_dir: Path, synced: list[str]
) -> None:
    Registrar(admin, record, key_dir=key_dir).kek_for(KID)
    file = key_dir / PATH
    before, after = synced[:2], synced[3:]
    assert before == [str(key_dir), str(file.parents[1])]
    assert str(file.parent) in after


def test_registrar_stores_kek_before_registering_it(
    sim: SimulatedKbs, admin: Admin, record: Record, key_dir: Path
) -> None:
    stored: list[bytes] = []

    def look(request: Request) -> Reply:
        stored.append((key_dir / PATH).read_bytes())
        assert stored == [request.body]
        return Reply(401)

    sim.faults[POST] = look
    with pytest.raises(RemoteError):
        Registrar(admin, record, key_dir=key_dir).kek_for(KID)
    del sim.faults[POST]
    kek = Registrar(admin, record, key_dir=key_dir).kek_for(KID)
    assert [kek.raw()] == stored


def test_registrar_refuses_to_replace_key_registered_by_another_process(
    sim: SimulatedKbs, admin: Admin, record: Record
) -> None:
    first = Registrar(admin, record).kek_for(KID)
    with pytest.raises(RefusedError, match="was registered before") as refused:
        Registrar(admin, record).kek_for(KID)
    assert first.fingerprint in refused.value.message
    assert "keypath=" in refused.value.hint
    assert sim.resources[PATH] == first.raw()
    assert sim.calls(POST) == 1


def test_registrar_replaces_other_key_only_with_replace(
    sim: SimulatedKbs, admin: Admin, record: Record
) -> None:
    mine, other = Kek.generate(), Kek.generate()
    Registrar(admin, record).register(KID, mine)
    with pytest.raises(RefusedError, match="for another key") as refused:
        Registrar(admin, record).register(KID, other)
    assert mine.fingerprint in refused.value.message
    assert other.fingerprint in refused.value.message
    assert sim.resources[PATH] == mine.raw()

    Registrar(admin, record).register(KID, other, replace=True)
    assert sim.resources[PATH] == other.raw()
    with pytest.raises(RefusedError):
        Registrar(admin, record).register(KID, mine)


def test_registrar_with_damaged_record_registers_only_with_replace(
    sim: SimulatedKbs, admin: Admin, record: Record
) -> None:
    Registrar(admin, record).register(KID, Kek.generate())
    (file,) = record.folder.iterdir()
    file.write_bytes(b"{")
    kek = Kek.generate()
    with pytest.raises(RefusedError, match="is damaged"):
        Registrar(admin, record).register(KID, kek)
    with pytest.raises(RefusedError, match="is damaged"):
        Registrar(admin, record).kek_for(KID)
    Registrar(admin, record).register(KID, kek, replace=True)
    assert sim.resources[PATH] == kek.raw()


def test_registrar_stops_using_kek_replaced_by_another_process(
    sim: SimulatedKbs, admin: Admin, record: Record
) -> None:
    """An image encrypted with it now could never be opened."""
    server = Registrar(admin, record)
    server.kek_for(KID)
    new = Kek.generate()
    Registrar(admin, record).register(KID, new, replace=True)
    with pytest.raises(RefusedError, match="for another key"):
        server.kek_for(KID)
    assert sim.resources[PATH] == new.raw()


def test_registrar_registers_given_kek_once(sim: SimulatedKbs, registrar: Registrar) -> None:
    kek = Kek.generate()
    for _ in range(3):
        registrar.register(KID, kek)
    assert sim.calls(POST) == 1
    assert sim.resources[PATH] == kek.raw()
    assert registrar.kek_for(KID).fingerprint == kek.fingerprint


def test_registrar_registers_given_kek_again_in_next_process(
    sim: SimulatedKbs, admin: Admin, record: Record
) -> None:
    """The KBS may have lost its store since: the record does not say that it has the key."""
    kek = Kek.generate()
    Registrar(admin, record).register(KID, kek)
    sim.resources.clear()
    Registrar(admin, record).register(KID, kek)
    assert sim.resources[PATH] == kek.raw()


def test_registrar_new_kek_has_its_own_key_id(
    sim: SimulatedKbs, admin: Admin, record: Record, key_dir: Path
) -> None:
    """With its scheme, which upstream leaves out (docs/protocols.md 6.3, 6)."""
    registrar = Registrar(admin, record, key_dir=key_dir)
    kids = []
    for _ in range(3):
        kid, kek = registrar.new_kek()
        kids.append(str(kid))
        assert re.fullmatch(r"kbs:///default/image-kek/[0-9a-f-]{36}", str(kid))
        assert sim.resources[kid.path] == kek.raw() == (key_dir / kid.path).read_bytes()
    assert len(set(kids)) == 3


def test_registrar_refuses_stored_file_that_is_not_a_key(
    sim: SimulatedKbs, admin: Admin, record: Record, key_dir: Path
) -> None:
    file = key_dir / PATH
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no key")
    with pytest.raises(KekError, match="expected a 32-byte key"):
        Registrar(admin, record, key_dir=key_dir).kek_for(KID)
    assert file.read_bytes() == b"no key"
    assert not sim.requests


def test_registrar_refuses_key_id_too_long_for_file_name(
    sim: SimulatedKbs, admin: Admin, record: Record, key_dir: Path
) -> None:
    registrar = Registrar(admin, record, key_dir=key_dir)
    registrar.kek_for(parse_key_id("kbs:///default/key/short"))
    with pytest.raises(KekError, match="file name too long"):
        registrar.kek_for(parse_key_id(f"kbs:///default/key/{'k' * 300}"))
    assert sim.resources.keys() == {"default/key/short"}


def test_registrar_does_not_follow_symlink_out_of_key_dir(
    sim: SimulatedKbs, admin: Admin, record: Record, key_dir: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (key_dir / "default").symlink_to(outside)
    with pytest.raises(RefusedError, match="leads out of the folder of keys"):
        Registrar(admin, record, key_dir=key_dir).kek_for(KID)
    (outside / "key").mkdir()
    (outside / "key" / "1").write_bytes(os.urandom(32))
    with pytest.raises(RefusedError, match="is outside the folder"):
        Registrar(admin, record, key_dir=key_dir).kek_for(KID)
    assert not sim.requests


def test_registrar_reports_key_dir_that_cannot_be_written(
    sim: SimulatedKbs, admin: Admin, record: Record, key_dir: Path
) -> None:
    (key_dir / "default").write_bytes(b"a file where a folder must be")
    with pytest.raises(InputError, match="cannot store a key"):
        Registrar(admin, record, key_dir=key_dir).kek_for(KID)
    assert not sim.requests


@pytest.mark.parametrize("kid", ["kbs+pkcs11:///a/b/c", "kbs://other/a/b/c"])
def test_registrar_creates_nothing_for_key_id_that_kbs_cannot_hold(
    sim: SimulatedKbs, admin: Admin, record: Record, key_dir: Path, kid: str
) -> None:
    registrar = Registrar(admin, record, key_dir=key_dir)
    with pytest.raises(InputError):
        registrar.kek_for(parse_key_id(kid))
    with pytest.raises(InputError):
        registrar.register(parse_key_id(kid), Kek.generate())
    assert not list(key_dir.iterdir())
    assert not record.folder.exists()
    assert not sim.requests


def test_registrars_that_race_agree_on_kek_or_fail(
    sim: SimulatedKbs, admin: Admin, record: Record
) -> None:
    """Each keeps its keys to itself: one of them must not encrypt with what the other replaced."""
    sim.faults[POST] = lambda _: time.sleep(0.05)
    outcomes: list[str] = []

    def serve() -> None:
        try:
            outcomes.append(Registrar(admin, record).kek_for(KID).fingerprint)
        except CocoKpError as error:
            outcomes.append(type(error).__name__)

    threads = [threading.Thread(target=serve) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["RefusedError", Kek(sim.resources[PATH]).fingerprint]
