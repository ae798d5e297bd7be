"""What broke on the way, in words that quote no request target, header or body."""

from __future__ import annotations

import re
import socket
import ssl

import urllib3

from coco_kp.errors import Hint, RemoteError, TlsFailedError, UnreachableError

LATER = "check the network and any proxy on the way, or try again later"


CA_HINT = Hint(
    "if the server has a certificate authority of its own, have this machine trust it",
    "certificate-untrusted",
)


def failure(request: str, exc: Exception, ca_hint: Hint = CA_HINT) -> RemoteError:
    """Turn what urllib3 raised during ``request`` (for people) into an error of ours.

    ``ca_hint`` says how to have an authority trusted.
    """
    cause = _innermost(exc)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return RemoteError(
            f"{request}: the server's certificate is not trusted: {cause.verify_message}",
            ca_hint.text,
            code=ca_hint.code,
            **dict(ca_hint.fields),
        )
    if isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN:
        return RemoteError(f"{request}: the host name is not known", "check its spelling")
    kind = TlsFailedError if isinstance(cause, ssl.SSLError) else UnreachableError
    return kind(f"{request}: {why(cause)}", _way_out(cause))


def why(exc: Exception) -> str:
    """Name the reason that an exception of the system, of OpenSSL or of urllib3 carries."""
    match exc:
        case ssl.SSLError():
            return f"TLS failed: {(exc.reason or 'connection closed').replace('_', ' ').lower()}"
        case TimeoutError() | urllib3.exceptions.TimeoutError():
            return "no answer in time"
        case urllib3.exceptions.IncompleteRead():
            return "the answer ended early"
        case OSError() if exc.strerror:
            return exc.strerror.lower()
        case OSError() if refused := _REFUSED_BY_PROXY.match(str(exc)):
            return f"the proxy refused the connection (HTTP {refused[1]})"
        case _:
            return "the connection was closed or did not speak HTTP"


_REFUSED_BY_PROXY = re.compile(r"Tunnel connection failed: ([0-9]{3})\b")  # of http.client


def _way_out(exc: Exception) -> str:
    match exc:
        case ConnectionRefusedError():
            return "nothing listens there: check host and port, and whether the server runs"
        case BlockingIOError():  # no further thread
            return "allow this user or container more processes"
        case ssl.SSLError():
            return "check that the server speaks TLS on this port, and wants no client certificate"
    return LATER


def _innermost(exc: Exception) -> Exception:
    """Unwrap: urllib3 keeps the system's own error as cause or as argument, sometimes twice."""
    for _ in range(4):
        inner = exc.__cause__ or next((a for a in exc.args if isinstance(a, Exception)), None)
        if not isinstance(inner, Exception):
            break
        exc = inner
    return exc
