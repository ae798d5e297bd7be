"""What the emulators of AWS share: an address, keys, and how clients find them."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import boto3

if TYPE_CHECKING:
    from types_boto3_kms.client import KMSClient
    from types_boto3_secretsmanager.client import SecretsManagerClient

REGION: Final = "us-east-1"
ALIAS: Final = "alias/coco-kp"
CREDENTIALS: Final = ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
"""Those of AWS's documentation; the emulators take any."""


@dataclass(frozen=True)
class RunningAws:
    """An emulator, at the URL ``endpoint``, and the IDs of keys in its KMS."""

    endpoint: str
    key: str = ""
    """A symmetric key, of the alias `ALIAS`."""
    disabled: str = ""
    """A symmetric key that is disabled."""
    rsa: str = ""
    """An RSA-3072 key for encryption."""

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which AWS's own libraries and tools find the emulator, and nothing else.

        Instance metadata and the user's own files are out of reach.
        """
        access_key, secret = CREDENTIALS
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def kms(self) -> KMSClient:
        """Return a client of its Key Management Service."""
        return _session().client("kms", endpoint_url=self.endpoint)

    def secrets_manager(self) -> SecretsManagerClient:
        """Return a client of its Secrets Manager."""
        return _session().client("secretsmanager", endpoint_url=self.endpoint)


@cache
def _session() -> boto3.session.Session:
    """Return what has read botocore's large data files."""
    access_key, secret = CREDENTIALS
    return boto3.session.Session(
        aws_access_key_id=access_key, aws_secret_access_key=secret, region_name=REGION
    )


def with_keys(endpoint: str) -> RunningAws:
    """Make the keys that a `RunningAws` names."""
    with closing(RunningAws(endpoint).kms()) as kms:
        key = kms.create_key()["KeyMetadata"]["KeyId"]
        kms.create_alias(AliasName=ALIAS, TargetKeyId=key)
        disabled = kms.create_key()["KeyMetadata"]["KeyId"]
        kms.disable_key(KeyId=disabled)
        pair = kms.create_key(KeyUsage="ENCRYPT_DECRYPT", KeySpec="RSA_3072")
    return RunningAws(endpoint, key, disabled, pair["KeyMetadata"]["KeyId"])
