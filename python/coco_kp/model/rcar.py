"""The documents of RCAR, in which a KBS learns what it talks to (docs/protocols.md 5.3).

Request, challenge, attestation, response: a client names its TEE, gets a nonce, sends evidence that
binds the nonce and the public key to which the KBS will encrypt, and gets a token in return.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

from coco_kp.errors import RemoteError
from coco_kp.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

PROTOCOL_VERSION = "0.4.0"
"""The KBS wants exactly this one: its rule is semver ``=0.4.0``."""

Jwk = dict[str, str]
"""A public key as a JSON Web Key with exactly the members that the KBS hashes."""

_DEFAULT_HASH = "sha384"
_HASHES = ("sha256", "sha384", "sha512")
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")  # RFC 7515, compact


@dataclass(frozen=True, slots=True)
class Challenge:
    """What the KBS wants to see bound into the evidence.

    ``nonce`` is its text as received; ``hash_name`` is hashlib's name of the digest to bind.
    """

    nonce: str
    hash_name: str

    @classmethod
    def parse(cls, document: Mapping[str, object]) -> Challenge:
        """Read the answer to a request. Raises ``RemoteError``."""
        nonce = document.get("nonce")
        if not isinstance(nonce, str) or not nonce or not nonce.isascii():
            raise RemoteError("the challenge of the KBS has no nonce")
        extra = document.get("extra-params")
        selected = extra.get("selected-hash-algorithm") if isinstance(extra, dict) else None
        hash_name = str(selected or _DEFAULT_HASH).lower()
        if hash_name not in _HASHES:
            raise RemoteError(
                f"the KBS chose the hash {hash_name[:32]!r}, which was not offered",
                f"offered were {', '.join(_HASHES)}",
            )
        return cls(nonce, hash_name)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an attester has to show.

    ``primary`` is the TEE's own evidence, a JSON object of the attester's form. ``additional`` is
    the JSON text of a map from device to evidence, empty where there is no device.
    """

    primary: Mapping[str, object]
    additional: str = ""


def request(tee: str) -> bytes:
    """Write the first message: protocol version, TEE, and the hashes that we can compute."""
    return _canonical(
        {
            "version": PROTOCOL_VERSION,
            "tee": tee,
            "extra-params": {"supported-hash-algorithms": list(_HASHES)},
        }
    )


def device_report_data(challenge: Challenge, tee_pubkey: Jwk) -> bytes:
    """Digest that the evidence of a device (a GPU, say) must bind."""
    bound = {"nonce": challenge.nonce, "tee-pubkey": tee_pubkey}
    return hashlib.new(challenge.hash_name, _canonical(bound)).digest()


def report_data(challenge: Challenge, tee_pubkey: Jwk, additional: str) -> bytes:
    """Digest that the TEE's own evidence must bind: the devices' evidence is part of it."""
    bound = {
        "additional-evidence": additional,
        "nonce": challenge.nonce,
        "tee-pubkey": tee_pubkey,
    }
    return hashlib.new(challenge.hash_name, _canonical(bound)).digest()


def attestation(challenge: Challenge, tee_pubkey: Jwk, evidence: Evidence) -> bytes:
    """Write the third message."""
    return _canonical(
        {
            "init-data": None,
            "runtime-data": {"nonce": challenge.nonce, "tee-pubkey": tee_pubkey},
            "tee-evidence": {
                "primary_evidence": evidence.primary,
                "additional_evidence": evidence.additional,
            },
        }
    )


def parse_token(document: Mapping[str, object], sender: str) -> str:
    """Read the attestation token (a JWT, fit for a header) that ``sender`` answered with.

    Raises ``RemoteError``.
    """
    token = document.get("token")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise RemoteError(f"{sender} answered without an attestation token")
    return token


def _canonical(document: Mapping[str, object]) -> bytes:
    """Serialise by RFC 8785 (JCS).

    For objects, arrays, strings and null with ASCII member names, which is all that occurs here,
    that is what ``json`` writes: JCS differs in the spelling of numbers and in the order of
    member names beyond the basic plane.
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()
