"""AWS: a KEK in Secrets Manager, or a symmetric key that stays in KMS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from coco_kp.errors import InputError, KekError, RefusedError, RemoteError
from coco_kp.keys.kek import kek_of
from coco_kp.keys.reference import AwsKmsReference, AwsSecretReference
from coco_kp.keys.stores.aws_service import AwsService, Meaning
from coco_kp.keys.stores.interface import CiphertextError
from coco_kp.model.encoding import decode_base64
from coco_kp.redact import shown
from coco_kp.values import dataclass, field

if TYPE_CHECKING:
    from types_boto3_kms.client import KMSClient
    from types_boto3_secretsmanager.client import SecretsManagerClient
    from types_boto3_secretsmanager.type_defs import GetSecretValueResponseTypeDef

_CURRENT: Final = "AWSCURRENT"
"""The stage of a secret's newest version."""

_SECRET_MEANINGS: Final = {
    "ResourceNotFoundException": Meaning(
        KekError, "there is no such secret, or no version of that stage", "check name and region"
    ),
    "ResourceExistsException": Meaning(
        RefusedError,
        "a secret of that name exists: a key is never replaced",
        "choose another name, or fetch the key that is there",
    ),
    "InvalidRequestException": Meaning(
        KekError,
        "the secret is about to be deleted",
        "restore it (`aws secretsmanager restore-secret`), or choose another name",
    ),
    "DecryptionFailure": Meaning(
        RemoteError,
        "the KMS key that protects the secret could not be used",
        "check that it is enabled, and that its policy allows kms:Decrypt",
    ),
    "EncryptionFailure": Meaning(
        RemoteError,
        "the KMS key that protects secrets could not be used",
        "check that it is enabled, and that its policy allows kms:GenerateDataKey",
    ),
    "LimitExceededException": Meaning(RemoteError, "a quota is used up", "have it raised"),
}

_NOT_SYMMETRIC: Final = Meaning(
    KekError,
    "the key is not a symmetric one for encryption, and guests use no other",
    "make one: aws kms create-key --key-spec SYMMETRIC_DEFAULT",
)

_KMS_MEANINGS: Final = {
    "NotFoundException": Meaning(
        KekError,
        "there is no such key",
        "check its name and the region: keys and aliases are of one region",
    ),
    "DisabledException": Meaning(KekError, "the key is disabled", "aws kms enable-key"),
    "KMSInvalidStateException": Meaning(
        KekError,
        "the key's state does not allow it: disabled, or about to be deleted",
        "see `aws kms describe-key`; aws kms cancel-key-deletion, aws kms enable-key",
    ),
    "InvalidKeyUsageException": _NOT_SYMMETRIC,
    "UnsupportedOperationException": _NOT_SYMMETRIC,
    "InvalidCiphertextException": Meaning(
        CiphertextError,
        "it was altered, or encrypted by another key or with another encryption context",
        "give the context that it was encrypted with: awskms:///KEY?context=NAME=VALUE",
    ),
    "IncorrectKeyException": Meaning(
        CiphertextError, "it was encrypted by another key", "name the key that encrypted it"
    ),
    "KeyUnavailableException": Meaning(
        RemoteError, "the key cannot be used at this time", "try again later"
    ),
}


def open_store(reference: AwsSecretReference) -> SecretStore:
    """Return the store."""
    region = reference.region or _region_of(reference.name)
    return SecretStore(
        reference,
        AwsService("AWS Secrets Manager", "secretsmanager", _SECRET_MEANINGS, region=region),
    )


def open_wrapping_key(reference: AwsKmsReference) -> KmsKey:
    """Return the wrapping key."""
    region, endpoint = _region_of(reference.key), reference.endpoint
    return KmsKey(
        reference, AwsService("AWS KMS", "kms", _KMS_MEANINGS, region=region, endpoint=endpoint)
    )


@dataclass(frozen=True, slots=True)
class SecretStore:
    """A secret of AWS Secrets Manager."""

    reference: AwsSecretReference
    _service: AwsService[SecretsManagerClient] = field(repr=False)

    def fetch(self) -> bytes:
        """Return the secret's bytes as they are, or its text in the reference's encoding."""
        answer: Mapping[str, object] = self._service.ask(f"read {self._name}", self._read)
        if isinstance(value := answer.get("SecretBinary"), bytes):
            return value
        if not isinstance(text := answer.get("SecretString"), str):
            raise RemoteError(f"{self._service.title} answered without a value")
        if self.reference.encoding == "raw":
            return text.encode("utf-8", "surrogatepass")
        try:
            return decode_base64(text.strip(), f"the secret {self._name} of AWS")
        except InputError as error:
            raise error.blaming(KekError) from None

    def keep(self, kek: bytes) -> None:
        """Create the secret, as ``SecretBinary``: that is how the AWS backend of a KBS reads it."""
        name = self.reference.name
        if name.startswith("arn:"):
            raise InputError(
                "a new secret cannot be created under an ARN", "write aws-sm://REGION/NAME"
            )
        if self.reference.stage != _CURRENT:
            raise InputError(f"a new secret has the stage {_CURRENT} only", "leave out stage=")
        self._service.ask(
            f"create {self._name}",
            lambda aws: aws.create_secret(Name=name, SecretBinary=kek),
            quote=False,
        )
        try:
            kept = self.fetch()
        except (KekError, RemoteError) as error:
            raise error.within("the key was written, and could not be read back") from None
        if kept != kek:
            raise KekError(f"the secret {self._name} of AWS holds another key than was written")

    def check(self) -> str:
        """Say that it holds a key."""
        hint = "add encoding=base64 to the key reference"
        return f"a key, {kek_of(self.fetch(), f'the secret {self._name} of AWS', hint).fingerprint}"

    def close(self) -> None:
        """Close the connections to Secrets Manager."""
        self._service.close()

    @property
    def _name(self) -> str:
        return shown(self.reference.name)

    def _read(self, aws: SecretsManagerClient) -> GetSecretValueResponseTypeDef:
        stage = self.reference.stage
        return aws.get_secret_value(SecretId=self.reference.name, VersionStage=stage)


@dataclass(frozen=True, slots=True)
class KmsKey:
    """A symmetric key of AWS KMS. The encryption context is the reference's and the call's."""

    reference: AwsKmsReference
    _service: AwsService[KMSClient] = field(repr=False)

    @property
    def region(self) -> str:
        """The region whose KMS has the key."""
        return self._service.region

    def encrypt(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        """Encrypt up to 4096 bytes."""
        merged = self._merged(context)
        answer = self._service.ask(
            f"encrypt with {self._name}",
            lambda aws: aws.encrypt(
                KeyId=self.reference.key, Plaintext=plaintext, EncryptionContext=merged
            ),
            quote=False,
        )
        return self._bytes(answer, "CiphertextBlob")

    def decrypt(self, ciphertext: bytes, context: Mapping[str, str]) -> bytes:
        """Decrypt; KMS is told which key it must be."""
        merged = self._merged(context)
        answer = self._service.ask(
            f"decrypt with {self._name}",
            lambda aws: aws.decrypt(
                KeyId=self.reference.key, CiphertextBlob=ciphertext, EncryptionContext=merged
            ),
        )
        return self._bytes(answer, "Plaintext")

    def re_encrypt(self, ciphertext: bytes, source: AwsKmsReference) -> bytes:
        """Return it under this key and context; KMS decrypts it with those of ``source``."""
        region = _region_of(source.key)
        if (region or self.region) != self.region:
            raise InputError(
                f"KMS re-encrypts within one region: the key is in {self.region}, the other in "
                f"{shown(region)}"
            )
        if source.endpoint != self.reference.endpoint:
            raise InputError("KMS re-encrypts at one endpoint, and the keys name two")
        answer = self._service.ask(
            f"re-encrypt from {shown(source.key)} to {self._name}",
            lambda aws: aws.re_encrypt(
                CiphertextBlob=ciphertext,
                SourceKeyId=source.key,
                SourceEncryptionContext=dict(source.context),
                DestinationKeyId=self.reference.key,
                DestinationEncryptionContext=dict(self.reference.context),
            ),
        )
        return self._bytes(answer, "CiphertextBlob")

    def check(self) -> str:
        """Say which key it is. Needs ``kms:DescribeKey``."""
        key = self._service.ask(
            f"describe {self._name}",
            lambda aws: aws.describe_key(KeyId=self.reference.key)["KeyMetadata"],
        )
        if "SYMMETRIC_DEFAULT" not in key.get("EncryptionAlgorithms", ()):
            raise _NOT_SYMMETRIC.kind(f"{self._name}: {_NOT_SYMMETRIC.words}", _NOT_SYMMETRIC.hint)
        if (state := key.get("KeyState")) != "Enabled":
            raise KekError(
                f"the key {self._name} is not enabled: its state is {shown(str(state))}",
                "aws kms enable-key, or aws kms cancel-key-deletion",
            )
        return f"a symmetric key of AWS KMS in {self.region}"

    def close(self) -> None:
        """Close the connections to KMS."""
        self._service.close()

    @property
    def _name(self) -> str:
        return shown(self.reference.key)

    def _merged(self, context: Mapping[str, str]) -> dict[str, str]:
        merged = dict(self.reference.context)
        for name, value in context.items():
            if merged.setdefault(name, value) != value:
                raise InputError(
                    f"the encryption context has {shown(name)} with two values",
                    "leave it out of the key reference",
                )
        return merged

    def _bytes(self, answer: Mapping[str, object], member: str) -> bytes:
        value = answer.get(member)
        if not isinstance(value, bytes):
            raise RemoteError(f"{self._service.title} answered without {member}")
        return value


def _region_of(name: str) -> str:
    """Return the region that an ARN names, empty for other names.

    The form is ``arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE``.
    """
    parts = name.split(":")
    return parts[3] if parts[0] == "arn" and len(parts) > 5 else ""
