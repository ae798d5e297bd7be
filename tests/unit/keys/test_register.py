"""KEKs are made, stored, registered, confirmed, recorded, and only then used."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import pytest

from coco_kp.crypto import Kek
from coco_kp.deadline import remaining
from coco_kp.errors import (
    CocoKpError,
    InputError,
    RefusedError,
    RemoteError,
    UnreachableError,
)
from coco_kp.kbs.admin import Admin
from coco_kp.kbs.record import Entry, Record
from coco_kp.keys.register import Registrar
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
KEK = Kek.generate()


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "registered")


@pytest.fixture
def registrar(admin: Admin, record: Record) -> Registrar:
    return Registrar(admin, record)


def test_registrar_registers_once_for_concurrent_calls(
    sim: SimulatedKbs, registrar: Registrar
) -> None:
    sim.faults[POST] = lambda _: time.sleep(0.1)
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda _: registrar.register(KID, KEK), range(32)))
    assert sim.calls(POST) == 1


@pytest.mark.parametrize(
    "fault",
    [
        *(Reply(401), Reply(500), Reply(200, truncate=0, body=b"x"), Reply(204)),
        Reply(200, body=b"<html>Welcome"),  # of a server that has a page for everything
    ],
)
def test_registrar_records_no_kek_without_confirmation_by_kbs(
    sim: SimulatedKbs, registrar: Registrar, record: Record, fault: Reply
) -> None:
    sim.faults[POST] = lambda _: fault
    with pytest.raises(RemoteError):
        registrar.register(KID, KEK)
    assert all(file.read_bytes() == b"" for file in record.folder.iterdir())
    del sim.faults[POST]
    registrar.register(KID, KEK)
    assert KEK.raw() == sim.resources[PATH]


def test_registrar_fails_when_kbs_keeps_breaking_connection(
    sim: SimulatedKbs, registrar: Registrar
) -> None:
    sim.breaks[POST] = 4
    with pytest.raises(UnreachableError):
        registrar.register(KID, KEK)
    assert sim.breaks[POST] == 1
    assert not sim.resources


@pytest.mark.parametrize("kbs", [0.5], indirect=True)
def test_registrar_gives_up_when_kbs_never_answers(sim: SimulatedKbs, registrar: Registrar) -> None:
    sim.faults[POST] = lambda _: Reply(body=b" " * 10_000, delay=0.1)
    with ends(), ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(registrar.register, KID, KEK) for _ in range(8)]
        failures = [future.exception() for future in futures]
    assert all(isinstance(failure, UnreachableError) for failure in failures)


def test_registrar_counts_wait_for_record_against_same_deadline(
    admin: Admin, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is waited for and the KBS is asked until one and the same time."""
    ends_at: list[float] = []
    entry, put = Record.entry, Admin.put

    def entered(self: Record, url: KbsUrl, kid: ResourceUri) -> AbstractContextManager[Entry]:
        ends_at.append(remaining())
        return entry(self, url, kid)

    def asked(self: Admin, kid: ResourceUri, resource: bytes) -> None:
        ends_at.append(remaining())
        put(self, kid, resource)

    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    monkeypatch.setattr(Record, "entry", entered)
    monkeypatch.setattr(Admin, "put", asked)
    Registrar(admin, record).register(KID, KEK)
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
        registrar.register(KID, KEK)
    assert seen
    for key in seen:
        assert key.hex() not in str(refused.value) + caplog.text


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
    (file,) = record.folder.glob("*.json")
    file.write_bytes(b"{")
    kek = Kek.generate()
    with pytest.raises(RefusedError, match="is damaged"):
        Registrar(admin, record).register(KID, kek)
    Registrar(admin, record).register(KID, kek, replace=True)
    assert sim.resources[PATH] == kek.raw()


def test_registrar_stops_using_kek_replaced_by_another_process(
    sim: SimulatedKbs, admin: Admin, record: Record
) -> None:
    """An image encrypted with it now could never be opened."""
    server = Registrar(admin, record)
    server.register(KID, KEK)
    new = Kek.generate()
    Registrar(admin, record).register(KID, new, replace=True)
    with pytest.raises(RefusedError, match="for another key"):
        server.register(KID, KEK)
    assert sim.resources[PATH] == new.raw()


def test_registrar_registers_given_kek_once(sim: SimulatedKbs, registrar: Registrar) -> None:
    kek = Kek.generate()
    for _ in range(3):
        registrar.register(KID, kek)
    assert sim.calls(POST) == 1
    assert sim.resources[PATH] == kek.raw()


def test_registrar_registers_given_kek_again_in_next_process(
    sim: SimulatedKbs, admin: Admin, record: Record
) -> None:
    """The KBS may have lost its store since: the record does not say that it has the key."""
    kek = Kek.generate()
    Registrar(admin, record).register(KID, kek)
    sim.resources.clear()
    Registrar(admin, record).register(KID, kek)
    assert sim.resources[PATH] == kek.raw()


@pytest.mark.parametrize("kid", ["kbs+pkcs11:///a/b/c", "kbs://other/a/b/c"])
def test_registrar_creates_nothing_for_key_id_that_kbs_cannot_hold(
    sim: SimulatedKbs, admin: Admin, record: Record, kid: str
) -> None:
    registrar = Registrar(admin, record)
    with pytest.raises(InputError):
        registrar.check(parse_key_id(kid), KEK)
    with pytest.raises(InputError):
        registrar.register(parse_key_id(kid), Kek.generate())
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
            kek = Kek.generate()
            Registrar(admin, record).register(KID, kek)
            outcomes.append(kek.fingerprint)
        except CocoKpError as error:
            outcomes.append(type(error).__name__)

    threads = [threading.Thread(target=serve) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["RefusedError", Kek(sim.resources[PATH]).fingerprint]


def test_key_is_not_registered_under_a_second_key_id(
    sim: SimulatedKbs, admin: Admin, record: Record
) -> None:
    """Whoever may read the second one would have the key of the first."""
    second = parse_key_id("kbs:///mallory/key/1")
    Registrar(admin, record).register(KID, KEK)
    for act in (Registrar(admin, record).check, Registrar(admin, record).register):
        with pytest.raises(RefusedError, match="second name") as refused:
            act(second, KEK)
        assert f"'{KID}'" in refused.value.message
    assert sim.resources.keys() == {PATH}

    Registrar(admin, record, allow_alias=True).register(second, KEK)
    assert sim.resources["mallory/key/1"] == KEK.raw()
    # A name that it had without permission stays refused, the key's own is not.
    with pytest.raises(RefusedError, match="second name"):
        Registrar(admin, record).register(second, KEK)


def test_key_gets_one_name_where_two_are_registered_at_once(
    sim: SimulatedKbs, admin: Admin, record: Record
) -> None:
    """Each looked before the other had written its name down."""
    kids = [KID, parse_key_id("kbs:///mallory/key/1")]
    for kid in kids:
        sim.faults[f"POST resource/{kid.path}"] = lambda _: time.sleep(0.2)

    def register(kid: ResourceUri) -> str:
        try:
            Registrar(admin, record).register(kid, KEK)
        except RefusedError as error:
            return error.message
        return ""

    with ThreadPoolExecutor(2) as pool:
        said = sorted(pool.map(register, kids))
    assert said[0] == ""
    assert "second name" in said[1]
    assert len(sim.resources) == 1


def test_record_of_another_kbs_names_no_alias(admin: Admin, record: Record) -> None:
    elsewhere = KbsUrl.parse("https://other.example")
    with record.entry(elsewhere, KID) as entry:
        entry.write(KEK.fingerprint)
    assert record.names(elsewhere, KEK.fingerprint) == {str(KID)}
    Registrar(admin, record).check(parse_key_id("kbs:///default/key/2"), KEK)
