"""Pieces that another thread makes ahead of whoever takes them."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Iterator

import pytest

from coco_kp.crypto import LayerSealer
from coco_kp.deadline import remaining, within
from coco_kp.image.ahead import BUFFERS, Making, ahead
from coco_kp.image.passage import LayerInput, Passage
from coco_kp.image.progress import Progress
from coco_kp.image.work import Work
from coco_kp.model.digest import Digest
from coco_kp.model.manifest import describe
from coco_kp.transport import BlobWriter, Pieces
from tests.support.documents import TAR
from tests.support.patience import wait_until


def numbered(made: list[int], count: int) -> Making:
    """Make pieces that hold their number, in as many buffers as `ahead` needs."""
    buffers = itertools.cycle([bytearray(4) for _ in range(BUFFERS)])
    for number in range(count):
        buffer = next(buffers)
        buffer[:] = number.to_bytes(4)
        made.append(number)
        yield memoryview(buffer)


def until_waiting(made: list[int]) -> None:
    """Let the maker come as far as it can without anybody who takes a piece."""
    wait_until(lambda: len(made) >= BUFFERS)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_pieces_made_ahead_come_whole_and_in_order() -> None:
    made: list[int] = []
    taken: list[int] = []
    for piece in ahead(numbered(made, 50)):
        if not taken:
            until_waiting(made)
        taken.append(int.from_bytes(piece))
    assert taken == list(range(50))


def test_pieces_are_made_ahead_no_further_than_there_are_buffers() -> None:
    made: list[int] = []
    pieces = ahead(numbered(made, 50))
    next(pieces)
    until_waiting(made)
    time.sleep(0.05)
    assert len(made) == BUFFERS
    pieces.close()


def test_pieces_are_made_on_a_thread_to_which_the_deadline_applies() -> None:
    seen: list[tuple[threading.Thread, float]] = []

    def make() -> Making:
        seen.append((threading.current_thread(), remaining()))
        yield memoryview(b"piece")

    with within(1000):
        assert list(ahead(make())) == [b"piece"]
    ((thread, left),) = seen
    assert thread is not threading.current_thread()
    assert left < math.inf


def test_error_of_the_maker_comes_before_what_was_made_and_not_taken() -> None:
    """Whoever interrupts does not wait until a slow line has taken that."""
    maker: list[threading.Thread] = []
    taken = threading.Event()

    def make() -> Making:
        maker.append(threading.current_thread())
        yield memoryview(b"piece")
        taken.wait()
        yield memoryview(b"piece")
        raise LookupError("the rest")

    pieces = ahead(make())
    assert bytes(next(pieces)) == b"piece"
    taken.set()
    maker[0].join()
    with pytest.raises(LookupError, match="the rest"):
        next(pieces)


def test_pieces_that_nobody_wants_any_more_are_not_made() -> None:
    ended = []

    def make() -> Making:
        try:
            while True:
                yield memoryview(b"piece")
        finally:
            ended.append(True)

    pieces = ahead(make())
    next(pieces)
    pieces.close()
    assert ended


def test_pieces_are_made_on_the_same_thread_where_there_is_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert [bytes(piece) for piece in ahead(numbered([], 2))] == [bytes(4), b"\0\0\0\1"]


class Failing(BlobWriter):
    """Takes one piece."""

    def take(self, pieces: Pieces) -> None:
        next(iter(pieces(0)))
        raise LookupError("no more")

    def commit(self, digest: Digest, size: int) -> None: ...

    def abort(self) -> None: ...


def test_passage_to_a_writer_that_fails_leaves_no_thread_behind() -> None:
    before = set(threading.enumerate())
    layer = describe(TAR, b"")
    passage = Passage(LayerSealer(), lambda _: endless())
    with pytest.raises(LookupError) as caught:
        passage.carry(LayerInput(None, layer, Work(Progress()), threads=2), Failing())  # type: ignore[arg-type]
    assert caught.traceback  # which holds what was being taken
    assert set(threading.enumerate()) <= before


def endless() -> Making:
    while True:
        yield memoryview(bytearray(64))
