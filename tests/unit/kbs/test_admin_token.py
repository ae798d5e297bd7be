"""Admin tokens: where they come from, and what the ones that we sign say."""

from __future__ import annotations

import base64
import errno
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from coco_kp.errors import KekError
from coco_kp.kbs.admin_token import ReadyToken, SigningKey, find
from tests.sim.kbs import decode, encode
from tests.support.refusing import refuse

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = {"HOME": "/nonexistent"}


def jwt(**claims: object) -> str:
    return f"e30.{encode(json.dumps(claims).encode())}.c2ln"


VALID = jwt(exp=4e9, role="admin")


def key_file(folder: Path, private: Any) -> Path:
    return token_file(folder / "admin.key", pem(private))


def token_file(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o600)
    return file


def test_find_token_does_not_take_what_it_cannot_look_at_for_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = token_file(tmp_path / ".trustee" / "admin-token", VALID)
    for call in ("stat", "open"):
        refuse(monkeypatch, call, lambda path: path == str(file), errno.EACCES)
    with pytest.raises(KekError, match="permission denied"):
        find(environ={"HOME": str(tmp_path)})


def test_find_token_prefers_named_file_then_environment_then_home(tmp_path: Path) -> None:
    in_home = jwt(exp=4e9, role="home")
    in_environment = jwt(exp=4e9, role="environment")
    home = {"HOME": str(tmp_path)}
    assert find(environ=home) is None

    token_file(tmp_path / ".trustee" / "admin-token", in_home + "\n")
    found = find(environ=home)
    assert found is not None
    assert found.bearer() == in_home

    both = home | {"COCO_KP_ADMIN_TOKEN": in_environment}
    found = find(environ=both)
    assert found is not None
    assert found.bearer() == in_environment

    named = token_file(tmp_path / "token", f"  {VALID}\n")
    found = find(token_file=named, environ=both)
    assert found is not None
    assert found.bearer() == VALID
    assert found.source == f"'{named}'"


def test_find_token_returns_none_without_any_source() -> None:
    assert find(environ=NOBODY) is None


def test_find_token_refuses_both_token_file_and_private_key(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        find(token_file=tmp_path / "token", private_key=tmp_path / "key", environ=NOBODY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no token",
        "a.b",
        "a.!.c",
        f"{VALID}.d",
        f"{VALID}\r\nX-Header: 1",
        "-----BEGIN PRIVATE KEY-----",
        jwt(role="admin"),
        jwt(exp="soon"),
        jwt(exp=None),
        jwt(exp=10**400),
        jwt(exp=-1e300),
        jwt(exp=float("nan")),
        f"e30.{encode(b'[]')}.c2ln",
        f"e30.{encode(b'[' * 20000)}.c2ln",
        f"e30.{encode(bytes([0xFF]))}.c2ln",
    ],
)
def test_ready_token_refuses_malformed_text_without_repeating_it(text: str) -> None:
    with pytest.raises(KekError, match=r"^what the test holds is not an admin token") as refused:
        ReadyToken.parse(text, "the test")
    assert text == "" or text not in str(refused.value)


def test_ready_token_refuses_expired_token_and_says_when_it_expired(tmp_path: Path) -> None:
    token = find(token_file=token_file(tmp_path / "t", jwt(exp=1e9)), environ=NOBODY)
    assert token is not None
    with pytest.raises(KekError, match="expired on 2001-09-09 01:46:40 UTC "):
        token.bearer()


def test_ready_token_accepts_token_that_expired_seconds_ago() -> None:
    text = jwt(exp=time.time() - 30)
    assert ReadyToken.parse(text, "the test").bearer() == text


def test_ready_token_repr_does_not_show_token() -> None:
    assert VALID not in repr(ReadyToken.parse(VALID, "the test"))


def test_find_token_warns_about_token_file_that_others_may_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = token_file(tmp_path / "token", VALID)
    find(token_file=file, environ=NOBODY)
    assert not caplog.messages
    file.chmod(0o644)
    find(token_file=file, environ=NOBODY)
    assert caplog.messages == [f"others may read the admin token '{file}': chmod 600 it"]


def test_find_token_reports_unreadable_token_file(tmp_path: Path) -> None:
    with pytest.raises(KekError, match=r"cannot read .*/none': no such file"):
        find(token_file=tmp_path / "none", environ=NOBODY)
    with pytest.raises(KekError, match="is a directory"):
        find(token_file=tmp_path, environ=NOBODY)
    with pytest.raises(KekError, match="longer than 64 KiB"):
        find(token_file=token_file(tmp_path / "long", "a" * 65537), environ=NOBODY)


def verify_ed25519(public: Any, signature: bytes, signed: bytes) -> None:
    public.verify(signature, signed)


def verify_rsa(public: Any, signature: bytes, signed: bytes) -> None:
    public.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())


def verify_ec(public: Any, signature: bytes, signed: bytes) -> None:
    half = len(signature) // 2
    r, s = int.from_bytes(signature[:half]), int.from_bytes(signature[half:])
    digest = hashes.SHA256() if half == 32 else hashes.SHA384()
    public.verify(encode_dss_signature(r, s), signed, ec.ECDSA(digest))


@pytest.mark.parametrize(
    ("private", "algorithm", "verify"),
    [
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA", verify_ed25519),
        (rsa.generate_private_key(65537, 2048), "RS256", verify_rsa),
        (ec.generate_private_key(ec.SECP256R1()), "ES256", verify_ec),
        (ec.generate_private_key(ec.SECP384R1()), "ES384", verify_ec),
    ],
)
def test_signing_key_signs_token_with_claims_that_kbs_requires(
    tmp_path: Path, private: Any, algorithm: str, verify: Any
) -> None:
    token = find(
        private_key=key_file(tmp_path, private),
        role="writer",
        issuer="me",
        audience="kbs",
        environ=NOBODY,
    )
    assert token is not None
    header, payload, signature = token.bearer().split(".")
    verify(private.public_key(), decode(signature), f"{header}.{payload}".encode())
    assert json.loads(decode(header)) == {"alg": algorithm, "typ": "JWT"}
    claims = json.loads(decode(payload))
    now = time.time()
    assert claims.keys() == {"iat", "nbf", "exp", "role", "iss", "aud"}
    assert (claims["role"], claims["iss"], claims["aud"]) == ("writer", "me", "kbs")
    assert claims["nbf"] < now - 50
    assert now + 200 < claims["exp"] < now + 310


def test_signing_key_leaves_out_issuer_and_audience_by_default(tmp_path: Path) -> None:
    file = key_file(tmp_path, ed25519.Ed25519PrivateKey.generate())
    claims = json.loads(decode(SigningKey.read(file, role="admin").bearer().split(".")[1]))
    assert claims.keys() == {"iat", "nbf", "exp", "role"}


def test_signing_key_repr_does_not_show_private_key(tmp_path: Path) -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    shown = repr(SigningKey.read(key_file(tmp_path, private), role="admin"))
    raw = private.private_bytes_raw()
    assert raw.hex() not in shown
    assert encode(raw) not in shown
    assert base64.b64encode(raw).decode() not in shown


def pem(private: Any, encryption: KeySerializationEncryption | None = None) -> str:
    form = PrivateFormat.PKCS8
    data: bytes = private.private_bytes(Encoding.PEM, form, encryption or NoEncryption())
    return data.decode()


SECP112R1 = """-----BEGIN EC PRIVATE KEY-----
MD4CAQEEDlsp6rX3ficPVLRQIviCoAcGBSuBBAAGoSADHgAESzauVin4V1y58mi9
kHdtJpdEAPv3Cs0pPxVvXw==
-----END EC PRIVATE KEY-----
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            pem(ed25519.Ed25519PrivateKey.generate(), BestAvailableEncryption(b"secret")),
            "is encrypted",
        ),
        (pem(ed448.Ed448PrivateKey.generate()), "of a kind that a KBS does not take"),
        (pem(ec.generate_private_key(ec.SECP521R1())), "of a kind that a KBS does not take"),
        (SECP112R1, "of a kind that a KBS does not take"),
        ("no PEM", "is not a PEM private key"),
    ],
    ids=["encrypted", "Ed448", "P-521", "secp112r1", "no PEM"],
)
def test_signing_key_refuses_private_key_that_cannot_sign(
    tmp_path: Path, text: str, reason: str
) -> None:
    with pytest.raises(KekError, match=reason):
        SigningKey.read(token_file(tmp_path / "key", text), role="admin")
