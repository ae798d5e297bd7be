"""What a key reference names, opened: a store or a wrapping key."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Final, cast

from coco_kp.errors import InputError
from coco_kp.keys.file_reference import FileReference, KekReference
from coco_kp.keys.reference import (
    AwsKmsReference,
    AwsSecretReference,
    ExecReference,
    Pkcs11Reference,
    PluginReference,
    TransitReference,
    VaultReference,
    WrappingReference,
)
from coco_kp.keys.stores.interface import Store, WrappingKey
from coco_kp.plugins import PluginGroup

PLUGINS: Final = PluginGroup(
    "coco_kp.key_wrappers",
    kind="key wrapper",
    code="key-wrapper-unknown",
    builtin=("awskms", "hashivault", "pkcs11"),
    methods=("encrypt", "decrypt", "check"),
    optional=("close",),
)
"""By scheme, wrapping keys of other packages: functions that take the URI."""

_STORES: Final = {
    FileReference: "file",
    ExecReference: "exec",
    VaultReference: "vault",
    AwsSecretReference: "aws",
    Pkcs11Reference: "pkcs11",
}
_WRAPPING_KEYS: Final = {
    TransitReference: "vault",
    AwsKmsReference: "aws",
    Pkcs11Reference: "pkcs11",
}
_EXTRAS: Final = {"vault", "aws", "pkcs11"}
"""Modules here, each of which needs the extra of its name."""


def open_store(reference: KekReference) -> Store:
    """Return the store that a reference names; nothing is asked yet. Close it afterwards.

    Raises ``InputError`` where the extra that it needs is not installed.
    """
    module = _module(_STORES[type(reference)])
    return cast("Store", module.open_store(reference))


def open_wrapping_key(reference: WrappingReference) -> WrappingKey:
    """Return the wrapping key that a reference names; nothing is asked yet. Close it afterwards.

    Raises ``InputError`` for an unknown scheme, or where an extra is not installed.
    """
    if isinstance(reference, PluginReference):
        return cast("WrappingKey", PLUGINS.open(reference.scheme, reference.uri))
    module = _module(_WRAPPING_KEYS[type(reference)])
    return cast("WrappingKey", module.open_wrapping_key(reference))


def _module(name: str) -> ModuleType:
    try:
        return import_module(f"coco_kp.keys.stores.{name}")
    except ModuleNotFoundError as missing:
        if name not in _EXTRAS or (missing.name or "").startswith("coco_kp"):
            raise
        raise InputError(
            f"this kind of key reference needs the Python package {missing.name}",
            f"install it with: pip install 'coco-kp[{name}]'",
        ) from None
