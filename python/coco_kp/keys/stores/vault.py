"""Vault and OpenBao: a KEK in the key-value engine, or a key that stays in the transit engine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Final

import hvac
from hvac import exceptions

from coco_kp.errors import InputError, KekError, RefusedError, RemoteError
from coco_kp.keys.kek import kek_of
from coco_kp.keys.reference import TransitReference, VaultReference
from coco_kp.keys.stores.interface import CiphertextError
from coco_kp.keys.stores.vault_session import Answer, VaultSession, words
from coco_kp.model.encoding import decode_base64, encode_base64
from coco_kp.redact import shown
from coco_kp.values import dataclass, field

KEY_TYPE: Final = "aes256-gcm96"
"""The type of transit key that is used: AES-256 with data that is authenticated beside it."""

_ENCODING_HINT: Final = "add encoding=base64 to the key reference"


def open_store(reference: VaultReference) -> VaultStore:
    """Return the store. Raises ``InputError`` or ``RefusedError`` for an unusable address."""
    return VaultStore(reference, VaultSession(reference.host))


def open_wrapping_key(reference: TransitReference) -> TransitKey:
    """Return the wrapping key. Raises ``InputError`` or ``RefusedError`` for such an address."""
    mount = os.environ.get("TRANSIT_SECRET_ENGINE_PATH", "").strip("/") or "transit"
    return TransitKey(reference.key, mount, VaultSession())


@dataclass(frozen=True, slots=True)
class VaultStore:
    """A field of a secret in the key-value engine, version 1 or 2."""

    reference: VaultReference
    _vault: VaultSession = field(repr=False)

    def fetch(self) -> bytes:
        """Return the bytes that the field holds."""
        try:
            answer = self._vault.ask(f"read {self._name}", self._read)
        except exceptions.InvalidPath as refusal:
            raise self._missing(refusal) from None
        except exceptions.InvalidRequest as refusal:
            raise self._wrong(refusal) from None
        return self._value(answer)

    def keep(self, kek: bytes) -> None:
        """Write a new secret: the KEK in its field, as a JSON array of 32 numbers.

        That is the only form that the Vault backend of a KBS reads right; text it would serve as
        text. Version 2 refuses by itself (check-and-set) if the secret exists. Version 1 has no
        such thing: who writes between our look and our write is overwritten.
        """
        self._check_version()
        if self.reference.version == 1:
            self._check_absent()
        document = {self.reference.field: list(kek)}
        try:
            self._vault.ask(f"write {self._name}", lambda v: self._write(v, document), quote=False)
        except exceptions.InvalidRequest as refusal:
            if "check-and-set" in str(refusal.errors):
                raise self._taken() from None
            raise RemoteError(
                f"Vault did not write {self._name}: it rejects the request as invalid",
                "check that the mount is of the key-value engine",
            ) from None
        except exceptions.InvalidPath as refusal:
            raise self._missing(refusal) from None
        self._check_kept(kek)

    def check(self) -> str:
        """Say that it holds a key."""
        source = f"{self._name} of Vault"
        return f"a key, {kek_of(self.fetch(), source, _ENCODING_HINT).fingerprint}"

    def close(self) -> None:
        """Close the connections to Vault."""
        self._vault.close()

    @property
    def _name(self) -> str:
        return shown(self.reference.path)

    @property
    def _mount_and_path(self) -> tuple[str, str]:
        mount, _, path = self.reference.path.partition("/")
        return mount, path

    def _read(self, vault: hvac.Client) -> object:
        mount, path = self._mount_and_path
        if self.reference.version == 1:
            return vault.secrets.kv.v1.read_secret(path, mount_point=mount)
        return vault.secrets.kv.v2.read_secret_version(
            path, mount_point=mount, raise_on_deleted_version=True
        )

    def _write(self, vault: hvac.Client, document: Mapping[str, object]) -> object:
        mount, path = self._mount_and_path
        kv = vault.secrets.kv
        if self.reference.version == 1:
            return kv.v1.create_or_update_secret(path, document, method="POST", mount_point=mount)
        return kv.v2.create_or_update_secret(path, document, cas=0, mount_point=mount)

    def _value(self, answer: Answer) -> bytes:
        secret = answer.get("data")
        if self.reference.version == 2 and isinstance(secret, dict):
            secret = secret.get("data")
        name = self.reference.field
        if not isinstance(secret, dict) or name not in secret:
            raise KekError(
                f"{self._name} of Vault has no field {shown(name)}",
                "name the field that has the key with field=",
            )
        value = secret[name]
        if isinstance(value, str):
            return self._decoded(value)
        if isinstance(value, list) and all(type(one) is int and 0 <= one < 256 for one in value):
            return bytes(value)
        raise KekError(
            f"the field {shown(name)} of {self._name} of Vault is neither a text nor an array of "
            "byte numbers"
        )

    def _decoded(self, text: str) -> bytes:
        if self.reference.encoding == "raw":
            return text.encode("utf-8", "surrogatepass")
        source = f"the field {shown(self.reference.field)} of {self._name} of Vault"
        try:
            return decode_base64(text.strip(), source)
        except InputError as error:
            raise error.blaming(KekError) from None

    def _check_version(self) -> None:
        """Refuse to write to an engine of another version.

        One of version 1 would take a write for version 2 as a secret named ``data/…``, which it
        then replaces without a word. It is asked as Vault's own command line asks before each
        ``vault kv``: every token that may use the path may ask so.
        """
        mount, _ = self._mount_and_path
        where = f"/v1/sys/internal/ui/mounts/{self.reference.path}"
        try:
            answer = self._vault.ask(
                f"say what is mounted at '{mount}'", lambda v: v.adapter.get(where)
            )
        except (exceptions.InvalidPath, exceptions.InvalidRequest) as refusal:
            raise self._unmounted(refusal) from None
        found = answer.get("data")
        found = found if isinstance(found, dict) else {}
        if found.get("type") not in {"kv", "generic"}:
            raise KekError(f"'{mount}' of Vault is not a key-value engine", "vault secrets list")
        options = found.get("options")
        version = options.get("version", "1") if isinstance(options, dict) else "1"
        if version != str(self.reference.version):
            raise self._other_version()

    def _check_absent(self) -> None:
        try:
            self._vault.ask(f"read {self._name}", self._read)
        except exceptions.InvalidPath:
            return
        except exceptions.InvalidRequest as refusal:
            raise self._wrong(refusal) from None
        raise self._taken()

    def _check_kept(self, kek: bytes) -> None:
        try:
            kept = self.fetch()
        except (KekError, RemoteError) as error:
            raise error.within("the key was written, and could not be read back") from None
        if kept != kek:
            raise KekError(
                f"{self._name} of Vault holds another key than was written",
                "somebody else wrote it at the same time: use that key, or choose another path",
            )

    def _taken(self) -> RefusedError:
        return RefusedError(
            f"{self._name} of Vault exists, or existed: a key is never replaced",
            "choose another path, or fetch the key that is there",
            code="key-exists",
        )

    def _missing(self, refusal: exceptions.InvalidPath) -> KekError:
        said = str(refusal.errors or refusal.text)
        if "no handler for route" in said:
            return self._unmounted(refusal)
        if "versioned K/V" in said:
            return self._other_version()
        if '"deletion_time"' in str(refusal.text):
            return KekError(
                f"the newest version of {self._name} of Vault was deleted", "vault kv undelete"
            )
        return KekError(
            f"there is no secret {self._name} in Vault",
            "check the path, and whether the engine is of version "
            f"{self.reference.version}: vault secrets list -detailed",
        )

    def _unmounted(self, refusal: exceptions.VaultError) -> KekError:
        mount, _ = self._mount_and_path
        return KekError(
            f"no secrets engine is mounted at '{mount}' in Vault ({words(refusal)})",
            "check the first part of the path, and VAULT_NAMESPACE: vault secrets list",
        )

    def _other_version(self) -> KekError:
        other = 3 - self.reference.version
        mount, _ = self._mount_and_path
        return KekError(
            f"the key-value engine at '{mount}' of Vault is of version {other}, not "
            f"{self.reference.version}",
            f"write kv={other} in the key reference",
        )

    def _wrong(self, refusal: exceptions.InvalidRequest) -> RemoteError:
        return RemoteError(f"Vault did not read {self._name}: {words(refusal)}", "check the path")


@dataclass(frozen=True, slots=True)
class TransitKey:
    """A key of the transit engine.

    What it makes is the text ``vault:vN:BASE64``. The context, as a JSON object with its names in
    order, is the associated data (Vault 1.13, OpenBao), and derives the key where the key says so.
    """

    name: str
    mount: str
    _vault: VaultSession = field(repr=False)

    def encrypt(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        """Encrypt with the key's newest version."""
        # Vault would make a key that does not exist, for a token that may do so.
        self._check_type()
        bound = _bound(context)
        answer = self._ask(
            f"encrypt with {self._name}",
            lambda vault: vault.secrets.transit.encrypt_data(
                self.name,
                plaintext=encode_base64(plaintext),
                context=bound,
                associated_data=bound,
                mount_point=self.mount,
            ),
        )
        ciphertext = _member(answer, "ciphertext")
        if "associated_data" in str(answer.get("warnings")) or not ciphertext.startswith("vault:"):
            raise KekError(
                "this Vault is too old to bind a context to what it encrypts",
                "it needs version 1.13 or later, or OpenBao",
            )
        return ciphertext.encode()

    def decrypt(self, ciphertext: bytes, context: Mapping[str, str]) -> bytes:
        """Decrypt with the version of the key that the ciphertext names."""
        text = ciphertext.decode("ascii", "replace")
        if not text.startswith("vault:") or not text.isascii():
            raise CiphertextError(
                "what is to be decrypted was not made by a transit engine of Vault"
            )
        bound = _bound(context)
        answer = self._ask(
            f"decrypt with {self._name}",
            lambda vault: vault.secrets.transit.decrypt_data(
                self.name,
                ciphertext=text,
                context=bound,
                associated_data=bound,
                mount_point=self.mount,
            ),
        )
        try:
            return decode_base64(_member(answer, "plaintext"), "what Vault decrypted")
        except InputError as error:
            raise RemoteError(error.message) from None

    def check(self) -> str:
        """Say which kind of key it is."""
        key = self._check_type()
        return (
            f"a transit key of type {KEY_TYPE}{', derived' if key.get('derived') is True else ''}"
        )

    def close(self) -> None:
        """Close the connections to Vault."""
        self._vault.close()

    @property
    def _name(self) -> str:
        return f"the transit key '{self.name}'"

    def _check_type(self) -> Answer:
        answer = self._ask(
            f"show {self._name}",
            lambda vault: vault.secrets.transit.read_key(self.name, mount_point=self.mount),
        )
        key = answer.get("data")
        key = key if isinstance(key, dict) else {}
        if key.get("type") != KEY_TYPE:
            raise KekError(
                f"{self._name} of Vault is of type {shown(str(key.get('type')))}, not {KEY_TYPE}",
                f"make one: vault write -f {self.mount}/keys/NAME type={KEY_TYPE}",
            )
        return key

    def _ask(self, what: str, call: Callable[[hvac.Client], object]) -> Answer:
        try:
            return self._vault.ask(what, call)
        except exceptions.InvalidPath as refusal:
            raise self._missing(refusal) from None
        except exceptions.InvalidRequest as refusal:
            raise self._refused(what, refusal) from None

    def _missing(self, refusal: exceptions.InvalidPath) -> KekError:
        if "no handler for route" in str(refusal.errors or refusal.text):
            return KekError(
                f"no transit engine is mounted at '{self.mount}' in Vault",
                "name its mount with TRANSIT_SECRET_ENGINE_PATH, and check VAULT_NAMESPACE",
            )
        return KekError(
            f"there is {self._name.replace('the', 'no', 1)} in Vault",
            f"make it: vault write -f {self.mount}/keys/{self.name} type={KEY_TYPE}",
        )

    def _refused(self, what: str, refusal: exceptions.InvalidRequest) -> KekError:
        said = str(refusal.errors or refusal.text).lower()
        if "encryption key not found" in said:
            return self._missing(exceptions.InvalidPath())
        if "authentication failed" in said or "invalid ciphertext" in said:
            return CiphertextError(
                f"{self._name} of Vault does not open it: it was altered, or made by another key "
                "or for another name"
            )
        if "disallowed by policy" in said:
            return KekError(
                f"{self._name} of Vault may no longer open it: its version was retired",
                f"lower min_decryption_version: vault write {self.mount}/keys/{self.name}/config",
            )
        return KekError(f"Vault did not {what}: {words(refusal)}", "the log of Vault says more")


def _bound(context: Mapping[str, str]) -> str:
    """Return the one form of a context, in base64; never empty, which a derived key refuses."""
    return encode_base64(json.dumps(context, sort_keys=True, separators=(",", ":")).encode())


def _member(answer: Answer, name: str) -> str:
    data = answer.get("data")
    value = data.get(name) if isinstance(data, dict) else None
    if not isinstance(value, str):
        raise RemoteError(f"an answer of Vault's lacks the text '{name}'")
    return value
