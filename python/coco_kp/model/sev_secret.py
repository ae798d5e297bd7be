"""The secrets of SEV guests, as bytes: what is injected at launch, what simple-kbs answers.

Source: docs/protocols.md 4 (online_sev).
"""

from __future__ import annotations

import uuid
from typing import Final

from coco_kp.errors import InputError, RemoteError
from coco_kp.model.encoding import decode_base64, member, parse_json_object
from coco_kp.values import dataclass, field

KEYS_GUID: Final = "e6f5a162-d67f-4750-a67c-5d065f2a9910"
"""The injected secret that holds keys, in the form of a keys file."""

CONNECTION_GUID: Final = "1ee27366-0c87-43a6-af48-28543eaf7cb0"
"""The injected secret that holds a connection to simple-kbs."""

CONNECTION_KEY_SIZE: Final = 32

_MAX_CONNECTION: Final = 4096  # bytes
_MAX_ENTRIES: Final = 16  # of an answer; one is asked for


@dataclass(frozen=True, slots=True)
class SevConnection:
    """Who a guest is to simple-kbs, and the raw key under which that answers."""

    client_id: str
    key: bytes = field(repr=False)

    @classmethod
    def parse(cls, data: bytes, what: str) -> SevConnection:
        """Read the injected document; ``what`` names it in errors. Raises ``InputError``."""
        document = parse_json_object(data, what, _MAX_CONNECTION)
        client_id = member(document, "client_id", str, what)
        try:
            uuid.UUID(client_id)
        except ValueError:
            raise InputError(f"'client_id' of {what} is not a UUID") from None
        key = decode_base64(member(document, "key", str, what), f"'key' of {what}")
        if len(key) != CONNECTION_KEY_SIZE:
            raise InputError(
                f"'key' of {what} has {len(key)} bytes; expected {CONNECTION_KEY_SIZE}"
            )
        return cls(client_id, key)


def parse_secret_map(data: bytes) -> dict[str, bytes]:
    """Read a decrypted answer: bincode 1.3 of a map from the request's Guid to the secret.

    Every length is an unsigned 64-bit little-endian number: of entries, then for each entry of its
    name and of its value. Raises ``RemoteError``; its text holds nothing of the data.
    """
    rest = memoryview(data)

    def take(size: int) -> bytes:
        nonlocal rest
        if size > len(rest):
            raise RemoteError("the answer of simple-kbs ends early")
        piece, rest = bytes(rest[:size]), rest[size:]
        return piece

    def number() -> int:
        return int.from_bytes(take(8), "little")

    entries = number()
    if entries > _MAX_ENTRIES:
        raise RemoteError(f"the answer of simple-kbs has more than {_MAX_ENTRIES} entries")
    secrets: dict[str, bytes] = {}
    for _ in range(entries):
        name = take(number()).decode("utf-8", "replace")
        secrets[name] = take(number())
    if rest:
        raise RemoteError("the answer of simple-kbs does not end where it should")
    return secrets
