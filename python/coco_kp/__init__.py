"""Container images that only an attested Confidential Containers guest can open.

Encrypt an image with a new key that a file keeps, then prove that whoever has that file can open
all of it:

```python
import coco_kp

kid = coco_kp.parse_key_id("kbs:///default/key/app")  # by which guests ask for the key
file = coco_kp.parse_kek_reference("file:app.key")  # where it is kept
new = coco_kp.resolve(coco_kp.NewKek((file,)), kid)
result = coco_kp.encrypt_image("oci:app", "oci:app-encrypted", [new])
print(result.digest)

key = coco_kp.opener(coco_kp.FetchedKek(file))
report = coco_kp.verify_image("oci:app-encrypted", [key])
if report.failure:
    raise report.failure
```

## Which function when

- ``encrypt_image`` makes an encrypted image of a readable one. ``Rules`` say what may stay
  readable: by default nothing. Before the image gets its name every packet is opened again.
- ``verify_image`` reads all of an image and says whether it may be deployed. What is wrong is in
  the report, and nothing is raised for it: look at its ``failure``.
- ``rewrap_image`` changes who can open an encrypted image, and touches no layer: another key for
  an old one, one key more, one key less.
- ``decrypt_image`` makes the readable image again: layers and config are as they were.
- ``inspect_image`` says what is encrypted, and for whom. It needs no key and reads no layer.

Images are named as skopeo names them: ``docker://registry.example/app:1``, ``oci:directory``,
``oci-archive:file``, ``docker-archive:file``, ``dir:directory``.

## Keys

A layer's key is made with the layer, and wrapped with a key-encryption key of 32 bytes (KEK), which
guests get from a Key Broker Service (KBS) under a key ID.

- One that is a file or in your hands: ``read_kek`` or ``Kek``, in a ``KekRecipient`` to encrypt and
  a ``KekOpener`` to open. ``Kek.generate`` makes one that nobody keeps: write its ``raw`` bytes
  somewhere before you encrypt with it.
- One in Vault, AWS or an HSM, or one that is yet to be made and kept there: ``parse_kek_reference``
  names it, ``FetchedKek`` or ``NewKek`` says what to do, ``resolve`` makes a recipient of that, and
  ``opener`` an opener, which is to be closed.
- One that never leaves its KMS or HSM: ``parse_wrapping_reference`` and ``StayingKey``.
- As a guest gets it, by a KBC: ``KbcOpener`` and ``Kbcs``, which is to be closed.

A new key is kept before the image that needs it has a name. No key is in a message, a repr or the
log. The core wipes what it drops; Python cannot wipe ``bytes``, such as those that ``raw`` returns.

## Threads

Each function returns when its work is done, on up to ``jobs`` layers at a time, in threads of its
own. Several may run at once, with the same recipients and openers; from ``asyncio`` call them by
``asyncio.to_thread``. The methods of a ``Progress`` are called by several threads at once.

## Cancellation

Give a call a ``Cancellation`` as ``cancel``: ``cancel()`` ends it from another thread, and it
raises ``CancelledError``. What a method of a ``Progress`` raises ends the work, too, and so does
``KeyboardInterrupt``. However a call ends early, the destination's name stays where it was, and
what was written is removed; a registry may keep blobs without a name, which the error then names,
and what came of a broken upload, until it collects its garbage.

## Errors

What goes wrong outside the program is a ``CocoKpError``: its class says who is at fault, its
``code`` what the fault is, its ``hint`` what to do about it. Arguments that contradict each other,
and words that are unknown, are a ``ValueError`` or ``TypeError``.

## Stability

Public is what ``coco_kp.__all__`` names, the modules below are not. Versions follow
[Semantic Versioning](https://semver.org): before 1.0 a minor version may change what is public, and
the changelog says so. An error's ``code`` never changes. ``import coco_kp`` loads nothing, each
name only what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from coco_kp.crypto import Kek
    from coco_kp.errors import (
        CancelledError,
        CocoKpError,
        InputError,
        IntegrityError,
        KekError,
        RefusedError,
        RemoteError,
    )
    from coco_kp.image.cancellation import Cancellation
    from coco_kp.image.decrypt import DecryptionResult, decrypt_image
    from coco_kp.image.encrypt import encrypt_image
    from coco_kp.image.facts import PacketFacts
    from coco_kp.image.inspect import (
        InspectedImage,
        InspectedLayer,
        Inspection,
        MissingImage,
        inspect_image,
    )
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
    from coco_kp.image.verdicts import LayerVerdict, RecipientVerdict, VerificationReport
    from coco_kp.image.verify import VerificationRules, verify_image
    from coco_kp.kbc.cc import cc_kbc
    from coco_kp.kbc.eaa import eaa_kbc
    from coco_kp.kbc.injected_secret import InjectedSecrets
    from coco_kp.kbc.kbcs import Kbc, Kbcs
    from coco_kp.kbc.offline_fs import offline_fs_kbc
    from coco_kp.kbc.offline_sev import offline_sev_kbc
    from coco_kp.kbc.online_sev import online_sev_kbc
    from coco_kp.keys.file_reference import KekReference
    from coco_kp.keys.kek_file import KekFile, read_kek
    from coco_kp.keys.reference import (
        WrappingReference,
        parse_kek_reference,
        parse_wrapping_reference,
    )
    from coco_kp.keys.registrar import KeyRegistrar
    from coco_kp.keys.resolve import (
        FetchedKek,
        GivenKek,
        KeySettings,
        NewKek,
        SampleKek,
        StayingKey,
        opener,
        resolve,
    )
    from coco_kp.keys.wrapper import (
        KekOpener,
        KekRecipient,
        KeyOpener,
        KeyWrapper,
        Opener,
        PacketForm,
        Recipient,
        sample_recipient,
    )
    from coco_kp.model.algorithm import Algorithm
    from coco_kp.model.digest import Digest, parse_digest
    from coco_kp.model.kbc_spec import KbcSpec, parse_kbc_spec
    from coco_kp.model.layer_encryption import LayerPacket
    from coco_kp.model.layer_options import PrivateOptions
    from coco_kp.model.manifest import Platform
    from coco_kp.model.packet import AnnotationPacket
    from coco_kp.model.resource_uri import ResourceUri, parse_key_id
    from coco_kp.transport.access import Access, Credentials
    from coco_kp.transport.registry.session import Session

__all__ = [
    "Access",
    "Algorithm",
    "AnnotationPacket",
    "Cancellation",
    "CancelledError",
    "Changes",
    "CocoKpError",
    "Credentials",
    "DecryptionResult",
    "Digest",
    "EncryptionResult",
    "FetchedKek",
    "GivenKek",
    "ImageResult",
    "InjectedSecrets",
    "InputError",
    "InspectedImage",
    "InspectedLayer",
    "Inspection",
    "IntegrityError",
    "Kbc",
    "KbcOpener",
    "KbcSpec",
    "Kbcs",
    "Kek",
    "KekError",
    "KekFile",
    "KekOpener",
    "KekRecipient",
    "KekReference",
    "KeyOpener",
    "KeyRegistrar",
    "KeySettings",
    "KeyWrapper",
    "LayerAction",
    "LayerPacket",
    "LayerResult",
    "LayerVerdict",
    "LeftOut",
    "MissingImage",
    "NewKek",
    "Opener",
    "PacketFacts",
    "PacketForm",
    "Platform",
    "PrivateOptions",
    "Progress",
    "Recipient",
    "RecipientVerdict",
    "RefusedError",
    "RemoteError",
    "ResourceUri",
    "RewrapResult",
    "RewrappedImage",
    "RewrappedLayer",
    "Rules",
    "SampleKek",
    "Session",
    "StayingKey",
    "VerificationReport",
    "VerificationRules",
    "WrappingReference",
    "cc_kbc",
    "decrypt_image",
    "eaa_kbc",
    "encrypt_image",
    "inspect_image",
    "offline_fs_kbc",
    "offline_sev_kbc",
    "online_sev_kbc",
    "opener",
    "parse_digest",
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
        "CancelledError",
        "CocoKpError",
        "InputError",
        "IntegrityError",
        "KekError",
        "RefusedError",
        "RemoteError",
    ),
    "image.cancellation": ("Cancellation",),
    "image.decrypt": ("DecryptionResult", "decrypt_image"),
    "image.encrypt": ("encrypt_image",),
    "image.facts": ("PacketFacts",),
    "image.inspect": (
        "InspectedImage",
        "InspectedLayer",
        "Inspection",
        "MissingImage",
        "inspect_image",
    ),
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
    "image.verdicts": ("LayerVerdict", "RecipientVerdict", "VerificationReport"),
    "image.verify": ("VerificationRules", "verify_image"),
    "kbc.cc": ("cc_kbc",),
    "kbc.eaa": ("eaa_kbc",),
    "kbc.injected_secret": ("InjectedSecrets",),
    "kbc.kbcs": ("Kbc", "Kbcs"),
    "kbc.offline_fs": ("offline_fs_kbc",),
    "kbc.offline_sev": ("offline_sev_kbc",),
    "kbc.online_sev": ("online_sev_kbc",),
    "keys.file_reference": ("KekReference",),
    "keys.kek_file": ("KekFile", "read_kek"),
    "keys.reference": ("WrappingReference", "parse_kek_reference", "parse_wrapping_reference"),
    "keys.registrar": ("KeyRegistrar",),
    "keys.resolve": (
        "FetchedKek",
        "GivenKek",
        "KeySettings",
        "NewKek",
        "SampleKek",
        "StayingKey",
        "opener",
        "resolve",
    ),
    "keys.wrapper": (
        "KekOpener",
        "KekRecipient",
        "KeyOpener",
        "KeyWrapper",
        "Opener",
        "PacketForm",
        "Recipient",
        "sample_recipient",
    ),
    "model.algorithm": ("Algorithm",),
    "model.digest": ("Digest", "parse_digest"),
    "model.kbc_spec": ("KbcSpec", "parse_kbc_spec"),
    "model.layer_encryption": ("LayerPacket",),
    "model.layer_options": ("PrivateOptions",),
    "model.manifest": ("Platform",),
    "model.packet": ("AnnotationPacket",),
    "model.resource_uri": ("ResourceUri", "parse_key_id"),
    "transport.access": ("Access", "Credentials"),
    "transport.registry.session": ("Session",),
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
