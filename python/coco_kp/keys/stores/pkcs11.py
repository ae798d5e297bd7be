"""``pkcs11:…``: secrets and AES keys in HSMs and tokens, found by RFC 7512 URIs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import partial
from typing import Final, cast

from pkcs11 import Attribute, KeyType, Mechanism, Object, ObjectClass, SecretKey, Session
from pkcs11.exceptions import (
    AttributeSensitive,
    AttributeTypeInvalid,
    DataInvalid,
    DataLenRange,
    EncryptedDataInvalid,
    EncryptedDataLenRange,
    FunctionFailed,
    GeneralError,
    PKCS11Error,
)
from pkcs11.mechanisms import GCMParams
from pkcs11.types import DecryptMixin, EncryptMixin

from coco_kp.crypto import KEK_SIZE
from coco_kp.errors import CocoKpError, InputError, KekError, RefusedError
from coco_kp.keys.kek import kek_of
from coco_kp.keys.reference import Pkcs11Reference, name_of
from coco_kp.keys.stores.interface import CiphertextError
from coco_kp.keys.stores.pkcs11_token import failure, in_session
from coco_kp.redact import shown
from coco_kp.values import dataclass

_IV_SIZE: Final = 12
_TAG_SIZE: Final = 16

# What modules say of a wrong tag: SoftHSM CKR_GENERAL_ERROR, others CKR_ENCRYPTED_DATA_INVALID or,
# since PKCS #11 3.0, CKR_AEAD_DECRYPT_FAILED, which python-pkcs11 does not know.
_TAG_IS_WRONG: Final = (
    *(GeneralError, FunctionFailed, EncryptedDataInvalid, EncryptedDataLenRange),
    *(DataInvalid, DataLenRange),
)
_AEAD_DECRYPT_FAILED: Final = "0x35"


@dataclass(frozen=True, slots=True)
class Pkcs11Store:
    """A secret that the HSM hands out to its user: an extractable key."""

    reference: Pkcs11Reference

    def fetch(self) -> bytes:
        """Return the key. Raises ``KekError``, ``UnreachableError``."""
        return in_session(self.reference, self._value)

    def keep(self, kek: bytes) -> None:
        """Make an object of the token, which outlives this session. Raises as the protocol says.

        It is a generic secret, as Trustee's PKCS #11 plugin looks for.
        """
        in_session(self.reference, partial(self._make, kek=kek), write=True)

    def check(self) -> str:
        """Say that it holds a key."""
        return f"a key, {kek_of(self.fetch(), name_of(self.reference)).fingerprint}"

    def close(self) -> None:
        """No-op: each use has a session of its own with the token."""

    def _value(self, session: Session) -> bytes:
        name = name_of(self.reference)
        secret = _secret_key(session, self.reference)
        try:
            return bytes(secret[Attribute.VALUE])
        except (AttributeSensitive, AttributeTypeInvalid):
            raise KekError(
                f"the HSM does not hand out {name}: it is sensitive or not extractable",
                "let the HSM itself wrap",
                code="key-not-extractable",
            ) from None

    def _make(self, session: Session, kek: bytes) -> None:
        # The standard has no way to make an object only where there is none. Whoever finds two
        # takes his own back: of those who come at the same time perhaps none succeeds, never two.
        if _matching(session, self.reference):
            raise self._taken()
        made = session.create_object(
            {
                Attribute.CLASS: ObjectClass.SECRET_KEY,
                Attribute.KEY_TYPE: KeyType.GENERIC_SECRET,
                Attribute.VALUE: kek,
                Attribute.TOKEN: True,
                Attribute.PRIVATE: True,
                Attribute.SENSITIVE: False,
                Attribute.EXTRACTABLE: True,
                **_template(self.reference),
            }
        )
        try:
            if len(_matching(session, self.reference)) > 1:
                raise self._taken()
            if self._value(session) != kek:
                raise KekError(f"the HSM keeps another key than it was given, in {self.reference}")
        except BaseException as error:
            try:
                made.destroy()
            except PKCS11Error:
                name = name_of(self.reference)
                told = failure(error, name) if isinstance(error, PKCS11Error) else error
                if isinstance(told, CocoKpError):
                    raise told.adding(f"the new object {name} may still be there") from None
            raise

    def _taken(self) -> RefusedError:
        return RefusedError(
            f"there is an object {name_of(self.reference)}",
            "a replaced key is lost, and so is every image that it opens; choose another name",
        )


@dataclass(frozen=True, slots=True)
class Pkcs11Key:
    """An AES-256 key of the HSM, which encrypts with AES-GCM."""

    reference: Pkcs11Reference

    def encrypt(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        """Return IV, ciphertext and tag; the context is additional authenticated data."""
        iv = os.urandom(_IV_SIZE)
        return iv + self._encrypted(iv, plaintext, _canonical(context))

    def decrypt(self, ciphertext: bytes, context: Mapping[str, str]) -> bytes:
        """Undo ``encrypt``. Raises ``CiphertextError``."""
        iv, rest = ciphertext[:_IV_SIZE], ciphertext[_IV_SIZE:]
        return self._decrypted(iv, rest, _canonical(context))

    def encrypt_gcm(self, iv: bytes, plaintext: bytes) -> bytes:
        """Return ciphertext and tag."""
        return self._encrypted(iv, plaintext, None)

    def decrypt_gcm(self, iv: bytes, ciphertext: bytes) -> bytes:
        """Undo ``encrypt_gcm``. Raises ``CiphertextError``."""
        return self._decrypted(iv, ciphertext, None)

    def check(self) -> str:
        """Say what kind of key it is, after a trial of it."""
        trial = b"trial"
        if self.decrypt(self.encrypt(trial, {}), {}) != trial:
            raise KekError(f"{name_of(self.reference)} does not decrypt what it encrypted")
        leaves = in_session(
            self.reference, lambda session: bool(self._key(session)[Attribute.EXTRACTABLE])
        )
        return f"an AES-256 key that the HSM {'hands out' if leaves else 'never hands out'}"

    def close(self) -> None:
        """No-op: each use has a session of its own with the token."""

    def _encrypted(self, iv: bytes, plaintext: bytes, context: bytes | None) -> bytes:
        def use(session: Session) -> bytes:
            key = self._key(session)
            if not isinstance(key, EncryptMixin):
                raise self._not_permitted("encrypt")
            parameters = GCMParams(iv, context, _TAG_SIZE * 8)
            encrypted = key.encrypt(
                plaintext, mechanism=Mechanism.AES_GCM, mechanism_param=parameters
            )
            return cast("bytes", encrypted)

        return in_session(self.reference, use)

    def _decrypted(self, iv: bytes, ciphertext: bytes, context: bytes | None) -> bytes:
        if len(iv) != _IV_SIZE or len(ciphertext) < _TAG_SIZE:
            raise self._unopened()

        def use(session: Session) -> bytes:
            key = self._key(session)
            if not isinstance(key, DecryptMixin):
                raise self._not_permitted("decrypt")
            parameters = GCMParams(iv, context, _TAG_SIZE * 8)
            try:
                decrypted = key.decrypt(
                    ciphertext, mechanism=Mechanism.AES_GCM, mechanism_param=parameters
                )
            except PKCS11Error as error:
                if isinstance(error, _TAG_IS_WRONG) or _AEAD_DECRYPT_FAILED in str(error):
                    raise self._unopened() from None
                raise
            return cast("bytes", decrypted)

        return in_session(self.reference, use)

    def _key(self, session: Session) -> SecretKey:
        key = _secret_key(session, self.reference)
        size: int = key[Attribute.VALUE_LEN]
        if key.key_type is not KeyType.AES or size != KEK_SIZE:
            raise KekError(
                f"{name_of(self.reference)} is {_kind(key)} of {size} bytes, not an AES-256 key",
                "make one with: pkcs11-tool --keygen --key-type AES:32 --sensitive --label NAME",
            )
        return key

    def _not_permitted(self, what: str) -> KekError:
        return KekError(
            f"{name_of(self.reference)} may not {what}",
            f"the key's attribute CKA_{what.upper()} says so",
        )

    def _unopened(self) -> CiphertextError:
        return CiphertextError(
            f"{name_of(self.reference)} does not decrypt this",
            "another key encrypted it, or this one for another purpose, or it was altered",
        )


def open_store(reference: Pkcs11Reference) -> Pkcs11Store:
    """Return the store. Raises ``InputError`` for an object that is not a secret key."""
    return Pkcs11Store(_checked(reference))


def open_wrapping_key(reference: Pkcs11Reference) -> Pkcs11Key:
    """Return the wrapping key. Raises ``InputError`` for an object that is not a secret key."""
    return Pkcs11Key(_checked(reference))


def _checked(reference: Pkcs11Reference) -> Pkcs11Reference:
    kind = dict(reference.attributes).get("type", "secret-key")
    if kind != "secret-key":
        raise InputError(
            f"type is {shown(kind)} in {name_of(reference)}", "keys here are type=secret-key"
        )
    return reference


def _canonical(context: Mapping[str, str]) -> bytes:
    """Return JSON with sorted members and no blanks, in UTF-8."""
    return json.dumps(
        dict(context), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()


def _secret_key(session: Session, reference: Pkcs11Reference) -> SecretKey:
    """Return the one secret key that a reference names. Raises ``KekError``."""
    name = name_of(reference)
    found = _matching(session, reference)
    secrets = [one for one in found if isinstance(one, SecretKey)]
    if len(secrets) > 1:
        raise KekError(
            f"{len(secrets)} objects match {name}: which one is meant cannot be told",
            "append id= to the object, or remove the others; pkcs11-tool --list-objects shows them",
        )
    if not secrets and found:
        raise KekError(
            f"{name} is {_kind(found[0])}, not a secret key",
            "a KEK is a symmetric key: AES-256, or a generic secret of 32 bytes",
        )
    if not secrets:
        raise KekError(
            f"there is no object {name}", "pkcs11-tool --login --list-objects shows those there are"
        )
    return secrets[0]


def _matching(session: Session, reference: Pkcs11Reference) -> list[Object]:
    return list(session.get_objects(_template(reference)))


def _template(reference: Pkcs11Reference) -> dict[Attribute, str | bytes]:
    attributes = dict(reference.attributes)
    template: dict[Attribute, str | bytes] = {}
    if "object" in attributes:
        template[Attribute.LABEL] = attributes["object"]
    if "id" in attributes:
        template[Attribute.ID] = attributes["id"].encode("latin-1")
    return template


def _kind(found: Object) -> str:
    """Return the kind of object in the standard's words, in lower case."""
    kind = getattr(found, "key_type", None)
    words = [getattr(kind, "name", ""), getattr(found.object_class, "name", "object")]
    return " ".join(word.replace("_", " ").lower() for word in words if word)
