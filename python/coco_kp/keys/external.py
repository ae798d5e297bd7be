"""KEKs that stand wrapped in their own key ID: ``kbs+external:///BACKEND/NAME?ct=<ciphertext>``.

A guest asks its KBS for exactly that, query included; the KBS hands it to its external plugin,
which has the KMS or HSM unwrap the KEK. Nothing is stored in the KBS. The ciphertext is bound to
NAME, so that one name's does not open under another, whose policy may let others in.
"""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64encode
from typing import Final

from coco_kp.crypto import Kek
from coco_kp.errors import InputError
from coco_kp.keys.kek import kek_of
from coco_kp.keys.stores.interface import WrappingKey
from coco_kp.model.resource_uri import EXTERNAL, MAX_LENGTH, ResourceUri
from coco_kp.redact import shown
from coco_kp.values import replace

MAX_CIPHERTEXT: Final = 720
"""Bytes of a wrapped KEK at the most: what a key ID has room for."""

CONTEXT: Final = "coco-kp"
"""The member of the context that binds a wrapped KEK to its name."""

_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")
_MEMBER: Final = "ct="


def wrap_new_kek(kid: ResourceUri, key: WrappingKey) -> tuple[ResourceUri, Kek]:
    """Draw a KEK and have it wrapped for a name. Return its key ID, and the KEK.

    Raises ``InputError`` for a key ID of another form, and what ``key`` raises.
    """
    context, kek = _context(kid), Kek.generate()
    if kid.query:
        raise InputError(f"'{kid}' has a query: the wrapped key goes there")
    return wrapped_kid(kid, key.encrypt(kek.raw(), context)), kek


def unwrap(kid: ResourceUri, key: WrappingKey) -> Kek:
    """Have the KEK of a key ID unwrapped. Raises ``InputError``, and what ``key`` raises."""
    raw = key.decrypt(ciphertext_of(kid), _context(kid))
    return kek_of(raw, "what the key ID wraps")


def wrapped_kid(kid: ResourceUri, ciphertext: bytes) -> ResourceUri:
    """Return the key ID with a wrapped KEK in it. Raises ``InputError`` if that is too long."""
    text = urlsafe_b64encode(ciphertext).rstrip(b"=").decode()
    wrapped = replace(kid, query=f"{_MEMBER}{text}")
    if len(str(wrapped)) > MAX_LENGTH:
        raise InputError(
            f"a key ID has at most {MAX_LENGTH} characters, and the wrapped key needs {len(text)}",
            "wrap with a symmetric key, or choose a shorter name",
        )
    return wrapped


def ciphertext_of(kid: ResourceUri) -> bytes:
    """Return the wrapped KEK in a key ID. Raises ``InputError``."""
    wrapped = kid.plugin == EXTERNAL and kid.query.startswith(_MEMBER)
    return parse_ciphertext(kid.query.removeprefix(_MEMBER) if wrapped else "")


def parse_ciphertext(text: str) -> bytes:
    """Read ``ct``: base64url without padding, in its one spelling. Raises ``InputError``."""
    try:
        if not _BASE64URL.fullmatch(text):
            raise ValueError(text)
        padded = text + "=" * (-len(text) % 4)
        found = binascii.a2b_base64(padded.replace("-", "+").replace("_", "/"), strict_mode=True)
        if urlsafe_b64encode(found).rstrip(b"=").decode() != text:
            raise ValueError(text)
    except ValueError:
        raise InputError("the key ID holds no wrapped key: ct is not base64url") from None
    if len(found) > MAX_CIPHERTEXT:
        raise InputError(f"the wrapped key has more than {MAX_CIPHERTEXT} bytes")
    return found


def context_of(name: tuple[str, ...]) -> dict[str, str]:
    """Return the context for a name: the parts of the path behind the backend's."""
    return {CONTEXT: "/".join(name)}


def _context(kid: ResourceUri) -> dict[str, str]:
    if kid.plugin != EXTERNAL or len(kid.segments) < 2:
        raise InputError(
            f"key ID {shown(str(kid))} names no key of a KBS plugin",
            "write kbs+external:///coco-kp/NAME",
        )
    return context_of(kid.segments[1:])
