"""What users are warned of before they make an image that is less than they think."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command import KID, Command
from tests.support.image import Image

OTHER = "kbs:///default/key/2"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--kbc", ""), "the value of '--kbc' is empty"),
        (("--provider", ""), "the value of '--provider' is empty"),
        (("--provider=",), "the value of '--provider' is empty"),
        (("--skip-base", ""), "the value of '--skip-base' is empty"),
        (("--kbc=sample", ""), "the value is empty"),
    ],
)
def test_command_given_empty_value_is_wrong_usage(
    encrypted: Image, command: Command, arguments: tuple[str, ...], words: str
) -> None:
    outcome = command("verify", encrypted.reference, *arguments, ok=False)
    assert outcome.code == 2
    assert words in outcome.err


def test_encrypt_warns_that_everybody_can_open_image_of_sample_key(
    plain: Image, tmp_path: Path, command: Command
) -> None:
    arguments = ("encrypt", plain.reference, f"oci:{tmp_path}/e", "--sample")
    assert "warning: everybody can open the image" in command(*arguments).err
    assert command(*arguments, "-q").err == ""


def test_encrypt_and_rewrap_warn_of_packets_that_do_not_detect_tampering(
    plain: Image, key: Path, make_key: Callable[[str], Path], tmp_path: Path, command: Command
) -> None:
    target, own = f"oci:{tmp_path}/e", ("--keyid", KID, "--keypath", key)
    outcome = command("encrypt", plain.reference, target, *own, "--algorithm", "A256CTR")
    assert "warning: A256CTR does not detect tampering" in outcome.err
    add = ("--add", f"keyid={OTHER},keypath={make_key('other')}")
    outcome = command("rewrap", target, "--keypath", key, *add, "--algorithm", "A256CTR")
    assert "warning: A256CTR does not detect tampering" in outcome.err


def test_encrypt_refuses_two_recipients_of_one_key_id_before_a_key_is_made(
    plain: Image, make_key: Callable[[str], Path], tmp_path: Path, command: Command
) -> None:
    outcome = command(
        *("encrypt", plain.reference, f"oci:{tmp_path}/e"),
        *("--keyid", "/default/key/1", "--generate-key", tmp_path / "new"),
        *("--recipient", f"keyid={KID},keypath={make_key('other')}"),
        ok=False,
    )
    assert outcome.code == 2
    assert f"two recipients have the key ID '{KID}'" in outcome.err
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize("kids", [(KID,), (OTHER, OTHER)])
def test_rewrap_refuses_another_key_under_a_key_id_of_the_layer(
    encrypted: Image,
    key: Path,
    make_key: Callable[[str], Path],
    command: Command,
    kids: tuple[str, ...],
) -> None:
    before = encrypted.manifest
    added = [
        part
        for number, kid in enumerate(kids)
        for part in ("--add", f"keyid={kid},keypath={make_key(str(number))}")
    ]
    outcome = command("rewrap", encrypted.reference, "--keypath", key, *added, ok=False)
    assert outcome.code == 3
    assert f"another key has the key ID '{kids[0]}'" in outcome.err
    assert encrypted.manifest == before
