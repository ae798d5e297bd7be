"""What commands print with --format json, held to the schemas that `coco-kp schema` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coco_kp.image import encrypt as use_case
from tests.support.command import KID, Command
from tests.support.image import Image
from tests.support.key import make_key
from tests.support.schema import check_schema

NEW_KID = "kbs:///default/key/2"


def document(command: Command, name: str, *arguments: object, ok: bool = True) -> Any:
    outcome = command(*name.split("-"), *arguments, "--format", "json", ok=ok)
    check_schema(outcome.json, command("schema", name).json)
    return outcome.json


@pytest.fixture
def target(tmp_path: Path) -> Image:
    return Image(tmp_path / "target")


def test_encrypt_document_has_what_was_made(
    plain: Image, target: Image, key: Path, command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "digest"
    made = document(
        command,
        "encrypt",
        *(plain.reference, target.reference, "--keyid", KID, "--keypath", key),
        *("--digestfile", file),
    )
    assert file.read_text() == made["digest"]
    assert file.stat().st_mode & 0o777 == 0o644
    (image,) = made["images"]
    assert image["digest"] == made["digest"]
    there = [layer["digest"] for layer in target.manifest["layers"]]
    assert [layer["digest"] for layer in image["layers"]] == there
    assert all(layer["kids"] == [KID] for layer in image["layers"])


def test_encrypt_document_of_dry_run_has_no_new_digests(
    plain: Image, target: Image, key: Path, command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "digest"
    planned = document(
        command,
        "encrypt",
        *(plain.reference, target.reference, "--keyid", KID, "--keypath", key),
        *("--dry-run", "--digestfile", file),
    )
    assert planned["digest"] is None
    assert all(layer["digest"] is None for layer in planned["images"][0]["layers"])
    assert not file.exists()


def test_rewrap_document_has_key_ids_of_each_layer(
    encrypted: Image, key: Path, command: Command
) -> None:
    added = f"keyid={NEW_KID},keypath={key}"
    made = document(command, "rewrap", encrypted.reference, "--keypath", key, "--add", added)
    (image,) = made["images"]
    assert image["digest"] == made["digest"]
    assert [layer["digest"] for layer in image["layers"]] == [
        layer["digest"] for layer in encrypted.manifest["layers"]
    ]
    assert all(layer["kids"] == [KID, NEW_KID] for layer in image["layers"])


def test_documents_of_other_commands_match_their_schemas(
    encrypted: Image, target: Image, key: Path, command: Command, tmp_path: Path
) -> None:
    opening = (encrypted.reference, target.reference, "--keypath", key)
    file = tmp_path / "digest"
    made = document(command, "decrypt", *opening, "--digestfile", file)
    assert file.read_text() == made["digest"]
    assert document(command, "verify", encrypted.reference, "--keypath", key)["error"] is None
    assert document(command, "prune", encrypted.reference)["removed"] == []
    command("keys", "generate", "-o", tmp_path / "keys")
    assert len(document(command, "keys-list", tmp_path / "keys")) == 10
    assert document(command, "bench", "--size", "1")["cases"]


def test_doctor_document_has_code_of_each_check_that_failed(
    command: Command, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OCICRYPT_KEYPROVIDER_CONFIG", raising=False)
    checks = document(command, "doctor", "--parameters", f"keypath={key}::keyid={KID}", ok=False)
    codes = {check["check"]: check["code"] for check in checks}
    assert codes["configuration file"] == "providers-unknown"
    assert codes["encryption parameters"] is None
    assert all((check["code"] is None) == check["ok"] for check in checks)


def test_verify_document_without_key_says_that_no_packet_was_tried(
    encrypted: Image, command: Command
) -> None:
    found = document(command, "verify", encrypted.reference)
    assert {layer["recipients"][0]["opened"] for layer in found["layers"]} == {None}


def test_verify_that_fails_prints_one_document_with_the_error(
    plain: Image, command: Command
) -> None:
    report = document(command, "verify", plain.reference, ok=False)
    assert report["verified"] is False
    assert report["error"]["exit_code"] == 7
    assert "not encrypted" in report["error"]["message"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("encrypt", "oci:nothing", "oci:new", "--sample"), 3),
        (("encrypt", "oci:nothing", "oci:new"), 2),
        (("encrypt", "--nosuch"), 2),
        (("decrypt", "oci:nothing", "oci:new", "--keypath", "nothing"), 4),
        (("rewrap", "oci:nothing"), 2),
        (("verify", "oci:nothing"), 3),
        (("inspect", "oci:nothing"), 3),
        (("prune", "dir:nothing"), 2),
        (("keys", "list", "nothing"), 4),
        (("bench", "--size", "0"), 2),
        (("doctor", "--name", ""), 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
@pytest.mark.parametrize("form", [("--format", "json"), ("--format=json",)])
def test_failure_is_a_document_with_the_words_of_stderr(
    arguments: tuple[str, ...],
    code: int,
    form: tuple[str, ...],
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = command(*arguments, *form, ok=False)
    check_schema(outcome.json, command("schema", "error").json)
    error = outcome.json["error"]
    assert error["exit_code"] == outcome.code == code
    assert error["code"]
    assert f"coco-kp: {error['message']}\n" in outcome.err
    assert error["hint"] is None or f"hint: {error['hint']}\n" in outcome.err


def test_digest_that_cannot_be_written_is_an_error_that_names_the_image(
    plain: Image, target: Image, command: Command
) -> None:
    file = target.folder  # free before the work, and not after it
    outcome = command(
        *("encrypt", plain.reference, target.reference, "--sample", "--digestfile", file), ok=False
    )
    assert outcome.code == 3
    assert f"{target.reference} is in place as sha256:" in outcome.err
    assert f"cannot write '{file}'" in outcome.err
    assert target.layers


def test_digestfile_in_a_directory_that_is_not_there_is_refused_before_the_work(
    plain: Image, target: Image, command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "nothing" / "digest"
    outcome = command(
        *("encrypt", plain.reference, target.reference, "--sample", "--digestfile", file), ok=False
    )
    assert outcome.code == 3
    assert f"cannot write '{file}': there is no directory '{file.parent}'" in outcome.err
    assert not target.folder.exists()


def test_digestfile_that_is_a_device_or_a_link_is_refused_before_the_work(
    plain: Image, target: Image, command: Command, tmp_path: Path
) -> None:
    """As root, --digestfile /dev/null made /dev/null a file."""
    file = tmp_path / "null"
    file.symlink_to("/dev/null")
    outcome = command(
        *("encrypt", plain.reference, target.reference, "--sample", "--digestfile", file), ok=False
    )
    assert outcome.code == 3
    assert f"cannot write '{file}': it is not a regular file" in outcome.err
    assert not target.folder.exists()
    assert file.is_symlink()


@pytest.mark.parametrize(
    ("key", "in_place"), [("--generate-key", True), ("--keypath", False)], ids=["new", "given"]
)
def test_digestfile_named_as_the_key_does_not_replace_it(
    plain: Image, target: Image, command: Command, tmp_path: Path, *, key: str, in_place: bool
) -> None:
    """The image opened with nothing any more, and the command had succeeded."""
    file = make_key(tmp_path / "key").path
    if in_place:
        file.unlink()
    named = ("encrypt", plain.reference, target.reference, "--keyid", "kbs:///default/key/1")
    outcome = command(*named, key, file, "--digestfile", file, ok=False)
    assert outcome.code == 3
    assert f"cannot write '{file}': it holds something other than a digest" in outcome.err
    assert ("is in place as" in outcome.err) == target.folder.exists() == in_place
    assert len(file.read_bytes()) == 32


def test_digestfile_replaces_an_earlier_digest(
    plain: Image, target: Image, command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "digest"
    for old in ("", f"sha256:{'0' * 64}", f"sha512:{'0' * 128}\n"):
        file.write_text(old)
        command("encrypt", plain.reference, target.reference, "--sample", "--digestfile", file)
        assert file.read_text() != old


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("_write_manifests", "interrupted; destination unchanged"),
        ("publish_and_name", "interrupted while the image got its name"),
    ],
)
def test_ctrl_c_says_what_became_of_the_image(
    step: str,
    words: str,
    plain: Image,
    target: Image,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(use_case, step, interrupt)
    outcome = command("encrypt", plain.reference, target.reference, "--sample", ok=False)
    assert outcome.code == 130
    assert words in outcome.err
    assert not target.folder.exists()
