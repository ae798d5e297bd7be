"""Who is at the other end of a gRPC call.

Only TLS proves a name, and only of a certificate that was verified: gRPC hands one over where the
listener demands it, and not otherwise. Its names are read by their kinds, which gRPC's own list of
them mixes: an e-mail address or a registered ID is no DNS name that happens to look like one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import unquote

import grpc

from coco_kp.model.client import CertificateNames, ClientIdentity

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_SPIFFE: Final = "spiffe://"


def client_of(context: grpc.ServicerContext) -> ClientIdentity:
    """Return who makes a call."""
    peer = context.peer()
    # its stub has single values for what gRPC documents, and gives, as sequences
    authentication = cast("Mapping[str, Sequence[bytes]]", context.auth_context())
    if authentication.get("transport_security_type") == [b"ssl"]:
        certificates = authentication.get("x509_pem_cert")
        names = certificate_names(certificates[0]) if certificates else None
        return ClientIdentity("tls", _ip(peer), names)
    if peer.startswith("unix:"):
        return ClientIdentity("unix")
    return ClientIdentity("tcp", _ip(peer))


@lru_cache(maxsize=1024)
def certificate_names(pem: bytes) -> CertificateNames:
    """Read the names of a certificate in PEM; one that cannot be read has none."""
    from cryptography import x509  # noqa: PLC0415 (a server without TLS needs none of it)

    try:
        return _names(x509.load_pem_x509_certificate(pem))
    except (
        ValueError,
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ):
        return CertificateNames()


def _names(certificate: Certificate) -> CertificateNames:
    from cryptography import x509  # noqa: PLC0415 (as above)
    from cryptography.x509.oid import NameOID  # noqa: PLC0415

    try:
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common_names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        only = common_names[0].value if len(common_names) == 1 else ""
        return CertificateNames(common_name=only if isinstance(only, str) else "")
    dns, uris = (
        tuple(san.get_values_for_type(kind))
        for kind in (x509.DNSName, x509.UniformResourceIdentifier)
    )
    if len(uris) > 1 and any(uri.lower().startswith(_SPIFFE) for uri in uris):
        uris = ()  # X.509-SVID, section 2: one with several URIs must be rejected
    return CertificateNames(tuple(name.lower() for name in dns), uris)


def _ip(peer: str) -> str:
    """Read ``ipv4:127.0.0.1:50000`` and ``ipv6:%5B::1%5D:50000``; nothing else is an address."""
    host = unquote(peer.partition(":")[2]).rpartition(":")[0].strip("[]")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return ""
