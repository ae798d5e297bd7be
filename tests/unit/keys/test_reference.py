"""Key references: values without secrets, one spelling each, and refusals as a table."""

from __future__ import annotations

import pickle

import pytest

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
    names_code,
    parse_kek_reference,
    parse_wrapping_reference,
)
from tests.support.refusals import refusals

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


test_invalid_kek_reference_is_refused = refusals(
    parse_kek_reference,
    {
        "no scheme": ["", "kek"],
        "cannot be fetched": ["awskms:///alias/app", "gopher://x/y"],
        "lacks a path": ["file:"],
        "lacks a program": ["exec:"],
        "open quote": ["exec:a 'b"],
        "two slashes": ["vault:secret/a"],
        "names no key": ["vault:///"],
        "not a vault path": [
            *("vault:///secret", "vault:///secret/a/../b", "vault:///secret/./b"),
            *("vault:///secret/..", "vault:///secret/../a b"),
        ],
        "not 1 or 2": ["vault:///secret/a?kv=3"],
        "twice": ["vault:///secret/a?kv=1&kv=1"],
        "unknown": ["vault:///secret/a?token=x", "pkcs11:object=k;slot=1"],
        "not HOST": ["vault://u:p@host/secret/a"],
        "encoding": ["vault:///secret/a?encoding=hex"],
        "not a secret's name": ["aws-sm://eu-west-1/a b"],
        "names no object": ["pkcs11:token=t"],
        "would show the secret": ["pkcs11:object=k?pin-value=1234"],
        "not UTF-8": ["pkcs11:object=%FF"],
        "must not hold one": [f"vault:///secret/a?field={KEY_IN_BASE64}"],
        "cannot be printed": ["vault:///secret/a\x1b[2J"],
        "more than": ["file:" + "a" * MAX_REFERENCE],
    },
    secret=KEY_IN_BASE64[:-1],
)


test_invalid_wrapping_reference_is_refused = refusals(
    parse_wrapping_reference,
    {
        "is fetched": ["vault:///secret/a", "file:kek"],
        "two slashes": ["awskms:alias/app"],
        "not a KMS key": ["awskms:///a b"],
        "unknown": ["awskms:///k?region=x", "awskms:///k?context=a"],
        "twice": ["awskms:///k?context=a=b&context=a=c"],
        "not a transit key": ["hashivault://", "hashivault://a/b"],
    },
)


@pytest.mark.parametrize(
    ("reference", "named"),
    [
        (FileReference("a"), False),
        (VaultReference("", "kv/a"), False),
        (AwsSecretReference("", "a"), False),
        (TransitReference("a"), False),
        (AwsKmsReference("", "a"), False),
        (Pkcs11Reference((("object", "a"),)), False),
        (Pkcs11Reference((("object", "a"),), module="/a.so"), True),
        (Pkcs11Reference((("object", "a"),), pin_source="/pin"), True),
        (ExecReference(("a",)), True),
        (PluginReference("mykms", "mykms://a"), True),
        (KekReference(), True),
        (WrappingReference(), True),
    ],
)
def test_reference_of_a_kind_that_is_not_known_names_code(
    reference: KekReference | WrappingReference, named: bool
) -> None:
    assert names_code(reference) is named


test_pin_in_a_uri_is_not_repeated = refusals(
    parse_kek_reference,
    {"would show the secret": ["pkcs11:object=k?pin-value=hunter2"]},
    secret="hunter2",
)
