"""Programs that run in the background of a test: started, awaited, stopped, their output kept."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

START_TIMEOUT = 60
"""Seconds in which a program must be ready; this machine may be busy."""

STOP_TIMEOUT = 10
"""Seconds between SIGTERM and SIGKILL."""

Result = TypeVar("Result")


class DaemonError(Exception):
    """A program ended or hung where it should have become ready; the text has what it printed."""


@contextmanager
def daemon(
    command: Sequence[str | Path],
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[Daemon]:
    """Run a program while the block runs, then stop it; it does not outlive a killed test run."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Daemon(process, log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Daemon:
    """A program in the background; ``log`` has its standard output and error."""

    process: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        """Return what the program has printed so far."""
        return self.log.read_text(errors="replace")

    def address(self, host: str = "127.0.0.1") -> str:
        """Wait until the program listens on the IPv4 address ``host`` and return ``host:port``.

        The program is given port 0 and the kernel is asked which one it got, so that no two
        programs can race for a port.
        """
        port = self.wait_until(lambda: _listening_port(self.process.pid, host), f"listen on {host}")
        return f"{host}:{port}"

    def wait_until(self, probe: Callable[[], Result | None], what: str) -> Result:
        """Call ``probe`` until it gives something that is not empty or false, and return that.

        Raises `DaemonError` if the program ends first, or does not ``what`` in time.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while not (found := probe()):
            if self.process.poll() is not None:
                raise DaemonError(f"exited {self.process.returncode}:\n{self.output()}")
            if time.monotonic() > deadline:
                raise DaemonError(f"did not {what} in {START_TIMEOUT} s:\n{self.output()}")
            time.sleep(0.01)
        return found


def _listening_port(pid: int, host: str) -> int | None:
    """Return the TCP port on which process ``pid`` listens at the IPv4 address ``host``.

    The columns are those of proc(5), /proc/net/tcp.
    """
    listen = "0A"
    address = f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}"
    sockets = _socket_inodes(pid)
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_, inode = line.split()[:10]
        at, _, port = local.partition(":")
        if (at, state) == (address, listen) and inode in sockets:
            return int(port, 16)
    return None


def _socket_inodes(pid: int) -> set[str]:
    links = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(str(descriptor.readlink()))
        except FileNotFoundError:  # closed since the listing
            continue
    return {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
