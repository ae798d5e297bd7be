"""Where a server listens, and where a client calls it.

A server: ``127.0.0.1:50000``, ``[::1]:50000`` or ``unix:///path``. A client: the same, host names,
and the other spellings that ocicrypt's clients take (docs/protocols.md 2.1).
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
import stat
from pathlib import Path

from coco_kp.errors import InputError, RemoteError
from coco_kp.files import is_folder, reason
from coco_kp.model.host_port import HostPort
from coco_kp.redact import shown
from coco_kp.values import dataclass

_IP_AND_PORT = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<v4>[0-9.]+)):(?P<port>[0-9]{1,5})")
_LONGEST_SOCKET_PATH = 107  # sun_path of unix(7), without its final NUL
_NO_SOCKET_PATH = frozenset("%?# ")  # gRPC takes the address for a URI: %41 would be A

_WAYS_OUT = {
    errno.EADDRINUSE: "is another server running there? choose another address",
    errno.EADDRNOTAVAIL: "this machine has no such address: choose one of its own",
    errno.EACCES: "choose a port from 1024 on: this user may not have one below",
}

_TARGET_PREFIXES = ("tcp://", "dns:///", "passthrough:///")


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """An IP address and a port; port 0 lets the system choose one."""

    ip: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int

    def __str__(self) -> str:
        """Return the form that clients' configuration takes."""
        host = f"[{self.ip}]" if self.ip.version == 6 else str(self.ip)
        return f"{host}:{self.port}"

    @property
    def beyond_loopback(self) -> bool:
        """Return whether other machines may reach it."""
        return not self.ip.is_loopback

    @property
    def others(self) -> str:
        """Who can call but the server's own user, whom nothing keeps out."""
        return "other machines" if self.beyond_loopback else "every user of this machine"

    @property
    def family(self) -> socket.AddressFamily:
        """Return the family of sockets that it is for."""
        return socket.AF_INET6 if self.ip.version == 6 else socket.AF_INET

    def check(self) -> None:
        """Say why nobody can listen here, as far as it can be told. Raises ``RemoteError``."""
        with socket.socket(self.family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((str(self.ip), self.port))
            except OSError as failure:
                raise RemoteError(
                    f"cannot listen on {self}: {reason(failure)}",
                    _WAYS_OUT.get(failure.errno or 0, ""),
                ) from None


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix socket at an absolute path; ``group`` None is the process's own.

    Its mode and group are all that says who may call.
    """

    path: Path
    mode: int = 0o600
    group: int | None = None

    def __str__(self) -> str:
        """Return the form that clients' configuration takes."""
        return f"unix://{self.path}"

    @property
    def beyond_loopback(self) -> bool:
        """Return whether other machines may reach it: never."""
        return False

    @property
    def others(self) -> str:
        """Who can call but the socket's owner, by its mode; empty where nobody can."""
        if self.mode & stat.S_IWOTH:
            return "every user of this machine"
        return "its group" if self.mode & stat.S_IWGRP else ""

    def check(self) -> None:
        """Make sure that nobody listens here.

        Raises ``RemoteError`` if a server answers, ``InputError`` if what is there is not a socket.
        """
        try:
            self._check()
        except OSError as failure:
            raise RemoteError(f"cannot listen on {self}: {reason(failure)}") from None

    def admit(self, unnamed: Path) -> None:
        """Set a socket's group and then its mode; until then only its owner can use it.

        Raises ``RemoteError``.
        """
        try:
            if self.group is not None:
                os.chown(unnamed, -1, self.group, follow_symlinks=False)
            unnamed.chmod(self.mode)
        except OSError as failure:
            raise RemoteError(
                f"cannot give {self} mode {self.mode:o} and its group: {reason(failure)}",
                "a user may give a socket to groups of his own only",
            ) from None

    def _check(self) -> None:
        if not is_folder(self.path.parent):
            raise InputError(f"there is no directory {shown(str(self.path.parent))} for the socket")
        try:
            self.path.lstat()
        except FileNotFoundError:
            return
        if not self.path.is_socket():
            raise InputError(
                f"{shown(str(self.path))} exists and is not a socket", "choose another path"
            )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(5)
            try:
                probe.connect(str(self.path))
            except ConnectionRefusedError:
                pass  # its server has died
            else:
                raise RemoteError(
                    f"cannot listen on {self}: another server answers there",
                    "stop it, or choose another address",
                )


def parse_address(text: str) -> TcpAddress | UnixAddress:
    """Read a listening address. Raises ``InputError``."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix://")
        if not path.startswith("/"):
            raise InputError(f"socket {shown(text)} is not unix:///<absolute path>")
        if not path.isprintable() or set(path) & _NO_SOCKET_PATH:
            raise InputError(
                f"the socket path {shown(path)} has a character that gRPC reads as another",
                "use letters, digits and the like, no blanks and none of % ? #",
            )
        # It is bound under a name of 9 bytes beside it first.
        name = max(len(path.rpartition("/")[2].encode()), 9)
        if len(path.rpartition("/")[0].encode()) + 1 + name > _LONGEST_SOCKET_PATH:
            raise InputError(
                f"the socket path {shown(path)} is too long",
                f"Unix sockets take at most {_LONGEST_SOCKET_PATH} bytes",
            )
        return UnixAddress(Path(path))
    match = _IP_AND_PORT.fullmatch(text)
    try:
        if not match or int(match["port"]) > 65535:
            raise ValueError
        return TcpAddress(ipaddress.ip_address(match["v6"] or match["v4"]), int(match["port"]))
    except ValueError:
        raise InputError(
            f"{shown(text)} is not an address to listen on",
            "write 127.0.0.1:50000, [::1]:50000 or unix:///path/to.sock; no host names",
        ) from None


def parse_target(text: str) -> str:
    """Read the address of a server as clients' configuration has it, and return gRPC's target.

    Takes ``host:port`` and ``[IPv6]:port``, alone, behind ``tcp://``, as ocicrypt-rs has it, or
    behind grpc-go's ``dns:///`` and ``passthrough:///``; and ``unix:path`` or ``unix:///path``.
    Raises ``InputError``.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if path.strip("/") and path.isprintable() and (path[:2] != "//" or path[:3] == "///"):
            return text
        raise InputError(f"the address {shown(text)} is not unix:///<absolute path>")
    prefix = next((prefix for prefix in _TARGET_PREFIXES if text.startswith(prefix)), "")
    return str(HostPort.parse(text.removeprefix(prefix), "the address"))
