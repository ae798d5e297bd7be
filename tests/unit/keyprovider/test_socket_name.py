"""The name of a Unix socket: who may have it, and who removes what."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from coco_kp.errors import InputError, RemoteError
from coco_kp.keyprovider.socket_name import SocketName


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kp.sock"


@contextmanager
def bound(path: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        yield


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def test_socket_name_is_given_to_one_and_leaves_nothing(path: Path) -> None:
    name = SocketName(path)
    with bound(name.unnamed):
        name.give()
        assert answers(path)
        with pytest.raises(RemoteError, match="another server has it"):
            SocketName(path)
        assert answers(path)
        name.leave()
    assert list(path.parent.iterdir()) == []


def test_ending_server_leaves_socket_of_its_successor(path: Path) -> None:
    """The old one removed the path after it had finished its calls, whoever's socket was there."""
    old = SocketName(path)
    with bound(old.unnamed):
        old.give()
        old.unnamed = path.with_name("successor")
        with bound(old.unnamed):  # as one that does not know of the lock
            old.unnamed.rename(path)
            old.leave()
            assert answers(path)


def test_stale_socket_is_taken_over_without_a_gap(path: Path) -> None:
    with bound(path):
        pass
    gone, done = threading.Event(), threading.Event()

    def look() -> None:
        while not done.is_set():
            if not path.exists():
                gone.set()

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(200):
            name = SocketName(path)
            with bound(name.unnamed):
                name.give()
                assert answers(path)
            (path.parent / "kp.sock.lock").unlink()  # as a killed one leaves the socket
    finally:
        done.set()
        looking.join()
    assert not gone.is_set()


def test_of_many_who_want_the_name_one_has_it(path: Path) -> None:
    start, got = threading.Barrier(8), []

    def take() -> None:
        start.wait()
        with suppress(RemoteError):
            got.append(SocketName(path))

    for _ in range(20):
        takers = [threading.Thread(target=take) for _ in range(8)]
        for taker in takers:
            taker.start()
        for taker in takers:
            taker.join()
        (name,) = got
        name.leave()
        got.clear()


@pytest.mark.parametrize("kind", ["link", "hard link", "fifo"])
def test_lock_file_that_leads_elsewhere_is_refused(path: Path, kind: str) -> None:
    lock, precious = path.with_name("kp.sock.lock"), path.with_name("precious")
    precious.write_text("precious")
    if kind == "link":
        lock.symlink_to(precious)
    elif kind == "hard link":
        lock.hardlink_to(precious)
    else:
        os.mkfifo(lock)
    with pytest.raises(InputError, match=r"cannot write .*kp.sock.lock"):
        SocketName(path)
    assert precious.read_text() == "precious"
