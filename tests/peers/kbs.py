"""The brokers of keys that guests talk to, each real, on loopback, for one test alone."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .daemon import daemon
from .folder import folder_peer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from .daemon import Daemon

Mode = Literal["http", "tls", "open"]
"""``http``, ``tls``: admin tokens with roles. ``open``: whoever asks may write."""


@dataclass(frozen=True)
class RunningKbs:
    """A real Trustee KBS, its keys and tokens in ``folder``."""

    daemon: Daemon
    url: str
    folder: Path

    @property
    def admin_token(self) -> Path:
        """A token that may do everything, valid for long."""
        return self.folder / "admin-token"

    @property
    def admin_key(self) -> Path:
        """The Ed25519 key whose signature the KBS trusts, of issuer ``peer-admin``."""
        return self.folder / "admin.key"

    @property
    def ca(self) -> Path:
        """Its own certificate authority, in mode ``tls``."""
        return self.folder / "ca.crt"

    def kill(self) -> None:
        """End it at once, as a loss of power does."""
        self.daemon.process.kill()
        self.daemon.process.wait()

    def client(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run Trustee's own client; give what it did, whatever that was."""
        certificate = ["--cert-file", str(self.ca)] if self.ca.exists() else []
        command: list[str | Path] = [
            folder_peer("kbs-client"),
            "--url",
            self.url,
            *certificate,
            *arguments,
        ]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    def configure(self, *arguments: str | Path) -> str:
        """Run ``kbs-client config`` as the administrator; it must succeed."""
        done = self.client("config", "--admin-token-file", self.admin_token, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def allow_all(self) -> None:
        """Let everybody who was attested read: the built-in policy refuses the sample attester."""
        self.configure("set-resource-policy", "--allow-all")

    def deny_all(self) -> None:
        """Let nobody read."""
        self.configure("set-resource-policy", "--deny-all")


@contextmanager
def kbs(folder: Path, mode: Mode = "http", port: str = "0") -> Iterator[RunningKbs]:
    """Run a Trustee KBS of protocol 0.4.0 that accepts the sample attester's evidence.

    On the same folder it has what it had before. A port is only given to take an old one's place.
    """
    folder.mkdir(exist_ok=True)
    command: list[str | Path] = [folder_peer("start-kbs"), folder / "kbs", port, mode]
    with daemon(command, folder / "kbs.log") as running:
        _, _, port = running.address().partition(":")
        url = f"https://localhost:{port}" if mode == "tls" else f"http://127.0.0.1:{port}"
        yield RunningKbs(running, url, folder / "kbs")


@dataclass(frozen=True)
class RunningSimpleKbs:
    """A real simple-kbs and the connection that a SEV guest would have been launched with."""

    address: str
    connection: Path


@contextmanager
def simple_kbs(folder: Path, keys: Path) -> Iterator[RunningSimpleKbs]:
    """Run the KBS of ``online_sev`` with the keys of a keys file."""
    folder.mkdir(exist_ok=True)
    command: list[str | Path] = [folder_peer("start-simple-kbs"), folder / "simple-kbs", "0", keys]
    with daemon(command, folder / "simple-kbs.log") as running:
        yield RunningSimpleKbs(running.address(), folder / "simple-kbs" / "connection.json")


@contextmanager
def verdictd(folder: Path, keys: Mapping[str, bytes]) -> Iterator[str]:
    """Run the broker of ``eaa`` with these keys by kid; give its ``host:port``."""
    for kid, key in keys.items():
        file = folder / "opt" / "verdictd" / "keys" / kid
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(key)
    folder.mkdir(exist_ok=True)
    # the second address differs so that the two sockets can be told apart, both at port 0
    listen = ["--listen", "127.0.0.1:0", "--client-api", "127.0.0.2:0"]
    null = ["--attester", "nullattester", "--verifier", "nullverifier"]
    openssl = ["--tls", "openssl", "--crypto", "openssl"]
    inside = ["sh", "-c", 'cd "$0" && exec "$@"']
    command: list[str | Path] = [*inside, folder, folder_peer("verdictd"), *listen, *null, *openssl]
    with daemon(command, folder / "verdictd.log") as running:
        yield running.address()
