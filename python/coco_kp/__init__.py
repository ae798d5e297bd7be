"""Container images that only an attested Confidential Containers guest can open.

The library behind the commands: five functions, and what they take and return.

    import coco_kp

    key = coco_kp.KekRecipient(coco_kp.parse_key_id("kbs:///default/key/1"), coco_kp.Kek.generate())
    coco_kp.encrypt_image("oci:app", "docker://registry.example/app:1", [key])
    coco_kp.verify_image("docker://registry.example/app:1", [coco_kp.KekOpener(key.kek)])

Images are named as skopeo names them. Every error is a ``CocoKpError``. Nothing is loaded before it
is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from coco_kp.crypto import Kek
    from coco_kp.errors import (
        CocoKpError,
        InputError,
        IntegrityError,
        KekError,
        RefusedError,
        RemoteError,
    )
    from coco_kp.image.decrypt import DecryptionResult, decrypt_image
    from coco_kp.image.encrypt import encrypt_image
    from coco_kp.image.inspect import Inspection, inspect_image
    from coco_kp.image.opener import KbcOpener
    from coco_kp.image.plan import LayerAction, LeftOut, Rules
    from coco_kp.image.progress import Progress
    from coco_kp.image.results import (
        EncryptionResult,
        ImageResult,
        LayerResult,
        RewrappedImage,
        RewrappedLayer,
        RewrapResult,
    )
    from coco_kp.image.rewrap import Changes, rewrap_image
    from coco_kp.image.verdicts import VerificationReport
    from coco_kp.image.verify import VerificationRules, verify_image
    from coco_kp.kbc import KbcSettings
    from coco_kp.keys.kek_file import read_kek
    from coco_kp.keys.reference import parse_kek_reference, parse_wrapping_reference
    from coco_kp.keys.resolve import FetchedKek, KeySettings, NewKek, StayingKey, opener, resolve
    from coco_kp.keys.wrapper import (
        KekOpener,
        KekRecipient,
        KeyWrapper,
        Opener,
        PacketForm,
        Recipient,
        sample_recipient,
    )
    from coco_kp.model.kbc_spec import parse_kbc_spec
    from coco_kp.model.manifest import Platform
    from coco_kp.model.resource_uri import parse_key_id
    from coco_kp.transport.access import Access, Credentials

__all__ = [
    "Access",
    "Changes",
    "CocoKpError",
    "Credentials",
    "DecryptionResult",
    "EncryptionResult",
    "FetchedKek",
    "ImageResult",
    "InputError",
    "Inspection",
    "IntegrityError",
    "KbcOpener",
    "KbcSettings",
    "Kek",
    "KekError",
    "KekOpener",
    "KekRecipient",
    "KeySettings",
    "KeyWrapper",
    "LayerAction",
    "LayerResult",
    "LeftOut",
    "NewKek",
    "Opener",
    "PacketForm",
    "Platform",
    "Progress",
    "Recipient",
    "RefusedError",
    "RemoteError",
    "RewrapResult",
    "RewrappedImage",
    "RewrappedLayer",
    "Rules",
    "StayingKey",
    "VerificationReport",
    "VerificationRules",
    "decrypt_image",
    "encrypt_image",
    "inspect_image",
    "opener",
    "parse_kbc_spec",
    "parse_kek_reference",
    "parse_key_id",
    "parse_wrapping_reference",
    "read_kek",
    "resolve",
    "rewrap_image",
    "sample_recipient",
    "verify_image",
]

_MODULES: Final = {
    "crypto": ("Kek",),
    "errors": (
        "CocoKpError",
        "InputError",
        "IntegrityError",
        "KekError",
        "RefusedError",
        "RemoteError",
    ),
    "image.decrypt": ("DecryptionResult", "decrypt_image"),
    "image.encrypt": ("encrypt_image",),
    "image.inspect": ("Inspection", "inspect_image"),
    "image.opener": ("KbcOpener",),
    "image.plan": ("LayerAction", "LeftOut", "Rules"),
    "image.progress": ("Progress",),
    "image.results": (
        "EncryptionResult",
        "ImageResult",
        "LayerResult",
        "RewrapResult",
        "RewrappedImage",
        "RewrappedLayer",
    ),
    "image.rewrap": ("Changes", "rewrap_image"),
    "image.verdicts": ("VerificationReport",),
    "image.verify": ("VerificationRules", "verify_image"),
    "kbc": ("KbcSettings",),
    "keys.kek_file": ("read_kek",),
    "keys.reference": ("parse_kek_reference", "parse_wrapping_reference"),
    "keys.resolve": ("FetchedKek", "KeySettings", "NewKek", "StayingKey", "opener", "resolve"),
    "keys.wrapper": (
        "KekOpener",
        "KekRecipient",
        "KeyWrapper",
        "Opener",
        "PacketForm",
        "Recipient",
        "sample_recipient",
    ),
    "model.kbc_spec": ("parse_kbc_spec",),
    "model.manifest": ("Platform",),
    "model.resource_uri": ("parse_key_id",),
    "transport.access": ("Access", "Credentials"),
}

_MODULE_OF: Final = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    """Load what is asked for (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'coco_kp' has no attribute '{name}'")
    return getattr(import_module(f"coco_kp.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    """Name what there is."""
    return __all__
