"""The address of a KBS: ``https://host[:port][/prefix]``, nothing else.

The API begins behind the prefix (docs/protocols.md 5.1).
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from coco_kp.errors import InputError
from coco_kp.model.host_port import is_host_name
from coco_kp.redact import shown
from coco_kp.values import dataclass

API: Final = "/kbs/v0"
"""The path, behind the prefix, that all calls have in common."""

_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_PREFIX = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")


@dataclass(frozen=True, slots=True)
class KbsUrl:
    """Scheme, host (lower case, an IPv6 address without brackets), port, and path prefix."""

    scheme: str
    host: str
    port: int
    prefix: str

    @classmethod
    def parse(cls, text: str) -> KbsUrl:
        """Read the address that a user gave. Raises ``InputError``."""
        hint = "give the address of the KBS as https://host[:port][/prefix]"
        try:
            parts = urlsplit(text)
            host, port = parts.hostname or "", parts.port
            if ":" in host:
                host = ipaddress.IPv6Address(host).compressed
        except ValueError:
            raise InputError(f"the KBS address {shown(text)} is not a URL", hint) from None
        if parts.scheme not in _DEFAULT_PORTS:
            raise InputError(f"the KBS address {shown(text)} does not begin with https://", hint)
        if "@" in parts.netloc:
            raise InputError("the KBS address carries a user name or password", hint)
        if "?" in text or "#" in text:
            raise InputError(f"the KBS address {shown(text)} has a query or a fragment", hint)
        if not (":" in host or is_host_name(host)) or port == 0:
            raise InputError(f"the KBS address {shown(text)} has no valid host", hint)
        prefix = parts.path.rstrip("/")
        if not _PREFIX.fullmatch(prefix):
            raise InputError(f"the KBS address {shown(text)} has an unusual path", hint)
        if prefix.endswith(API):
            raise InputError(f"the KBS address {shown(text)} ends with {API}", f"leave {API} out")
        return cls(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme], prefix)

    def names(self, address: str) -> bool:
        """Return whether the address in a key ID is this KBS; an empty one is any KBS.

        ``host`` alone means the scheme's own port (docs/protocols.md 3.3).
        """
        if not address:
            return True
        host, port = address, ""
        if not address.endswith("]") and ":" in address:
            host, _, port = address.rpartition(":")
        return (host.lower(), int(port or _DEFAULT_PORTS[self.scheme])) == (self._host, self.port)

    def __str__(self) -> str:
        """Return the one canonical spelling."""
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self._host}{port}{self.prefix}"

    @property
    def _host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host
