"""The key pair of a session: the JWE of docs/protocols.md 5.5, right and wrong."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, PKCS1v15
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from coco_kp.errors import IntegrityError, RemoteError
from coco_kp.kbs.tee_key import KINDS, TeeKey
from tests.sim.kbs import decode, encode, encrypt, seal, wrapping_key

if TYPE_CHECKING:
    from collections.abc import Callable

COORDINATE_SIZES = {"P-256": 32, "P-521": 66}


@pytest.fixture(scope="module", params=KINDS)
def key(request: pytest.FixtureRequest) -> TeeKey:
    return TeeKey.generate(request.param)


def test_tee_key_opens_answer_encrypted_to_it(key: TeeKey) -> None:
    secret = os.urandom(32)
    assert key.open(encrypt(secret, key.public)) == secret


def test_tee_key_opens_empty_resource_and_detects_one_that_was_emptied(key: TeeKey) -> None:
    answer = encrypt(b"", key.public)
    assert key.open(answer) == b""
    for changed in (
        {**answer, "tag": encode(bytes(16))},
        {**encrypt(b"secret", key.public), "ciphertext": ""},
    ):
        with pytest.raises(IntegrityError):
            key.open(changed)


def test_tee_key_refuses_answer_encrypted_to_another_key(key: TeeKey) -> None:
    kind = key.public.get("crv", key.algorithm)
    other = TeeKey.generate(kind)
    with pytest.raises(IntegrityError):
        key.open(encrypt(b"secret", other.public))


@pytest.mark.parametrize("member", ["protected", "encrypted_key", "iv", "ciphertext", "tag"])
def test_tee_key_detects_flipped_bit_in_any_member(key: TeeKey, member: str) -> None:
    answer = encrypt(os.urandom(32), key.public)
    raw = bytearray(decode(answer[member]))
    raw[-1] ^= 1
    with pytest.raises(IntegrityError, match="does not decrypt"):
        key.open(answer | {member: encode(bytes(raw))})


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: {**answer, "unprotected": {}},
        lambda answer: {**answer, "recipients": []},
        lambda answer: {**answer, "header": {"alg": "dir"}},
        lambda answer: {**answer, "aad": "AA"},
        lambda answer: {**answer, "tag": None},
        lambda answer: {name: answer[name] for name in answer if name != "tag"},
        lambda _: {},
    ],
)
def test_tee_key_refuses_answer_with_other_members(
    key: TeeKey, change: Callable[[dict[str, object]], dict[str, object]]
) -> None:
    with pytest.raises(RemoteError, match="not an encrypted resource"):
        key.open(change({**encrypt(b"secret", key.public)}))


@pytest.mark.parametrize("more", [{"zip": "DEF"}, {"crit": ["kid"]}, {"kid": "1"}, {"cty": "x"}])
def test_tee_key_refuses_additional_header_parameters(key: TeeKey, more: dict[str, object]) -> None:
    """Compression, say, would make a small answer a large one."""
    with pytest.raises(IntegrityError):
        key.open(encrypt(b"secret", key.public, **more))


@pytest.mark.parametrize("header", [b"5", b"[1]", b"null", b'"x"', b"[" * 100_000, b"{", b"\xff"])
def test_tee_key_refuses_header_that_is_not_an_object(key: TeeKey, header: bytes) -> None:
    """It made the JWE library raise a ``TypeError`` or a ``RecursionError``."""
    with pytest.raises(IntegrityError):
        key.open(encrypt(b"secret", key.public) | {"protected": encode(header)})


@pytest.mark.parametrize(
    "change", [{"x": 1}, {"kty": "oct"}, {"crv": "P-384"}, {"d": "AA"}, {"use": "enc"}, {"y": None}]
)
def test_tee_key_refuses_malformed_ephemeral_key(change: dict[str, object]) -> None:
    key = TeeKey.generate("P-256")
    answer = encrypt(b"secret", key.public)
    header = json.loads(decode(answer["protected"]))
    header["epk"] |= change
    answer["protected"] = encode(json.dumps(header).encode())
    with pytest.raises(IntegrityError) as refused:
        key.open(answer)
    assert isinstance(refused.value.__cause__, ValueError)  # of our own check


def test_tee_key_refuses_answer_for_another_curve() -> None:
    key, other = TeeKey.generate("P-256"), TeeKey.generate("P-521")
    with pytest.raises(IntegrityError):
        key.open(encrypt(b"secret", other.public))


@pytest.mark.parametrize(
    ("algorithm", "padding"),
    [
        ("RSA1_5", PKCS1v15()),
        ("RSA-OAEP", OAEP(MGF1(hashes.SHA1()), hashes.SHA1(), None)),  # noqa: S303
    ],
)
def test_tee_key_accepts_only_its_own_algorithm(algorithm: str, padding: Any) -> None:
    """The padding of RSA1_5 tells who may ask often what the content key was."""
    key = TeeKey.generate("RSA-OAEP-256")
    n, e = (int.from_bytes(decode(key.public[name])) for name in "ne")
    cek = os.urandom(32)
    wrapped = rsa.RSAPublicNumbers(e, n).public_key().encrypt(cek, padding)
    header = {"alg": algorithm, "enc": "A256GCM"}
    with pytest.raises(IntegrityError):
        key.open(seal(b"secret", header, wrapped, cek, os.urandom(12)))


def test_tee_key_public_members_are_those_that_kbs_hashes(key: TeeKey) -> None:
    if key.public["kty"] == "RSA":
        assert key.public.keys() == {"kty", "alg", "n", "e"}
        return
    assert key.public.keys() == {"kty", "alg", "crv", "x", "y"}
    size = COORDINATE_SIZES[key.public["crv"]]
    assert {len(decode(key.public[name])) for name in "xy"} == {size}


def test_tee_key_coordinates_keep_leading_zeros() -> None:
    """The first byte of a P-521 coordinate is zero in every second key."""
    for _ in range(8):
        assert len(decode(TeeKey.generate("P-521").public["x"])) == 66


def test_tee_key_repr_does_not_show_key(key: TeeKey) -> None:
    assert repr(key) == f"<TeeKey {key.algorithm}>"


def test_tee_key_generate_refuses_unknown_kind() -> None:
    with pytest.raises(ValueError, match="'RSA1_5', accepted: P-256, P-521, RSA-OAEP-256"):
        TeeKey.generate("RSA1_5")


@pytest.mark.parametrize(
    ("private", "form"),
    [
        (ec.generate_private_key(ec.SECP256R1()), PrivateFormat.PKCS8),
        (ec.generate_private_key(ec.SECP521R1()), PrivateFormat.PKCS8),
        (rsa.generate_private_key(65537, 2048), PrivateFormat.TraditionalOpenSSL),
    ],
)
def test_tee_key_from_pem_reads_key_pair_of_agent(
    private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, form: PrivateFormat
) -> None:
    key = TeeKey.from_pem(private.private_bytes(Encoding.PEM, form, NoEncryption()).decode())
    assert key.open(encrypt(b"secret", key.public)) == b"secret"


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "no PEM",
        (
            "-----BEGIN EC PRIVATE KEY-----\n"  # secp112r1
            "MD4CAQEEDlsp6rX3ficPVLRQIviCoAcGBSuBBAAGoSADHgAESzauVin4V1y58mi9\n"
            "kHdtJpdEAPv3Cs0pPxVvXw==\n"
            "-----END EC PRIVATE KEY-----\n"
        ),
        ed25519.Ed25519PrivateKey.generate()
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        .decode(),
        ec.generate_private_key(ec.SECP384R1())
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        .decode(),
    ],
)
def test_tee_key_from_pem_refuses_unusable_key_pair(pem: str) -> None:
    with pytest.raises(RemoteError, match="not a private key that can be used") as refused:
        TeeKey.from_pem(pem)
    assert pem == "" or pem not in str(refused.value)


# Known answers of docs/protocols.md 5.5: they hold the simulated KBS to the real one's arithmetic.


def test_wrapping_key_matches_known_answer() -> None:
    kek = wrapping_key(bytes(range(32)))
    assert kek.hex() == "ead36a3ab953bb6e5a6709471c0fd35fcc62cf920994cede2f3aa2544e9f47ac"
    wrapped = aes_key_wrap(kek, bytes(range(0x40, 0x60)))
    assert wrapped.hex() == (
        "fece6f7475af5c8333928ec6f05e26d58042dce21f2339154614971e5ce14be3bb307e7f488704fc"
    )


def test_seal_matches_known_answer() -> None:
    epk = {
        "crv": "P-256",
        "kty": "EC",
        "x": "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY",
        "y": "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU",
    }
    header = {"alg": "ECDH-ES+A256KW", "enc": "A256GCM", "epk": epk}
    sealed = seal(b"resource bytes", header, b"", bytes(range(0x40, 0x60)), bytes(range(12)))
    assert sealed["ciphertext"] == "SGAfFwL-J8XicPm23Z4"
    assert sealed["tag"] == "IDyyCPdTjUgf1gnLbtLZ6Q"
