"""What can be done about a registry's access, as hints of errors.

Their field ``side`` tells whose access it is; there is none where the caller has no say in it.
"""

from __future__ import annotations

from coco_kp.errors import Hint
from coco_kp.transport.access import Access

IN_REGISTRIES_CONF = "in registries.conf, with insecure = true"


def logging_in(access: Access) -> Hint:
    """Return how to give credentials."""
    return Hint("log in with docker, podman or skopeo", "login-needed", _side(access))


def allowing_plain_http(access: Access) -> Hint:
    """Return how to allow plain http, where the registry may speak it."""
    text = f"if the registry speaks plain http, allow that {IN_REGISTRIES_CONF}"
    return Hint(text, "registry-without-tls", _side(access))


def allowing_named_http(access: Access) -> Hint:
    """Return what to do where the registry itself names a place with plain http."""
    text = (
        "set the registry's public URL to https (its proxy may have to send X-Forwarded-Proto), or "
        f"allow plain http {IN_REGISTRIES_CONF}"
    )
    return Hint(text, "registry-names-http", _side(access))


def trusting(access: Access, host: str) -> Hint:
    """Return how to have the certificate authority of ``host`` trusted."""
    text = (
        "if the registry has a certificate authority of its own, put its certificate into "
        f"/etc/containers/certs.d/{host}"
    )
    return Hint(text, "registry-certificate-untrusted", _side(access))


def _side(access: Access) -> tuple[tuple[str, str], ...]:
    return () if access.side is None else (("side", access.side),)
