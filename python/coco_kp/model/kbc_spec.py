"""Which KBC opens a packet: ``<name>[::<uri>]`` (docs/protocols.md 4)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

from coco_kp.errors import InputError
from coco_kp.redact import shown

KBC_NAMES: Final = ("sample", "offline_fs", "offline_sev", "online_sev", "cc", "eaa")
"""Our own; each may also be written with ``_kbc`` behind it. Callers of a provider may name any of
them, at any address."""


class KbcSpec(NamedTuple):
    """Which KBC, and where.

    Attributes:
        name: ``sample``, ``offline_fs``, ``offline_sev``, ``online_sev``, ``cc``, ``eaa``, or that
            of a plug-in.
        uri: Its address; empty where none was given, or ``null``.
    """

    name: str
    uri: str

    def __str__(self) -> str:
        """Return the form that decryption parameters have."""
        return f"{self.name}_kbc::{self.uri or 'null'}"


def parse_kbc_spec(text: str, plugins: Collection[str] = ()) -> KbcSpec:
    """Read ``name[_kbc][::uri]``, as decryption parameters have it (docs/protocols.md 4).

    The URI is all behind the first ``::``; ``null`` means none.

    Args:
        text: A KBC, and where it is.
        plugins: The names of plug-ins that may be named beside ours.

    Raises:
        InputError: The KBC is unknown, or its address empty.
    """
    name, separator, uri = text.partition("::")
    name = name.removesuffix("_kbc")
    hint = "write <name>_kbc::<uri>, with one of " + ", ".join(
        dict.fromkeys((*KBC_NAMES, *plugins))
    )
    if name not in KBC_NAMES and name not in plugins:
        raise InputError(f"KBC {shown(name)} is unknown", hint, code="kbc-unknown")
    if separator and not uri:
        raise InputError(f"KBC '{name}' has an empty address", f"{hint}; null means none")
    return KbcSpec(name, "" if uri == "null" else uri)
