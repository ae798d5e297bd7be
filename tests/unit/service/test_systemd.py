"""What systemd is told, on a socket as it makes one."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coco_kp.service.systemd import Notifier


@pytest.fixture(params=["path", "abstract"])
def told(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A socket as systemd has it: its name in NOTIFY_SOCKET, and its end."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@{os.urandom(16).hex()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as end:
        end.bind(name.replace("@", "\0") if request.param == "abstract" else name)
        yield name, end


def messages(end: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(end.recv(4096).decode())
        except BlockingIOError:
            return found


def test_moments_are_told_in_the_words_of_sd_notify(told: tuple[str, socket.socket]) -> None:
    name, end = told
    environment = {"NOTIFY_SOCKET": name, "OTHER": "x"}
    notifier = Notifier.from_environment(environment)
    assert environment == {"OTHER": "x"}
    assert notifier.asked
    before = time.monotonic_ns() // 1000
    notifier.ready()
    notifier.reloading()
    notifier.beat()  # nobody asked for it
    notifier.stopping()
    ready, reloading, stopping = messages(end)
    assert (ready, stopping) == ("READY=1", "STOPPING=1")
    state, moment = reloading.split("\n")
    assert state == "RELOADING=1"
    assert before <= int(moment.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_watchdog_is_told_three_times_in_its_time(told: tuple[str, socket.socket]) -> None:
    name, end = told
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000"})
    for now in (100.0, 100.5, 109.9, 110.0, 119.0, 120.5):
        notifier.beat(now)
    assert messages(end) == ["WATCHDOG=1"] * 3


@pytest.mark.parametrize(("process", "beats"), [("our own", 1), ("", 1), ("1", 0), ("another", 0)])
def test_watchdog_of_another_process_is_not_told(
    told: tuple[str, socket.socket], process: str, beats: int
) -> None:
    name, end = told
    process = str(os.getpid()) if process == "our own" else process
    variables = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": process}
    Notifier.from_environment(variables).beat()
    assert len(messages(end)) == beats


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1234", "/absent/notify"])
def test_nobody_is_told_where_there_is_no_socket(address: str) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1"})
    assert notifier.asked == (address == "/absent/notify")
    notifier.ready()
    notifier.reloading()
    notifier.beat()
    notifier.stopping()
