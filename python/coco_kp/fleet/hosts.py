"""Options of access are about one registry: what was said of it is told to no other."""

from __future__ import annotations

from collections.abc import Collection

from coco_kp.errors import InputError
from coco_kp.redact import shown
from coco_kp.transport import Access
from coco_kp.values import replace


def check_one_registry(hosts: Collection[str], access: Access) -> None:
    """Raise ``InputError`` if there are several ``hosts``, and options that are about one."""
    if len(hosts) < 2 or access == replace(access.elsewhere(), side=access.side):
        return
    first, second, *_ = sorted(hosts)
    raise InputError(
        f"the images are in several registries, {shown(first)} and {shown(second)} among them, and "
        "credentials, certificates and TLS that are given are about one",
        "have credentials in an auth file, and the rest in registries.conf and certs.d",
    )
