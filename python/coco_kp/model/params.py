"""The encryption parameters of a key-provider call: ``k=v::k=v`` (docs/protocols.md 6.2).

skopeo users write them behind ``provider:attestation-agent:``. Upstream drops what it does not
know and falls back to a key that nobody keeps; here every word is used or refused.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from coco_kp.errors import InputError
from coco_kp.model.algorithm import Algorithm, parse_algorithm
from coco_kp.model.resource_uri import ResourceUri, parse_key_id
from coco_kp.redact import shown

PARAMETERS_HINT: Final = (
    "write keypath=<file>::keyid=kbs:///<repository>/<type>/<tag>[::algorithm=A256GCM|A256CTR], "
    "or sample=true for a trial with a key that everybody knows"
)

MAX_PARAMETERS: Final = 16 * 1024
"""Characters of the parameters at the most: four times a path's longest."""

_NAMES: Final = ("sample", "keyid", "keypath", "kekfrom", "algorithm")

# A field begins at the start, or at a '::' that a name and '=' follow. So the '::' inside the IPv6
# address of a keyid separates nothing, and a stray one stays in a value, which then is refused.
_FIELD_START: Final = re.compile(r"(?:\A|::)(?=[^=:/\[\]]*=)")


class SampleParams(NamedTuple):
    """``sample=true``: the KEK that is compiled into every sample KBC, for trials only."""

    algorithm: Algorithm


class FileParams(NamedTuple):
    """``keypath`` and ``keyid``: a KEK that the caller has in a file."""

    key_id: ResourceUri
    key_path: str
    algorithm: Algorithm


class StoreParams(NamedTuple):
    """``kekfrom`` and ``keyid``: a KEK that the provider fetches where the caller says."""

    key_id: ResourceUri
    reference: str
    algorithm: Algorithm


class KeyIdParams(NamedTuple):
    """No key: one that the provider has or makes; ``key_id`` None leaves its name to it, too."""

    key_id: ResourceUri | None
    algorithm: Algorithm


WrapParams = SampleParams | FileParams | StoreParams | KeyIdParams


def parse_params(text: str) -> WrapParams:
    """Read the parameters. Raises ``InputError`` that names the word at fault."""
    if text in {"", "Enabled"}:  # ocicrypt sends 'Enabled' for a bare provider:<name>
        raise InputError("the encryption parameters are empty", PARAMETERS_HINT)
    if len(text) > MAX_PARAMETERS:
        raise InputError(f"the encryption parameters have more than {MAX_PARAMETERS} characters")
    fields = _fields(text)
    algorithm = parse_algorithm(fields.get("algorithm", Algorithm.A256GCM), "algorithm")
    if _sample(fields):
        _refuse_beside_sample(fields)
        return SampleParams(algorithm)
    key_path, kek_from = fields.get("keypath"), fields.get("kekfrom")
    if key_path is not None and kek_from is not None:
        raise InputError("keypath and kekfrom exclude each other", PARAMETERS_HINT)
    if key_path == "":
        raise InputError("keypath is empty", PARAMETERS_HINT)
    if key_path is not None and "\0" in key_path:
        raise InputError("keypath has a NUL character", PARAMETERS_HINT)
    key_id = parse_key_id(fields["keyid"]) if "keyid" in fields else None
    if key_path is None and kek_from is None:
        return KeyIdParams(key_id, algorithm)
    if key_id is None:
        raise InputError(
            "keyid is missing: the packet must say where a guest finds the key", PARAMETERS_HINT
        )
    if kek_from is not None:
        return StoreParams(key_id, kek_from, algorithm)
    return FileParams(key_id, key_path or "", algorithm)


def _fields(text: str) -> dict[str, str]:
    starts = list(_FIELD_START.finditer(text))
    if not starts or starts[0].end() != 0:
        raise InputError(f"encryption parameters {shown(text)} are not k=v::k=v", PARAMETERS_HINT)
    ends = [start.start() for start in starts[1:]] + [len(text)]
    fields: dict[str, str] = {}
    for start, end in zip(starts, ends, strict=True):
        name, _, value = text[start.end() : end].partition("=")
        if name not in _NAMES:
            raise InputError(f"parameter {shown(name)} is unknown", PARAMETERS_HINT)
        if name in fields:
            raise InputError(f"parameter '{name}' is given twice", PARAMETERS_HINT)
        fields[name] = value
    return fields


def _sample(fields: dict[str, str]) -> bool:
    value = fields.get("sample", "false")
    if value not in {"true", "false"}:
        raise InputError(f"sample is {shown(value)}, not true or false", PARAMETERS_HINT)
    return value == "true"


def _refuse_beside_sample(fields: dict[str, str]) -> None:
    for name in ("keyid", "keypath", "kekfrom"):
        if name in fields:
            raise InputError(
                f"sample=true and {name} exclude each other",
                f"leave sample out to use your own key, or leave {name} out for a trial",
            )
