"""The messages of Verdictd, the broker that decrypts itself and keeps the KEK.

Each is one JSON text in one TLS record. Source: docs/protocols.md 4 (eaa), as the real Verdictd was
seen to behave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from coco_kp.errors import InputError, KekError, RemoteError
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.encoding import decode_base64, encode_base64, parse_json_object, write_json
from coco_kp.redact import shown

if TYPE_CHECKING:
    from coco_kp.model.packet import AnnotationPacket

MAX_REQUEST: Final = 4096
"""Bytes that Verdictd reads of a request; a longer one makes it hang up."""

MAX_ANSWER: Final = 16 * 1024
"""Bytes of an answer: what a TLS record holds."""

_KEY_BITS: Final = 256
_AES: Final = "AES"  # Verdictd's only name for AES-256-GCM with a 12-byte IV, tag appended, no AAD


def decrypt_request(packet: AnnotationPacket) -> bytes:
    """Ask for the content of a packet. Raises ``KekError`` for one that Verdictd cannot open.

    The packet's own ``wrap_type`` must not be sent: Verdictd answers it with "parameters error".
    """
    if packet.wrap_type is not Algorithm.A256GCM:
        raise KekError(
            f"a packet of {packet.wrap_type} cannot be opened through eaa",
            "Verdictd knows A256GCM only; encrypt with algorithm=A256GCM",
        )
    blob = {
        "kid": packet.kid.path,
        "encrypted_data": encode_base64(packet.wrapped_data),
        "algorithm": _AES,
        "key_length": _KEY_BITS,
        "iv": encode_base64(packet.iv),
    }
    message = write_json({"command": "Decrypt", "blobs": [blob]})
    if len(message) > MAX_REQUEST:
        raise InputError(
            f"the packet is too long for Verdictd: {len(message)} bytes, at most {MAX_REQUEST}"
        )
    return message


def parse_decrypted(answer: bytes, packet: AnnotationPacket) -> bytes:
    """Read what the packet held out of the answer. Raises ``KekError`` or ``RemoteError``."""
    try:
        document = parse_json_object(answer, "the answer of Verdictd", MAX_ANSWER)
    except InputError as error:
        raise RemoteError(error.message, "is it a Verdictd that answers here?") from error
    if document.get("status") != "OK":
        raise KekError(
            f"Verdictd did not open the packet of '{packet.kid}': "
            f"{shown(str(document.get('error')))}",
            f"its key must be in the file opt/verdictd/keys/{packet.kid.path} of Verdictd, and be "
            "the one that the image was encrypted with",
        )
    data = document.get("data")
    plain = data.get(encode_base64(packet.wrapped_data)) if isinstance(data, dict) else None
    if not isinstance(plain, str):
        raise RemoteError("Verdictd answered something else than it was asked")
    try:
        return decode_base64(plain, "the answer of Verdictd")
    except InputError as error:
        raise RemoteError(error.message) from None
