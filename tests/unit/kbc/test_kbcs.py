"""KBCs that are open: made when first named, kept within bounds, closed by whoever made them."""

from __future__ import annotations

import sys
import threading
from functools import partial
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from coco_kp.cli.options import KbcOptions, with_options
from coco_kp.errors import InputError
from coco_kp.kbc import kbcs as kbcs_module
from coco_kp.kbc.cc import cc_kbc
from coco_kp.kbc.kbcs import MOST_OPEN, Kbc, Kbcs
from coco_kp.model.kbc_spec import KbcSpec
from tests.sim.kbs import simulated_kbs
from tests.support.connections import connections_to
from tests.support.wrapping import PATH, SECRET, Wrapping

if TYPE_CHECKING:
    from collections.abc import Callable

    from coco_kp.model.packet import AnnotationPacket


class Traced:
    """A KBC that tells what is done with it. ``meanwhile`` is done while it opens a packet."""

    def __init__(self, made: list[Traced], address: str) -> None:
        made.append(self)
        self.address = address
        self.closed = 0
        self.meanwhile: Callable[[], object] = lambda: None

    def unwrap(self, _packet: AnnotationPacket) -> bytes:
        assert not self.closed
        self.meanwhile()
        assert not self.closed
        return self.address.encode()

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def made() -> list[Traced]:
    return []


@pytest.fixture
def kbcs(made: list[Traced]) -> Kbcs:
    return Kbcs({"cc": partial(Traced, made)})


@pytest.fixture
def packet(wrapping: Wrapping) -> AnnotationPacket:
    return wrapping.packet()


def spec(address: object = "a") -> KbcSpec:
    return KbcSpec("cc", str(address))


def test_kbcs_make_each_kbc_once_and_close_it_once(
    kbcs: Kbcs, made: list[Traced], packet: AnnotationPacket
) -> None:
    with kbcs:
        assert [kbcs.unwrap(spec(a), packet) for a in "aba"] == [b"a", b"b", b"a"]
        assert [kbc.closed for kbc in made] == [0, 0]
    kbcs.close()
    assert [(kbc.address, kbc.closed) for kbc in made] == [("a", 1), ("b", 1)]


def test_kbcs_that_are_closed_open_nothing(
    kbcs: Kbcs, made: list[Traced], packet: AnnotationPacket
) -> None:
    kbcs.close()
    with pytest.raises(ValueError, match="closed"):
        kbcs.unwrap(spec(), packet)
    assert made == []


def test_kbcs_close_the_least_recently_used_where_callers_name_many(
    kbcs: Kbcs, made: list[Traced], packet: AnnotationPacket
) -> None:
    with kbcs:
        for address in range(MOST_OPEN):
            kbcs.unwrap(spec(address), packet)
        kbcs.unwrap(spec(0), packet)
        kbcs.unwrap(spec("one more"), packet)
        assert [kbc.address for kbc in made if kbc.closed] == ["1"]


def test_kbcs_leave_one_that_is_in_use_open_until_it_is_not(
    kbcs: Kbcs, made: list[Traced], packet: AnnotationPacket
) -> None:
    def many() -> None:
        for address in range(MOST_OPEN):
            kbcs.unwrap(spec(address), packet)

    with kbcs:
        kbcs.unwrap(spec(), packet)
        made[0].meanwhile = many
        assert kbcs.unwrap(spec(), packet) == b"a"
        assert made[0].closed == 1
        kbcs.unwrap(spec("last"), packet)
        made[-1].meanwhile = kbcs.close
        assert kbcs.unwrap(spec("last"), packet) == b"last"
    assert {kbc.closed for kbc in made} == {1}


def test_kbcs_close_what_two_threads_made_at_once_all_but_one(packet: AnnotationPacket) -> None:
    made: list[Traced] = []
    both = threading.Barrier(2)

    def make(address: str) -> Traced:
        both.wait()
        return Traced(made, address)

    with Kbcs({"cc": make}) as kbcs:
        threads = [threading.Thread(target=kbcs.unwrap, args=(spec(), packet)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(kbc.closed for kbc in made) == [0, 1]
        assert kbcs.unwrap(spec(), packet) == b"a"
    assert [kbc.closed for kbc in made] == [1, 1]


def test_kbcs_ask_again_for_one_that_could_not_be_made(packet: AnnotationPacket) -> None:
    made: list[Traced] = []

    def make(address: str) -> Traced:
        if not made:
            Traced(made, "")
            raise InputError("not yet")
        return Traced(made, address)

    with Kbcs({"cc": make}) as kbcs:
        with pytest.raises(InputError):
            kbcs.unwrap(spec(), packet)
        assert kbcs.unwrap(spec(), packet) == b"a"


def test_kbcs_import_a_kbc_when_it_is_named(
    monkeypatch: pytest.MonkeyPatch, packet: AnnotationPacket
) -> None:
    monkeypatch.delitem(sys.modules, "coco_kp.kbc.cc", raising=False)
    with Kbcs() as kbcs:
        assert "coco_kp.kbc.cc" not in sys.modules
        with pytest.raises(InputError, match="needs the address"):
            kbcs.unwrap(spec(""), packet)
        assert "coco_kp.kbc.cc" in sys.modules


def test_kbcs_leave_no_connection_behind(wrapping: Wrapping, packet: AnnotationPacket) -> None:
    held: list[Kbc] = []  # the collector would end the connections of one that nobody has

    def make(address: str) -> Kbc:
        held.append(cc_kbc(address))
        return held[-1]

    with simulated_kbs() as sim:
        sim.resources[PATH] = wrapping.raw
        with Kbcs({"cc": make}) as kbcs:
            assert kbcs.unwrap(spec(sim.url), packet) == SECRET
            assert connections_to(sim.url) == 1
        assert connections_to(sim.url) == 0


def test_command_closes_the_kbcs_that_it_named(
    monkeypatch: pytest.MonkeyPatch, packet: AnnotationPacket
) -> None:
    made: list[Traced] = []
    monkeypatch.setattr(kbcs_module, "Kbcs", lambda _: Kbcs({"cc": partial(Traced, made)}))

    @click.command()
    @with_options(kbc=KbcOptions)
    def command(kbc: KbcOptions) -> None:
        kbc.kbcs().unwrap(spec(), packet)
        assert not made[0].closed

    assert CliRunner().invoke(command, catch_exceptions=False).exit_code == 0
    assert [kbc.closed for kbc in made] == [1]
