"""ocicrypt's option documents of a layer (docs/protocols.md 1.3 and 1.4).

The private one holds the layer's key and is what gets wrapped; the public one stands in clear in
the annotation ``org.opencontainers.image.enc.pubopts``.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from coco_kp.errors import InputError
from coco_kp.model.encoding import (
    check_one_reading,
    decode_base64,
    encode_base64,
    member,
    parse_json_object,
    write_json,
)
from coco_kp.redact import shown
from coco_kp.values import dataclass, field

CIPHER: Final = "AES_256_CTR_HMAC_SHA256"
"""The only cipher that ocicrypt defines."""

MAX_DOCUMENT: Final = 64 * 1024
"""Bytes of an option document at the most; real ones have 193."""

_PRIVATE_MEMBERS: Final = ("symkey", "digest", "cipheroptions")
_PUBLIC_MEMBERS: Final = ("cipher", "hmac", "cipheroptions")
_CIPHER_OPTIONS: Final = ("nonce",)

_DIGEST: Final = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[0-9a-fA-F]{32,}")


@dataclass(frozen=True, slots=True)
class PrivateOptions:
    """What is needed to open a layer; what a packet holds. No repr shows the secrets.

    Attributes:
        symkey: The layer's key (LEK), 32 raw bytes, secret.
        nonce: 16 raw bytes, secret.
        digest: Of the layer's bytes before encryption (``sha256:<hex>``); empty where the encryptor
            did not know it.
    """

    symkey: bytes = field(repr=False)
    nonce: bytes = field(repr=False)
    digest: str

    def to_json(self) -> bytes:
        """Write the document as Go's encoder does: 193 bytes with a SHA-256 digest."""
        return write_json(
            {
                "symkey": encode_base64(self.symkey),
                "digest": self.digest,
                "cipheroptions": {"nonce": encode_base64(self.nonce)},
            }
        )


class PublicOptions(NamedTuple):
    """What everybody may know of an encrypted layer: ``hmac``, 32 raw bytes."""

    hmac: bytes

    def to_json(self) -> bytes:
        """Write the document as Go's encoder does."""
        return write_json({"cipher": CIPHER, "hmac": encode_base64(self.hmac), "cipheroptions": {}})


def parse_private_options(data: bytes, *, exact: bool = False) -> PrivateOptions:
    """Read the private document; all three members must be there, as guests demand.

    ``exact``: there may be no other members, either. Raises ``InputError``; its text holds nothing
    of the document.
    """
    what = "the layer's private options"
    document = parse_json_object(data, what, MAX_DOCUMENT)
    options = member(document, "cipheroptions", dict, what)
    check_one_reading(document, _PRIVATE_MEMBERS, what)
    check_one_reading(options, _CIPHER_OPTIONS, f"'cipheroptions' of {what}")
    for name in options:
        member(options, name, str, f"'cipheroptions' of {what}")
    if exact and (set(document) != set(_PRIVATE_MEMBERS) or set(options) != set(_CIPHER_OPTIONS)):
        raise InputError(f"{what} have a member that nobody writes")
    digest = member(document, "digest", str, what)
    if digest and not _DIGEST.fullmatch(digest):
        raise InputError(f"'digest' of {what} is not <algorithm>:<hex>")
    return PrivateOptions(
        symkey=_bytes_member(document, "symkey", 32, what),
        nonce=_bytes_member(options, "nonce", 16, f"'cipheroptions' of {what}"),
        digest=digest,
    )


def parse_public_options(data: bytes) -> PublicOptions:
    """Read the public document. Raises ``InputError``.

    A nonce in it is refused: ocicrypt would prefer it to the secret one, and decrypt to garbage
    without an error (docs/protocols.md 1.4).
    """
    what = "the layer's public options"
    document = parse_json_object(data, what, MAX_DOCUMENT)
    check_one_reading(document, _PUBLIC_MEMBERS, what)
    cipher = member(document, "cipher", str, what)
    if cipher != CIPHER:
        raise InputError(f"cipher {shown(cipher)} is unknown", f"only {CIPHER} is defined")
    options = document.get("cipheroptions")
    if options is not None and options != {}:  # Go reads null as well
        raise InputError(
            "the layer's public options hold cipher options in clear",
            "a nonce there makes decryption yield garbage: somebody altered this image",
        )
    return PublicOptions(hmac=_bytes_member(document, "hmac", 32, what))


def _bytes_member(document: dict[str, object], name: str, size: int, what: str) -> bytes:
    data = decode_base64(member(document, name, str, what), f"'{name}' of {what}")
    if len(data) != size:
        raise InputError(f"'{name}' of {what} has {len(data)} bytes, not {size}")
    return data
