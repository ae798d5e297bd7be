"""Key references: values without secrets, one spelling each, and refusals as a table."""

from __future__ import annotations

import pickle

import pytest

from coco_kp.errors import InputError
from coco_kp.keys.file_reference import FileReference, KekReference
from coco_kp.keys.reference import (
    MAX_REFERENCE,
    AwsKmsReference,
    AwsSecretReference,
    ExecReference,
    Pkcs11Reference,
    PluginReference,
    TransitReference,
    VaultReference,
    WrappingReference,
    parse_kek_reference,
    parse_wrapping_reference,
)

KEKS: dict[str, KekReference] = {
    "file:kek": FileReference("kek"),
    "file:/run/keys/kek": FileReference("/run/keys/kek"),
    "exec:gcloud secrets 'a b'": ExecReference(("gcloud", "secrets", "a b")),
    "vault:///secret/default/key/app": VaultReference("", "secret/default/key/app"),
    "vault:///secret/..a/b..": VaultReference("", "secret/..a/b.."),
    "vault://v.example:8200/kv/a/b?kv=1&field=k&encoding=base64": VaultReference(
        "v.example:8200", "kv/a/b", 1, "k", "base64"
    ),
    "aws-sm://eu-west-1/app": AwsSecretReference("eu-west-1", "app"),
    "aws-sm:///arn:aws:secretsmanager:eu-west-1:1:secret:a-b?stage=AWSPREVIOUS": (
        AwsSecretReference("", "arn:aws:secretsmanager:eu-west-1:1:secret:a-b", "AWSPREVIOUS")
    ),
    "pkcs11:token=t;object=a%20b?module-path=/usr/lib/m.so&pin-source=/run/pin": Pkcs11Reference(
        (("token", "t"), ("object", "a b")), "/usr/lib/m.so", "/run/pin"
    ),
}
WRAPPING: dict[str, WrappingReference] = {
    "awskms:///alias/app": AwsKmsReference("", "alias/app"),
    "awskms://127.0.0.1:4566/1234-ab?context=app=demo&context=a%3Db=c": AwsKmsReference(
        "127.0.0.1:4566", "1234-ab", (("app", "demo"), ("a=b", "c"))
    ),
    "hashivault://app": TransitReference("app"),
    "pkcs11:object=k": Pkcs11Reference((("object", "k"),)),
    "pkcs11:id=%FF%01k": Pkcs11Reference((("id", "\xff\x01k"),)),
    "gcpkms://projects/p": PluginReference("gcpkms", "gcpkms://projects/p"),
}
KEY_IN_BASE64 = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="


@pytest.mark.parametrize(("text", "value"), KEKS.items())
def test_kek_reference_is_read_and_written_as_one_spelling(text: str, value: KekReference) -> None:
    assert parse_kek_reference(text) == value
    assert str(value) == text


@pytest.mark.parametrize(("text", "value"), WRAPPING.items())
def test_wrapping_reference_is_read_and_written(text: str, value: WrappingReference) -> None:
    assert parse_wrapping_reference(text) == value
    assert str(value) == text


@pytest.mark.parametrize("value", [*KEKS.values(), *WRAPPING.values()], ids=str)
def test_reference_can_be_pickled_and_hashed(value: KekReference | WrappingReference) -> None:
    again = pickle.loads(pickle.dumps(value))  # noqa: S301
    assert again == value
    assert hash(again) == hash(value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no scheme"),
        ("kek", "no scheme"),
        ("awskms:///alias/app", "cannot be fetched"),
        ("gopher://x/y", "cannot be fetched"),
        ("file:", "lacks a path"),
        ("exec:", "lacks a program"),
        ("exec:a 'b", "open quote"),
        ("vault:secret/a", "two slashes"),
        ("vault:///", "names no key"),
        ("vault:///secret", "not a vault path"),
        ("vault:///secret/a/../b", "not a vault path"),
        ("vault:///secret/./b", "not a vault path"),
        ("vault:///secret/..", "not a vault path"),
        ("vault:///secret/a?kv=3", "not 1 or 2"),
        ("vault:///secret/a?kv=1&kv=1", "twice"),
        ("vault:///secret/a?token=x", "unknown"),
        ("vault:///secret/../a b", "not a vault path"),
        ("vault://u:p@host/secret/a", "not HOST"),
        ("vault:///secret/a?encoding=hex", "encoding"),
        ("aws-sm://eu-west-1/a b", "not a secret's name"),
        ("pkcs11:token=t", "names no object"),
        ("pkcs11:object=k?pin-value=1234", "would show the secret"),
        ("pkcs11:object=k;slot=1", "unknown"),
        ("pkcs11:object=%FF", "not UTF-8"),
        (f"vault:///secret/a?field={KEY_IN_BASE64}", "must not hold one"),
        ("vault:///secret/a\x1b[2J", "cannot be printed"),
        ("file:" + "a" * MAX_REFERENCE, "more than"),
    ],
)
def test_invalid_kek_reference_is_refused(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as refused:
        parse_kek_reference(text)
    assert KEY_IN_BASE64[:-1] not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("vault:///secret/a", "is fetched"),
        ("file:kek", "is fetched"),
        ("awskms:alias/app", "two slashes"),
        ("awskms:///a b", "not a KMS key"),
        ("awskms:///k?region=x", "unknown"),
        ("awskms:///k?context=a", "unknown"),
        ("awskms:///k?context=a=b&context=a=c", "twice"),
        ("hashivault://", "not a transit key"),
        ("hashivault://a/b", "not a transit key"),
    ],
)
def test_invalid_wrapping_reference_is_refused(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_wrapping_reference(text)


def test_pin_in_a_uri_is_not_repeated() -> None:
    with pytest.raises(InputError) as refused:
        parse_kek_reference("pkcs11:object=k?pin-value=hunter2")
    assert "hunter2" not in str(refused.value)
