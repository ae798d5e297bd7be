"""The file of ``coco-kp kbs-plugin``."""

from __future__ import annotations

from pathlib import Path

import pytest

from coco_kp.errors import InputError
from coco_kp.keys.reference import AwsKmsReference, TransitReference
from coco_kp.service.plugin_config import read_plugin_config
from coco_kp.service.toml_file import MAX_FILE


def test_plugin_config_reads_a_key_for_each_name(tmp_path: Path) -> None:
    file = tmp_path / "plugin.toml"
    file.write_text(
        '[names.prod]\nunwrap-with = "awskms:///alias/prod"\n'
        '[names."team/test"]\nunwrap-with = "hashivault://test"  # a remark\n'
    )
    assert read_plugin_config(file) == {
        "prod": AwsKmsReference("", "alias/prod"),
        "team/test": TransitReference("test"),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no \\[names.NAME\\]"),
        ("names = {}", "has no \\[names.NAME\\]"),
        ("names = 1", "has no \\[names.NAME\\]"),
        ("[names]\nprod = 1", "'prod' in .* is not a table"),
        ("[names.prod]", "'prod' in .* lacks a text unwrap-with"),
        ("[names.prod]\nunwrap-with = 1", "lacks a text unwrap-with"),
        ('[names.prod]\nunwrap-with = "x"', "'prod' in .*: 'x' is not a key reference"),
        ('[names.prod]\nunwrap-with = "file:kek"', "file: names a key that is fetched"),
        ('[names.prod]\nunwrap_with = "awskms:///x"', "has the unknown member 'unwrap_with'"),
        ('listen = "x"\n[names.prod]\nunwrap-with = "awskms:///x"', "unknown member 'listen'"),
        ('[names.prod]\nunwrap-with = "awskms:///x"\npin = "1"', "unknown member 'pin'"),
        ('[names."a b"]\nunwrap-with = "awskms:///x"', "'a b' in .* can stand in no key ID"),
        ('[names."a//b"]\nunwrap-with = "awskms:///x"', "can stand in no key ID"),
        ('[names."../b"]\nunwrap-with = "awskms:///x"', "can stand in no key ID"),
        ('[names."a?b"]\nunwrap-with = "awskms:///x"', "can stand in no key ID"),
        ('[names.""]\nunwrap-with = "awskms:///x"', "can stand in no key ID"),
        ("[names.prod]\n[names.prod]", "is not TOML: "),
        ("[", "is not TOML: "),
        ("a = " + "[" * 5000, "is not TOML"),
        ("\xff", "is not TOML text"),
        ("#" * (MAX_FILE + 1), f"longer than the {MAX_FILE} bytes"),
        (
            '[names.prod]\nunwrap-with = "pkcs11:object=x?pin-value=1234"',
            "pin-value would show the secret",
        ),
    ],
)
def test_plugin_config_refuses(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "plugin.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=said) as error:
        read_plugin_config(file)
    assert "1234" not in str(error.value)


def test_plugin_config_says_that_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_plugin_config(tmp_path / "absent")
