"""Which KBC opens a packet: ``<name>[::<uri>]`` (docs/protocols.md 4)."""

from __future__ import annotations

from typing import Final, NamedTuple

from coco_kp.errors import InputError
from coco_kp.redact import shown

KBC_NAMES: Final = ("sample", "offline_fs", "offline_sev", "online_sev", "cc", "eaa")
"""The six KBCs of the guide; each may also be written with ``_kbc`` behind it."""


class KbcSpec(NamedTuple):
    """Which KBC, and where.

    Attributes:
        name: ``sample``, ``offline_fs``, ``offline_sev``, ``online_sev``, ``cc`` or ``eaa``.
        uri: Its address; empty where none was given, or ``null``.
    """

    name: str
    uri: str

    def __str__(self) -> str:
        """Return the form that decryption parameters have."""
        return f"{self.name}_kbc::{self.uri or 'null'}"


def parse_kbc_spec(text: str) -> KbcSpec:
    """Read ``name[_kbc][::uri]``, as decryption parameters have it (docs/protocols.md 4).

    The URI is all behind the first ``::``; ``null`` means none.

    Raises:
        InputError: The KBC is unknown, or its address empty.
    """
    name, separator, uri = text.partition("::")
    name = name.removesuffix("_kbc")
    hint = "write <name>_kbc::<uri>, with one of " + ", ".join(KBC_NAMES)
    if name not in KBC_NAMES:
        raise InputError(f"KBC {shown(name)} is unknown", hint)
    if separator and not uri:
        raise InputError(f"KBC '{name}' has an empty address", f"{hint}; null means none")
    return KbcSpec(name, "" if uri == "null" else uri)
