"""What the user can do about a registry's access: hints that name only options that there are."""

from __future__ import annotations

from coco_kp.transport.access import Access


def logging_in(access: Access) -> str:
    """Return how to give credentials."""
    words = "log in with docker, podman or skopeo"
    if access.side is None:
        return words
    return f"{words}, or pass {access.option('creds')} or {access.option('authfile')}"


def allowing_plain_http(access: Access) -> str:
    """Return how to allow plain http, behind "allow that"."""
    if access.side is None:
        return "in registries.conf, with insecure = true"
    return f"with {access.option('tls-verify')}=false"


def trusting(access: Access, host: str) -> str:
    """Return how to have the certificate authority of ``host`` trusted."""
    place = f"into /etc/containers/certs.d/{host}"
    if access.side is not None:
        place += f" or a folder that {access.option('cert-dir')} names"
    return f"if the registry has a certificate authority of its own, put its certificate {place}"
