"""The address of a program that speaks no HTTP: ``host:port``."""

from __future__ import annotations

import ipaddress
import re

from coco_kp.errors import InputError
from coco_kp.redact import shown
from coco_kp.values import dataclass

_FORM = re.compile(
    r"(?P<host>[^:\[\]]+|\[(?P<ipv6>[0-9A-Fa-f:.]+)\]):(?P<port>[1-9][0-9]{0,4})", re.ASCII
)
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_LONGEST_NAME = 253  # RFC 1035, 2.3.4, as text


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host (an IPv6 address without brackets) and a TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, what: str) -> HostPort:
        """Read ``host:port`` or ``[IPv6]:port``; ``what`` names it in errors.

        Raises ``InputError``.
        """
        match = _FORM.fullmatch(text)
        if (
            not match
            or int(match["port"]) > 65535
            or not (match["ipv6"] or is_host_name(match["host"]))
        ):
            raise InputError(
                f"{what} {shown(text)} is not host:port", "for example 127.0.0.1:50000"
            )
        host = match["host"]
        if match["ipv6"]:
            try:
                host = ipaddress.IPv6Address(match["ipv6"]).compressed
            except ValueError:
                raise InputError(f"{what} {shown(text)} has no valid IPv6 address") from None
        return cls(host, int(match["port"]))

    def __str__(self) -> str:
        """Return the one canonical spelling."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_host_name(text: str) -> bool:
    """Return whether a resolver can be asked for this name; IPv4 addresses look like one, too."""
    return len(text) <= _LONGEST_NAME and bool(_NAME.fullmatch(text))
