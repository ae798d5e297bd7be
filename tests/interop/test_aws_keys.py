"""Keys in AWS: both emulators of KMS, and Secrets Manager of the one that has it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from coco_kp.errors import CocoKpError, KekError, RefusedError, RemoteError
from coco_kp.keys.kek import kek_of
from coco_kp.keys.reference import AwsKmsReference, parse_kek_reference, parse_wrapping_reference
from coco_kp.keys.resolve import StayingKey
from coco_kp.keys.stores.interface import CloudKey, Store
from coco_kp.keys.stores.opening import open_store, open_wrapping_key
from coco_kp.provider import Provider
from coco_kp.service.readiness import Readiness, checks_of
from tests.peers.aws import ALIAS, REGION, RunningAws

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.peer

KEK = bytes(range(100, 132))
OPTIONS = b"o" * 193
"""As long as the private options of a layer."""


def key(name: str = ALIAS, context: str = "") -> CloudKey:
    opened = open_wrapping_key(parse_wrapping_reference(f"awskms:///{name}{context}"))
    assert isinstance(opened, CloudKey)
    return opened


def store(name: str, query: str = "") -> Store:
    return open_store(parse_kek_reference(f"aws-sm://{REGION}/{name}{query}"))


def message(call: Callable[[], object], kind: type[CocoKpError]) -> str:
    with pytest.raises(kind) as error:
        call()
    return error.value.message


def test_kms_opens_what_it_wrapped_in_same_context_only(kms: RunningAws) -> None:
    wrapped = key(context="?context=app=demo").encrypt(OPTIONS, {"name": "prod"})
    assert OPTIONS not in wrapped
    assert key(context="?context=name=prod").decrypt(wrapped, {"app": "demo"}) == OPTIONS
    assert key(kms.key).decrypt(wrapped, {"app": "demo", "name": "prod"}) == OPTIONS
    for context in ({}, {"app": "demo"}, {"app": "demo", "name": "other"}):
        said = message(lambda context=context: key().decrypt(wrapped, context), KekError)  # type: ignore[misc]
        assert "encrypted by another key or with another encryption context" in said


@pytest.mark.usefixtures("kms")
def test_kms_refuses_ciphertext_that_was_altered_or_is_none() -> None:
    wrapped = key().encrypt(OPTIONS, {})
    for bad in (wrapped[:-1] + bytes([wrapped[-1] ^ 1]), b"none"):
        said = message(lambda bad=bad: key().decrypt(bad, {}), KekError)  # type: ignore[misc]
        assert "it was altered" in said


@pytest.mark.usefixtures("kms")
def test_kms_key_that_is_not_there_is_told() -> None:
    for use in (key("alias/none").check, lambda: key("alias/none").encrypt(KEK, {})):
        assert message(use, KekError).endswith("'alias/none': there is no such key")


def test_kms_key_of_another_type_is_told(kms: RunningAws) -> None:
    assert "the key is not a symmetric one" in message(key(kms.rsa).check, KekError)


def test_kms_key_is_described(kms: RunningAws) -> None:
    for name in (ALIAS, kms.key):
        assert key(name).check() == f"a symmetric key of AWS KMS in {REGION}"


def test_disabled_kms_key_is_told(local_kms: RunningAws) -> None:
    """moto encrypts under disabled keys."""
    disabled = key(local_kms.disabled)
    assert "is not enabled: its state is 'Disabled'" in message(disabled.check, KekError)
    assert "the key is disabled" in message(lambda: disabled.encrypt(KEK, {}), KekError)


def test_kms_wraps_under_another_key_without_showing_plaintext(kms: RunningAws) -> None:
    with closing(kms.kms()) as client:
        other = client.create_key()["KeyMetadata"]["KeyId"]
    source = AwsKmsReference("", ALIAS, (("app", "old"),))
    wrapped = open_wrapping_key(source).encrypt(OPTIONS, {})
    again = key(other, "?context=app=new").re_encrypt(wrapped, source)
    assert key(other).decrypt(again, {"app": "new"}) == OPTIONS
    wrong = AwsKmsReference("", ALIAS, (("app", "other"),))
    said = message(lambda: key(other).re_encrypt(wrapped, wrong), KekError)
    assert "did not re-encrypt" in said


@pytest.mark.usefixtures("kms")
def test_kms_refuses_more_than_it_takes() -> None:
    said = message(lambda: key().encrypt(bytes(4097), {}), RemoteError)
    assert said.endswith("AWS says 'ValidationException'")


def test_secret_is_kept_as_bytes_once(moto: RunningAws) -> None:
    """A KBS with the AWS backend reads the binary form, by the last part of the key ID."""
    store("app").keep(KEK)
    with closing(moto.secrets_manager()) as client:
        found = client.get_secret_value(SecretId="app")
    assert (found["SecretBinary"], "SecretString" in found) == (KEK, False)
    assert store("app").fetch() == KEK
    assert store("app").check() == f"a key, {kek_of(KEK, 'it').fingerprint}"
    said = message(lambda: store("app").keep(bytes(32)), RefusedError)
    assert said.endswith("a secret of that name exists: a key is never replaced")
    assert store("app").fetch() == KEK


def test_secret_of_text_is_decoded_as_reference_says(moto: RunningAws) -> None:
    text = "ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoM="
    with closing(moto.secrets_manager()) as client:
        arn = client.create_secret(Name="app/kek", SecretString=text)["ARN"]
    assert store("app/kek", "?encoding=base64").fetch() == KEK
    assert store(arn, "?encoding=base64").fetch() == KEK
    assert store("app/kek").fetch() == text.encode()
    with pytest.raises(KekError) as error:
        store("app/kek").check()
    assert error.value.hint == "add encoding=base64 to the key reference"


def test_secret_is_read_at_its_stage(moto: RunningAws) -> None:
    with closing(moto.secrets_manager()) as client:
        client.create_secret(Name="app", SecretBinary=KEK)
        client.put_secret_value(SecretId="app", SecretBinary=bytes(32))
    assert store("app").fetch() == bytes(32)
    assert store("app", "?stage=AWSPREVIOUS").fetch() == KEK
    said = message(store("app", "?stage=OTHER").fetch, KekError)
    assert "there is no such secret, or no version of that stage" in said


def test_secret_that_is_about_to_be_deleted_is_told(moto: RunningAws) -> None:
    with closing(moto.secrets_manager()) as client:
        client.create_secret(Name="app", SecretBinary=KEK)
        client.delete_secret(SecretId="app", RecoveryWindowInDays=7)
    assert "the secret is about to be deleted" in message(store("app").fetch, KekError)


def test_readiness_follows_a_kms(kms: RunningAws) -> None:
    with closing(kms.kms()) as client:
        made = client.create_key()["KeyMetadata"]["KeyId"]
        reference = parse_wrapping_reference(f"awskms:///{made}")
        readiness = Readiness(checks_of(Provider(source=StayingKey(reference))))
        assert readiness.look()
        client.disable_key(KeyId=made)
        assert not readiness.look()
        client.enable_key(KeyId=made)
        assert readiness.look()
