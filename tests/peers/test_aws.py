"""The emulators of AWS do what the product asks of it, and refuse what AWS refuses."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from tests.peers.aws import ALIAS, RunningAws
from tests.peers.moto import emptied

if TYPE_CHECKING:
    from collections.abc import Iterator

    from types_boto3_kms.client import KMSClient

pytestmark = pytest.mark.peer

OPTIONS = b"o" * 193
"""As long as the private options of a layer."""


@pytest.fixture
def client(kms: RunningAws) -> Iterator[KMSClient]:
    with closing(kms.kms()) as connected:
        yield connected


def code_of(error: pytest.ExceptionInfo[ClientError]) -> str:
    """Return AWS's name of an error."""
    return error.value.response["Error"]["Code"]


def test_kms_decrypts_what_it_encrypted_under_alias(client: KMSClient) -> None:
    context = {"app": "demo"}
    sealed = client.encrypt(KeyId=ALIAS, Plaintext=OPTIONS, EncryptionContext=context)
    blob = sealed["CiphertextBlob"]
    assert OPTIONS not in blob
    opened = client.decrypt(CiphertextBlob=blob, EncryptionContext=context)
    assert opened["Plaintext"] == OPTIONS


@pytest.mark.parametrize("fault", ["context", "tag"])
def test_kms_refuses_ciphertext_that_was_altered(client: KMSClient, fault: str) -> None:
    sealed = client.encrypt(KeyId=ALIAS, Plaintext=OPTIONS, EncryptionContext={"app": "demo"})
    blob, context = sealed["CiphertextBlob"], {"app": "demo"}
    if fault == "context":
        context = {"app": "other"}
    else:
        blob = blob[:-1] + bytes([blob[-1] ^ 1])
    with pytest.raises(ClientError) as error:
        client.decrypt(CiphertextBlob=blob, EncryptionContext=context)
    assert code_of(error) == "InvalidCiphertextException"


def test_kms_refuses_unknown_key(client: KMSClient) -> None:
    with pytest.raises(ClientError) as error:
        client.encrypt(KeyId="alias/none", Plaintext=OPTIONS)
    assert code_of(error) == "NotFoundException"


def test_kms_refuses_to_encrypt_more_than_4096_bytes(client: KMSClient) -> None:
    with pytest.raises(ClientError) as error:
        client.encrypt(KeyId=ALIAS, Plaintext=bytes(4097))
    assert code_of(error) == "ValidationException"


def test_kms_wraps_under_another_key_without_showing_plaintext(client: KMSClient) -> None:
    blob = client.encrypt(KeyId=ALIAS, Plaintext=OPTIONS)["CiphertextBlob"]
    other = client.create_key()["KeyMetadata"]["KeyId"]
    again = client.re_encrypt(CiphertextBlob=blob, DestinationKeyId=other)
    assert "Plaintext" not in again
    opened = client.decrypt(CiphertextBlob=again["CiphertextBlob"])
    assert (opened["KeyId"].endswith(other), opened["Plaintext"]) == (True, OPTIONS)


def test_kms_describes_its_keys(client: KMSClient, kms: RunningAws) -> None:
    described = [
        client.describe_key(KeyId=key)["KeyMetadata"]
        for key in (ALIAS, kms.key, kms.disabled, kms.rsa)
    ]
    assert [(key["KeyId"], key["Enabled"], key["KeySpec"]) for key in described] == [
        (kms.key, True, "SYMMETRIC_DEFAULT"),
        (kms.key, True, "SYMMETRIC_DEFAULT"),
        (kms.disabled, False, "SYMMETRIC_DEFAULT"),
        (kms.rsa, True, "RSA_3072"),
    ]


def test_local_kms_refuses_disabled_key(local_kms: RunningAws) -> None:
    """AWS does, and moto does not."""
    with closing(local_kms.kms()) as client, pytest.raises(ClientError) as error:
        client.encrypt(KeyId=local_kms.disabled, Plaintext=OPTIONS)
    assert code_of(error) == "DisabledException"


def test_secrets_manager_keeps_bytes_and_refuses_second_of_a_name(moto: RunningAws) -> None:
    with closing(moto.secrets_manager()) as client:
        client.create_secret(Name="default-key-1", SecretBinary=b"k" * 32)
        assert client.get_secret_value(SecretId="default-key-1")["SecretBinary"] == b"k" * 32
        with pytest.raises(ClientError) as taken:
            client.create_secret(Name="default-key-1", SecretBinary=b"l" * 32)
        with pytest.raises(ClientError) as missing:
            client.get_secret_value(SecretId="other")
    assert code_of(taken) == "ResourceExistsException"
    assert code_of(missing) == "ResourceNotFoundException"


def test_moto_that_was_emptied_has_forgotten_secrets_and_keys(moto: RunningAws) -> None:
    with closing(moto.secrets_manager()) as client:
        client.create_secret(Name="left", SecretBinary=b"k" * 32)
        assert emptied(moto).key != moto.key
        with pytest.raises(ClientError) as missing:
            client.get_secret_value(SecretId="left")
    assert code_of(missing) == "ResourceNotFoundException"


def test_process_of_its_own_finds_emulator_by_its_environment(kms: RunningAws) -> None:
    """As coco-kp will, given nothing but what AWS's own tools read."""
    program = f"import boto3; print(boto3.client('kms').describe_key(KeyId='{ALIAS}'))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert kms.key in done.stdout
