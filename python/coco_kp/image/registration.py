"""What registering a key would do to images: a KBS has one key under a key ID, and replaces it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from coco_kp.errors import RefusedError
from coco_kp.keys.published import PublishedRecipient
from coco_kp.keys.wrapper import KeyWrapper, has_name, opens
from coco_kp.model.layer_encryption import LayerPacket
from coco_kp.redact import shown


def refuse_to_replace(keys: Sequence[KeyWrapper], packets: Iterable[LayerPacket]) -> None:
    """Raise ``RefusedError`` if a KBS would lose the key of one of these packets of an image.

    That another key has the key ID shows here, even where no record has it.
    """
    registered = [key for key in keys if isinstance(key, PublishedRecipient) and key.registrar]
    for packet in packets if registered else ():
        for key in registered:
            if has_name(packet, key.name) and not opens(key, packet):
                raise RefusedError(
                    f"the image needs another key of the key ID {shown(key.name)}, and registering "
                    "this one would replace that in the KBS",
                    "guests could not open what is encrypted with it any more: choose another key "
                    "ID",
                    code="registered-key-needed",
                )


def refuse_second_names(keys: Sequence[KeyWrapper]) -> None:
    """Raise what the second registration would, before there is a first one."""
    for key in keys:
        if isinstance(key, PublishedRecipient) and key.registrar:
            same = [
                other.kid
                for other in keys
                if isinstance(other, PublishedRecipient)
                and other.registrar
                and other.kek.fingerprint == key.kek.fingerprint
            ]
            key.registrar.check(key.kid, key.kek, beside=same)
