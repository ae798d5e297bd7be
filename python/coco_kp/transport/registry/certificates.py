"""TLS settings of a registry: ``--cert-dir``, else the first ``certs.d`` directory with its name.

Both hold certificates as docker and skopeo expect them (containers-certs.d(5)): ``*.crt`` are
authorities to trust, ``*.cert`` with ``*.key`` is the client's own certificate; of several the
first.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from coco_kp.errors import InputError
from coco_kp.files import home, is_folder
from coco_kp.http import Tls
from coco_kp.transport.access import Access
from coco_kp.transport.files import naming

_log = logging.getLogger(__name__)

_SYSTEM: Final = (Path("/etc/containers"), Path("/etc/docker"))


def tls_settings(host: str, access: Access) -> Tls:
    """Return the settings for ``host`` (as in image names, with port). Raises ``InputError``."""
    verify = access.tls_verify is not False
    if access.cert_dir is not None:
        return _read(Path(access.cert_dir), verify=verify)
    for folder in _folders(host):
        if is_folder(folder):
            return _read(folder, verify=verify)
    return Tls(verify=verify)


def _folders(host: str) -> list[Path]:
    parents = (home() / ".config" / "containers", *_SYSTEM)
    return [parent / "certs.d" / host for parent in parents]


def _read(folder: Path, *, verify: bool) -> Tls:
    with naming("read", folder):
        files = sorted(folder.iterdir())
    of_client = [file for file in files if file.suffix == ".cert"]
    own = of_client[0] if of_client else None
    if len(of_client) > 1:  # OpenSSL, as Python offers it, cannot choose by the server's wish
        _log.warning("of the client certificates in '%s' only '%s' is shown", folder, own)
    key = own.with_suffix(".key") if own else None
    if key and key not in files:
        raise InputError(f"'{own}' has no key beside it", f"put the key into '{key}'")
    for lone in files:
        if lone.suffix == ".key" and lone.with_suffix(".cert") not in files:
            raise InputError(f"'{lone}' has no certificate beside it", "name that *.cert")
    authorities = tuple(file for file in files if file.suffix == ".crt")
    return Tls(authorities, own, key, verify=verify)
