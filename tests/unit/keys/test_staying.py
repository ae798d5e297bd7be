"""What opens packets by a key that stays where it is, shared by threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from coco_kp.keys import staying
from coco_kp.keys.external import wrap_new_kek
from coco_kp.keys.reference import TransitReference
from coco_kp.keys.staying import StayingOpener
from coco_kp.keys.wrapper import KekRecipient
from coco_kp.model.layer_options import PrivateOptions
from coco_kp.model.resource_uri import parse_key_id
from tests.support.patience import PATIENCE, wait_until
from tests.support.wrapping_key import LocalKey

if TYPE_CHECKING:
    from coco_kp.keys.reference import WrappingReference
    from coco_kp.model.layer_encryption import LayerPacket

MASTER = bytes(range(32))
OPTIONS = PrivateOptions(bytes(32), bytes(16), f"sha256:{'0' * 64}")
THREADS = 4
A_WHILE = 0.2  # seconds for what goes wrong to go wrong; what is right does not depend on it


@dataclass(frozen=True)
class ConnectedKey(LocalKey):
    """A key that counts how often it was closed."""

    closings: list[None] = field(default_factory=list)

    def close(self) -> None:
        self.closings.append(None)


@pytest.fixture
def packet() -> LayerPacket:
    kid, kek = wrap_new_kek(parse_key_id("kbs+external:///coco-kp/prod"), LocalKey(MASTER))
    return KekRecipient(kid, kek).wrap(OPTIONS.to_json())


def test_staying_opener_opens_and_closes_one_key_for_all_threads(
    packet: LayerPacket, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[ConnectedKey] = []
    together = threading.Barrier(THREADS)

    def open_slowly(_: WrappingReference) -> ConnectedKey:
        with suppress(threading.BrokenBarrierError):
            together.wait(A_WHILE)  # all threads meet here if nothing keeps them apart
        opened.append(ConnectedKey(MASTER))
        return opened[-1]

    monkeypatch.setattr(staying, "open_wrapping_key", open_slowly)
    with ThreadPoolExecutor(THREADS) as pool, closing(StayingOpener(TransitReference("k"))) as one:
        assert list(pool.map(one.open, [packet] * THREADS)) == [OPTIONS] * THREADS
    assert [len(key.closings) for key in opened] == [1]


def test_staying_opener_closes_key_that_another_thread_is_opening(
    packet: LayerPacket, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[ConnectedKey] = []
    begun, go_on = threading.Event(), threading.Event()

    def open_when_let(_: WrappingReference) -> ConnectedKey:
        begun.set()
        assert go_on.wait(PATIENCE)
        opened.append(ConnectedKey(MASTER))
        return opened[-1]

    monkeypatch.setattr(staying, "open_wrapping_key", open_when_let)
    opener = StayingOpener(TransitReference("k"))
    with ThreadPoolExecutor(2) as pool:
        opening = pool.submit(opener.open, packet)
        wait_until(begun.is_set)
        closer = pool.submit(opener.close)
        wait([closer], A_WHILE)
        go_on.set()
        assert opening.result(PATIENCE) == OPTIONS
        closer.result(PATIENCE)
    assert [len(key.closings) for key in opened] == [1]
