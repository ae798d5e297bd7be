"""systemd's word on how a service is: datagrams to the socket that it names (sd_notify(3)).

Nothing happens where no systemd asks for it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_PATIENCE: Final = 1.0  # seconds to hand over a datagram: systemd reads them at once


class Notifier:
    """Notifies systemd of the stages of a service's life."""

    def __init__(self, address: str = "", watchdog: float = 0.0) -> None:
        """Name the socket, empty for none, and the seconds after which silence means death."""
        self._address = address
        self._pause = watchdog / 3  # so that one that is late or lost does no harm
        self._next = 0.0

    @staticmethod
    def from_environment(environment: MutableMapping[str, str] = os.environ) -> Notifier:
        """Return the one that the environment asks for, and take its variables out of there.

        Programs that this one runs have no business with them.
        """
        address, microseconds, process = (environment.pop(name, "") for name in _VARIABLES)
        if not address.startswith(("/", "@")):  # neither does sd_notify(3) know others, but vsock
            return Notifier()
        watched = process in {"", str(os.getpid())} and microseconds.isdecimal()
        return Notifier(address, int(microseconds) / 1e6 if watched else 0.0)

    @property
    def asked(self) -> bool:
        """Whether a systemd wants to know."""
        return bool(self._address)

    def ready(self) -> None:
        """Say that the service serves: after its start, and after it has read its files anew."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Say that the service reads its files anew; ``ready`` must follow."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self) -> None:
        """Say that the service ends."""
        self._send("STOPPING=1")

    def beat(self, now: float | None = None) -> None:
        """Say that the service lives, as often as systemd wants it; call it more often than that.

        ``now`` is the monotonic clock's, for tests.
        """
        now = time.monotonic() if now is None else now
        if self._pause and now >= self._next:
            self._next = now + self._pause
            self._send("WATCHDOG=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        # "@" stands for the NUL of an abstract socket.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        # What is not said is noticed by systemd: by the time it allows for it.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.settimeout(_PATIENCE)
            out.sendto(state.encode(), address)
