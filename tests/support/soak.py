"""A server under load for a while: many clients, and a KBS that is killed and comes back.

Clients call as ocicrypt does, over a connection for each call: three wrap with a key file for one
that unwraps through the KBS. In the middle third of the time there is no KBS.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc

from tests.support import ocicrypt
from tests.support.provider import served_address, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.peers.daemon import Daemon

PATH: Final = "default/key/soak"

IDLE: Final = 12.0
"""Seconds after which the server has let go what it does not need."""


@dataclass
class Usage:
    """What a process has at a moment."""

    threads: int
    files: int
    memory: int
    """Resident, in KiB."""

    @staticmethod
    def of(running: Daemon) -> Usage:
        """Read it from /proc, see proc(5)."""
        folder = Path(f"/proc/{running.process.pid}")
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        return Usage(
            int(status["Threads"]),
            len(list((folder / "fd").iterdir())),
            int(status["VmRSS"].split()[0]),
        )


@dataclass
class Report:
    """What was called, in what phase, how it ended, and how long it took in seconds."""

    ends: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By phase (``before``, ``without KBS``, ``after``), operation and code."""
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"wrap": [], "unwrap": []})
    """By operation, of those that were answered."""
    usage: dict[str, Usage] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """Yield it for people."""
        for (phase, operation, code), count in sorted(self.ends.items()):
            yield f"{phase:12} {operation:7} {code:20} {count:8}"
        for operation, seconds in self.seconds.items():
            parts = statistics.quantiles(seconds, n=1000)
            shown = {"median": parts[499], "99 %": parts[989], "99.9 %": parts[998]}
            words = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in shown.items())
            yield f"{operation}: {len(seconds)} answered, {words}, most {max(seconds):.2f} s"
        for moment, usage in self.usage.items():
            yield (
                f"{moment:12} {usage.threads:4} threads {usage.files:4} files "
                f"{usage.memory / 1024:6.1f} MiB"
            )


def soak(folder: Path, seconds: float, clients: int) -> Report:
    """Run a server and its clients so long, and wait until the server is idle again."""
    kek = folder / "kek"
    kek.write_bytes(os.urandom(32))
    kek.chmod(0o600)
    report = Report()
    with killable_kbs(kek) as kbs, serving(folder, "--key-dir", str(folder)) as server:
        load = _Load(served_address(server), kbs, report)
        load.call("wrap")
        load.call("unwrap")
        report.usage["start"] = Usage.of(server)
        threads = [threading.Thread(target=load.run) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for phase in ("before", "without KBS", "after"):
            if phase == "without KBS":
                kbs.kill()
            if phase == "after":
                kbs.start()
            load.phase = phase
            time.sleep(seconds / 3)
            report.usage[phase] = Usage.of(server)
        load.over.set()
        for thread in threads:
            thread.join()
        time.sleep(IDLE)
        report.usage["idle"] = Usage.of(server)
    return report


class _Load:
    """What one client does again and again."""

    def __init__(self, address: str, kbs: KillableKbs, report: Report) -> None:
        self.phase = ""
        self.over = threading.Event()
        self._address, self._report = address, report
        self._lock = threading.Lock()
        options = ocicrypt.new_private_options()
        wrap = ocicrypt.wrap_request(f"keypath=kek::keyid=/{PATH}", options)
        with ocicrypt.connection(address) as channel:
            packet = ocicrypt.wrapped_packet(ocicrypt.send(channel, ocicrypt.WRAP_KEY, wrap))
        self._requests = {
            "wrap": (ocicrypt.WRAP_KEY, wrap),
            "unwrap": (
                ocicrypt.UNWRAP_KEY,
                ocicrypt.unwrap_request(f"cc_kbc::{kbs.url}", packet),
            ),
        }

    def run(self) -> None:
        while not self.over.is_set():
            operation = random.choice(("wrap", "wrap", "wrap", "unwrap"))
            began, phase = time.perf_counter(), self.phase
            code = self.call(operation)
            took = time.perf_counter() - began
            if phase != self.phase:
                phase = f"{phase}/{self.phase}"  # either may be the reason
            with self._lock:
                self._report.ends[phase, operation, code] += 1
                if code == "OK":
                    self._report.seconds[operation].append(took)

    def call(self, operation: str) -> str:
        method, request = self._requests[operation]
        try:
            with ocicrypt.connection(self._address) as channel:
                ocicrypt.send(channel, method, request)
        except grpc.RpcError as error:
            code: str = error.code().name
            return code
        return "OK"


class KillableKbs:
    """A simulated KBS in a process of its own, that comes back at the same address."""

    def __init__(self, kek: Path) -> None:
        self._kek = kek
        self._port = 0
        self._process: subprocess.Popen[str] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it; all its sessions are gone."""
        command = [sys.executable, "-m", "tests.sim.kbs_process", str(self._port), str(self._kek)]
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command, PATH], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout
        self._port = json.loads(self._process.stdout.readline())

    def kill(self) -> None:
        """Kill it."""
        if self._process:
            self._process.kill()
            self._process.communicate()


@contextmanager
def killable_kbs(kek: Path) -> Iterator[KillableKbs]:
    """Run one while the block runs; it hands out a key to everybody."""
    kbs = KillableKbs(kek)
    try:
        yield kbs
    finally:
        kbs.kill()
