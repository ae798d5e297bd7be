"""What workers of one process share."""

from __future__ import annotations

import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

from coco_kp.errors import RemoteError
from coco_kp.fleet.checked import MOST_KEPT, CheckedHeads


def test_checked_layer_that_two_workers_want_at_once_is_read_once() -> None:
    heads = CheckedHeads()
    reads: list[None] = []
    reading, both = threading.Event(), threading.Event()

    def read() -> bytes:
        reads.append(None)
        reading.set()
        both.wait(1)  # without the rule the other reads meanwhile, and sets it
        return b"head"

    def read_beside_it() -> bytes:
        both.set()
        return read()

    def other() -> bytes:
        reading.wait()
        return heads.head("layer", read_beside_it)

    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(heads.head, "layer", read), pool.submit(other)]
        assert [future.result() for future in found] == [b"head", b"head"]
    assert len(reads) == 1


def test_checked_layer_whose_reading_failed_is_read_again() -> None:
    heads = CheckedHeads()

    def fail() -> bytes:
        raise RemoteError("the registry is gone")

    with pytest.raises(RemoteError):
        heads.head("layer", fail)
    assert heads.head("layer", lambda: b"head") == b"head"


def test_checked_layers_of_any_number_take_bounded_memory() -> None:
    heads = CheckedHeads()
    tracemalloc.start()
    try:
        for layer in range(4 * MOST_KEPT):
            heads.head(layer, lambda: bytes(64 * 1024))
            heads.head("wanted again and again", lambda: bytes(64 * 1024))
        assert tracemalloc.get_traced_memory()[0] < 2 * MOST_KEPT * 64 * 1024
    finally:
        tracemalloc.stop()
    assert heads.head("wanted again and again", lambda: b"read anew") == bytes(64 * 1024)
    assert heads.head(0, lambda: b"read anew") == b"read anew"
