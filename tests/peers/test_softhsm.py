"""SoftHSM does what the product asks of an HSM, and refuses what an HSM must."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pkcs11
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.peers.softhsm import KEK, MASTER, RSA, TOKEN, SoftHsm

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.peer

OPTIONS = b"o" * 193
"""As long as the private options of a layer."""


@contextmanager
def session(token: SoftHsm, pin: str = "") -> Iterator[pkcs11.Session]:
    with open_token(token).open(user_pin=pin or token.pin) as opened:
        yield opened


def open_token(token: SoftHsm) -> pkcs11.Token:
    return pkcs11.lib(str(token.module)).get_token(token_label=TOKEN)


def test_softhsm_encrypts_with_key_that_never_leaves_it(softhsm: SoftHsm) -> None:
    iv = os.urandom(12)
    with session(softhsm) as opened:
        key: Any = opened.get_key(pkcs11.ObjectClass.SECRET_KEY, label=MASTER)
        parameters = pkcs11.GCMParams(iv, aad=b"prod")
        sealed = key.encrypt(
            OPTIONS, mechanism=pkcs11.Mechanism.AES_GCM, mechanism_param=parameters
        )
        assert len(sealed) == len(OPTIONS) + 16
        found = key.decrypt(sealed, mechanism=pkcs11.Mechanism.AES_GCM, mechanism_param=parameters)
        assert found == OPTIONS
        other = pkcs11.GCMParams(iv, aad=b"other")
        with pytest.raises(pkcs11.GeneralError):  # of others CKR_ENCRYPTED_DATA_INVALID
            key.decrypt(sealed, mechanism=pkcs11.Mechanism.AES_GCM, mechanism_param=other)
        with pytest.raises(pkcs11.AttributeSensitive):
            key[pkcs11.Attribute.VALUE]


def test_softhsm_gcm_is_that_of_a_packet(softhsm: SoftHsm) -> None:
    """What the HSM encrypts opens with the same key outside it."""
    iv = os.urandom(12)
    with session(softhsm) as opened:
        key: Any = opened.create_object(
            {
                pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
                pkcs11.Attribute.KEY_TYPE: pkcs11.KeyType.AES,
                pkcs11.Attribute.VALUE: softhsm.kek,
            }
        )
        parameters = pkcs11.GCMParams(iv)
        sealed = key.encrypt(
            OPTIONS, mechanism=pkcs11.Mechanism.AES_GCM, mechanism_param=parameters
        )
    assert AESGCM(softhsm.kek).decrypt(iv, sealed, None) == OPTIONS


def test_softhsm_shows_extractable_secret_to_who_is_logged_in(softhsm: SoftHsm) -> None:
    with session(softhsm) as opened:
        assert opened.get_key(label=KEK)[pkcs11.Attribute.VALUE] == softhsm.kek
    with open_token(softhsm).open() as stranger, pytest.raises(pkcs11.NoSuchKey):
        stranger.get_key(label=KEK)


def test_softhsm_refuses_wrong_pin(softhsm: SoftHsm) -> None:
    with pytest.raises(pkcs11.PinIncorrect), session(softhsm, "000000"):
        pass


def test_softhsm_rsa_oaep_works_with_sha_1_only(softhsm: SoftHsm) -> None:
    with session(softhsm) as opened:
        public: Any = opened.get_key(pkcs11.ObjectClass.PUBLIC_KEY, label=RSA)
        private: Any = opened.get_key(pkcs11.ObjectClass.PRIVATE_KEY, label=RSA)
        assert public.key_length == 3072
        oaep = pkcs11.Mechanism.RSA_PKCS_OAEP
        assert private.decrypt(public.encrypt(OPTIONS, mechanism=oaep), mechanism=oaep) == OPTIONS
        sha_256 = (pkcs11.Mechanism.SHA256, pkcs11.MGF.SHA256, None)
        with pytest.raises(pkcs11.ArgumentsBad):
            public.encrypt(OPTIONS, mechanism=oaep, mechanism_param=sha_256)


def test_softhsm_keeps_two_objects_of_one_label(softhsm: SoftHsm) -> None:
    softhsm.add_secret(KEK, b"2" * 32)
    softhsm.add_master(MASTER)
    with session(softhsm) as opened:
        for label in (KEK, MASTER):
            with pytest.raises(pkcs11.MultipleObjectsReturned):
                opened.get_key(pkcs11.ObjectClass.SECRET_KEY, label=label)


def test_two_tokens_in_one_process_are_two(softhsm: SoftHsm, first_softhsm: SoftHsm) -> None:
    """A copy is a token of its own, and its module does not know another's."""
    softhsm.add_secret("added", b"a" * 32)
    assert "added" in softhsm.tool("--list-objects")
    assert "added" not in first_softhsm.tool("--list-objects")
    with session(softhsm) as opened:
        assert opened.get_key(label="added")[pkcs11.Attribute.VALUE] == b"a" * 32


def test_uri_of_object_names_module_and_no_pin(softhsm: SoftHsm) -> None:
    assert softhsm.uri("a key/1") == (
        f"pkcs11:token=coco-kp;object=a%20key%2F1?module-path={softhsm.module}"
    )
    assert softhsm.pin not in softhsm.uri(KEK).replace(str(softhsm.module), "")
    assert softhsm.pin not in repr(softhsm)
