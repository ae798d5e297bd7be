"""Who calls the key provider, as far as the door knows it."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Transport = Literal["process", "unix", "tcp", "tls"]
"""How a call came: from the one who started this process, or through a socket of that kind."""


class CertificateNames(NamedTuple):
    """The names in a certificate that was verified; what stands in none of them names nobody.

    ``dns`` (in lower case) and ``uris`` are of its subjectAltName, ``common_name`` is empty where
    it has one (RFC 9525, section 2; gRPC's and Go's rule too).
    """

    dns: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    common_name: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """All names with their kinds, the most telling first: ``uri:spiffe://…``, ``dns:…``."""
        return (
            *(f"uri:{uri}" for uri in self.uris),
            *(f"dns:{name}" for name in self.dns),
            *((f"cn:{self.common_name}",) if self.common_name else ()),
        )

    def __str__(self) -> str:
        """Return one name for logs."""
        return next(iter(self.names), "a certificate without a name")


class ClientIdentity(NamedTuple):
    """A caller. ``certificate`` is None unless TLS has verified one against the clients' CA.

    ``ip`` is empty where there is none; of a Unix socket, the file's mode says who may call.
    """

    transport: Transport
    ip: str = ""
    certificate: CertificateNames | None = None

    def __str__(self) -> str:
        """Return how logs, audit lines and refusals name the caller; not fit to decide by."""
        if self.certificate:
            return str(self.certificate)
        return f"ip:{self.ip}" if self.ip else self.transport


PROCESS: Final = ClientIdentity("process")
"""Who started this process: the caller of a library, and of the door on standard input."""
