"""Nothing of an extra is imported unless its kind of reference is named."""

from __future__ import annotations

import subprocess
import sys

import pytest

EXTRAS = {"boto3", "botocore", "hvac", "requests", "pkcs11"}
OPENED = """
import sys
from coco_kp.keys.reference import parse_kek_reference, parse_wrapping_reference
from coco_kp.keys.stores.opening import open_store, open_wrapping_key
"""


def printed(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", OPENED + program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("opened", "loaded"),
    [
        ("open_store(parse_kek_reference('file:kek'))", set()),
        ("open_store(parse_kek_reference('exec:true'))", set()),
        ("open_store(parse_kek_reference('vault://localhost/a/b'))", {"hvac", "requests"}),
        ("open_wrapping_key(parse_wrapping_reference('awskms:///alias/a'))", {"boto3", "botocore"}),
        ("open_store(parse_kek_reference('aws-sm:///a'))", {"boto3", "botocore"}),
        ("open_store(parse_kek_reference('pkcs11:object=a'))", {"pkcs11"}),
        ("open_wrapping_key(parse_wrapping_reference('pkcs11:object=a'))", {"pkcs11"}),
    ],
)
def test_opening_imports_no_extra_but_its_own(opened: str, loaded: set[str]) -> None:
    found = printed(f"{opened}\nprint(*{EXTRAS} & sys.modules.keys())")
    assert set(found.split()) == loaded


@pytest.mark.parametrize(
    ("reference", "package", "extra"),
    [
        ("vault://localhost/a/b", "hvac", "vault"),
        ("aws-sm:///a", "boto3", "aws"),
        ("pkcs11:object=a", "pkcs11", "pkcs11"),
    ],
)
def test_missing_extra_is_an_error_that_says_how_to_install_it(
    reference: str, package: str, extra: str
) -> None:
    found = printed(f"""
sys.modules["{package}"] = None
try:
    open_store(parse_kek_reference("{reference}"))
except Exception as error:
    print(error)
""")
    assert found == (
        f"this kind of key reference needs the Python package {package} "
        f"(hint: install it with: pip install 'coco-kp[{extra}]')\n"
    )
