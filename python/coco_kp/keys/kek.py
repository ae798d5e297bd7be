"""The one place where bytes become a KEK: 32 of them, or an error that says what they are."""

from __future__ import annotations

import binascii
import re
from typing import Literal

from coco_kp.crypto import KEK_SIZE, Kek
from coco_kp.errors import InputError, KekError
from coco_kp.model.encoding import decode_base64


def kek_of(raw: bytes, source: str, encoding_hint: str = "") -> Kek:
    """Return the KEK that ``raw`` is. ``source`` says in errors where it comes from.

    ``encoding_hint`` says how to have base64 decoded there. Raises ``KekError``.
    """
    if len(raw) == KEK_SIZE:
        return Kek(raw)
    expected = f"expected a {KEK_SIZE}-byte key in {source}"
    if not raw:
        raise KekError(f"{expected}, found nothing")
    hint = {
        "base64": encoding_hint or "it looks like base64: decode it first",
        "hex": "it looks like hex: store the 32 bytes themselves",
        "line break": "a line break follows the key",
        "PEM": "it looks like PEM; a KEK is 32 random bytes, for no public-key algorithm",
        "keys file": "it looks like a keys file, which holds several keys",
        "": "",
    }[resemblance(raw)]
    raise KekError(f"{expected}, found {len(raw)} bytes", hint)


def kek_of_base64(text: str, source: str) -> Kek:
    """Return the KEK that base64 text holds. Raises ``KekError``."""
    if resemblance(text.encode(errors="replace")) == "hex":  # which is base64, of 48 bytes
        raise KekError(
            f"expected a {KEK_SIZE}-byte key in base64 in {source}, found hex",
            "write it in base64: xxd -r -p key.hex | base64",
        )
    try:
        return kek_of(decode_base64(text, source), source)
    except InputError as error:
        raise error.blaming(KekError) from None


def resemblance(raw: bytes) -> Literal["base64", "hex", "line break", "PEM", "keys file", ""]:
    """Return what an invalid KEK looks like: one encoded, or before a line break, or other keys."""
    text = raw.strip()
    if _decodes_to_a_kek(text):
        return "base64"
    if re.fullmatch(rb"[0-9A-Fa-f]{64}", text):
        return "hex"
    if text.startswith(b"-----BEGIN "):
        return "PEM"
    if text.startswith(b"{"):
        return "keys file"
    return "line break" if raw[KEK_SIZE:] in {b"\n", b"\r\n"} else ""


def _decodes_to_a_kek(text: bytes) -> bool:
    try:
        return len(binascii.a2b_base64(text, strict_mode=True)) == KEK_SIZE
    except ValueError:
        return False
