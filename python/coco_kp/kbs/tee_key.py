"""The key pair to which a KBS encrypts its answers (docs/protocols.md 5.3 and 5.5).

It is bound into the evidence, so that only who was attested can read what the KBS sends. One is
made for each session and never leaves memory.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwcrypto.common import JWException  # type: ignore[import-untyped]
from jwcrypto.jwe import JWE  # type: ignore[import-untyped]
from jwcrypto.jwk import JWK  # type: ignore[import-untyped]

from coco_kp.errors import InputError, IntegrityError, RemoteError
from coco_kp.model.encoding import parse_json_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coco_kp.model.rcar import Jwk

KINDS: Final = ("P-256", "P-521", "RSA-OAEP-256")
"""The kinds of key that current KBS releases encrypt to. RSA1_5 is left out: it is broken."""

_RSA_BITS: Final = 3072
_MEMBERS: Final = frozenset({"protected", "encrypted_key", "iv", "ciphertext", "tag"})
_CONTENT: Final = "A256GCM"
_HEADER_LIMIT: Final = 4096  # bytes


class TeeKey:
    """A private key and what a KBS needs to know of it. Its repr shows neither."""

    __slots__ = ("_key", "algorithm", "public")

    algorithm: str
    """The JWE algorithm that goes with the key."""
    public: Jwk
    """The public key, with the members that the KBS hashes and no others."""

    def __init__(self, private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
        self._key = JWK.from_pyca(private)
        members = self._key.export_public(as_dict=True)
        is_rsa = isinstance(private, rsa.RSAPrivateKey)
        self.algorithm = "RSA-OAEP-256" if is_rsa else "ECDH-ES+A256KW"
        names = ("kty", "n", "e") if is_rsa else ("kty", "crv", "x", "y")
        self.public = {"alg": self.algorithm} | {name: members[name] for name in names}

    @classmethod
    def generate(cls, kind: str = "P-256") -> TeeKey:
        """Make a key of one of ``KINDS``. Raises ``ValueError``."""
        match kind:
            case "P-256":
                return cls(ec.generate_private_key(ec.SECP256R1()))
            case "P-521":
                return cls(ec.generate_private_key(ec.SECP521R1()))
            case "RSA-OAEP-256":
                return cls(rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS))
        raise ValueError(f"unknown kind of TEE key {kind!r}, accepted: {', '.join(KINDS)}")

    @classmethod
    def from_pem(cls, pem: str) -> TeeKey:
        """Take the key pair that an attestation agent hands out with its token.

        Raises ``RemoteError``.
        """
        try:
            private = load_pem_private_key(pem.encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            private = None
        if isinstance(private, rsa.RSAPrivateKey) or (
            isinstance(private, ec.EllipticCurvePrivateKey)
            and isinstance(private.curve, ec.SECP256R1 | ec.SECP521R1)
        ):
            return cls(private)
        raise RemoteError(
            "the attestation agent's key pair is not a private key that can be used",
            f"accepted as PEM: {', '.join(KINDS)}",
        )

    def open(self, answer: Mapping[str, object]) -> bytes:
        """Decrypt the answer of a KBS: a flattened JWE.

        Only the algorithms of this very key are accepted, whatever the answer names. Raises
        ``RemoteError`` for another form, ``IntegrityError`` if it does not decrypt.
        """
        if answer.keys() != _MEMBERS or not all(isinstance(v, str) for v in answer.values()):
            raise RemoteError(
                "the KBS's answer is not an encrypted resource",
                f"expected a JSON object of the texts {', '.join(sorted(_MEMBERS))}",
            )
        token = JWE(algs=[self.algorithm, _CONTENT])
        try:
            token.deserialize(json.dumps(dict(answer)))
            self._check_header(token.objects["protected"])
            token.decrypt(self._key)
        except (JWException, ValueError, InputError) as error:
            if token.plaintext == b"":
                return b""  # decrypted, tag and all: only the library wants more
            raise IntegrityError(
                "the KBS's answer does not decrypt with the key of this session",
                "the answer was altered on its way, or meant for another client",
            ) from error
        return bytes(token.payload)

    def _check_header(self, protected: str) -> None:
        """Let nothing pass but what a KBS writes: the library raises what it likes for the rest."""
        header = parse_json_object(protected, "the header", _HEADER_LIMIT)
        expected: dict[str, object] = {"alg": self.algorithm, "enc": _CONTENT}
        if "crv" in self.public:
            epk = header.get("epk")
            if (
                not isinstance(epk, dict)
                or epk.keys() != self.public.keys() - {"alg"}
                or (epk["kty"], epk["crv"]) != (self.public["kty"], self.public["crv"])
                or not (isinstance(epk["x"], str) and isinstance(epk["y"], str))
            ):
                raise ValueError
            expected["epk"] = epk
        if header != expected:
            raise ValueError

    def __repr__(self) -> str:
        return f"<TeeKey {self.algorithm}>"
