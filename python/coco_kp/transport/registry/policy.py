"""``policy.json``: what it says of an image in a registry (containers-policy.json(5)).

It decides, as for ``skopeo copy``, about each image of which another is made; who only looks is not
asked. Signatures are not checked here. What is rejected is refused, and what would have to be
signed is warned of: its user believes that nothing else comes in.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from coco_kp.errors import InputError, RefusedError
from coco_kp.files import home, is_there, read_small
from coco_kp.model.encoding import parse_json_object
from coco_kp.model.reference import RegistryReference

_SYSTEM: Final = Path("/etc/containers")
_MAX_FILE: Final = 1024 * 1024
_ACCEPTED: Final = "insecureAcceptAnything"

_log = logging.getLogger(__name__)


def check_policy(image: RegistryReference, system: Path = _SYSTEM) -> None:
    """Raise ``RefusedError`` where the policy rejects ``image``; warn of an unchecked signature.

    Raises ``InputError`` for an invalid policy. Without a policy nothing is said.
    """
    file = next((f for f in _files(system) if is_there(f)), None)
    if file is None:
        return
    types = _types(image, file)
    if "reject" in types:
        raise RefusedError(f"{image} is rejected by the policy '{file}'")
    if types - {_ACCEPTED}:
        _log.warning(
            "the signature that '%s' demands of %s is not checked: copy the image with skopeo, "
            "which checks it, and use the copy",
            file,
            image,
        )


def _files(system: Path) -> Iterator[Path]:
    for folder in (home() / ".config" / "containers", system):
        yield folder / "policy.json"


def _types(image: RegistryReference, file: Path) -> set[str]:
    """Return the types of the requirements that decide about ``image``, all of which must hold."""
    what = f"the policy '{file}'"
    document = parse_json_object(read_small(file, _MAX_FILE), what)
    transports = document.get("transports", {})
    scopes = transports.get("docker", {}) if isinstance(transports, dict) else None
    if not isinstance(scopes, dict):
        raise InputError(f"'transports' of {what} is not an object of objects")
    chosen = next((scopes[s] for s in _scopes(image) if s in scopes), document.get("default"))
    if not isinstance(chosen, list) or not chosen:
        raise InputError(f"{what} has no requirements for {image}")
    types = [entry.get("type") if isinstance(entry, dict) else None for entry in chosen]
    if not all(isinstance(name, str) for name in types):
        raise InputError(f"a requirement of {what} has no type")
    return {str(name) for name in types}


def _scopes(image: RegistryReference) -> Iterator[str]:
    """Yield the scopes that hold for an image, the closest first."""
    name = str(image).removeprefix("docker://")
    yield name
    name = f"{image.host}/{image.repository}"
    while name:
        yield name
        name = name.rpartition("/")[0]
    domain = image.host
    while "." in domain:
        domain = domain.partition(".")[2]
        yield f"*.{domain}"
    yield ""
