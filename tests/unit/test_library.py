"""``import coco_kp``: what a library's user sees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import coco_kp
from tests.support.image import Image, tar, write_image
from tests.support.schema import check_schema


def test_library_names_are_sorted_and_documented() -> None:
    assert sorted(coco_kp.__all__) == list(coco_kp.__all__) == dir(coco_kp)
    for name in coco_kp.__all__:
        assert getattr(coco_kp, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = coco_kp.nothing


def test_library_import_loads_no_submodule() -> None:
    code = "import sys, coco_kp; print([m for m in sys.modules if m.startswith('coco_kp.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def schema(name: str) -> dict[str, Any]:
    file = files("coco_kp") / "schemas" / f"{name}.schema.json"
    document: dict[str, Any] = json.loads(file.read_bytes())
    return document


def test_library_encrypts_inspects_and_decrypts_image(tmp_path: Path) -> None:
    plain = write_image(tmp_path / "plain", [tar({"etc/motd": b"hello"})])
    encrypted, decrypted = f"oci:{tmp_path}/encrypted", Image(tmp_path / "decrypted")
    kid = coco_kp.parse_key_id("/default/key/1")
    key = coco_kp.KekRecipient(kid, coco_kp.Kek.generate())
    made = coco_kp.encrypt_image(plain.reference, encrypted, [key], verify="full")
    assert made.key_ids == ("kbs:///default/key/1",)
    check_schema(made.to_json(), schema("encrypt"))
    inspection = coco_kp.inspect_image(encrypted)
    assert inspection.digest == made.digest
    check_schema(inspection.to_json(), schema("inspect"))
    opener = coco_kp.KekOpener(key.kek)
    report = coco_kp.verify_image(encrypted, [opener])
    assert report.failure is None
    check_schema(report.to_json(), schema("verify"))
    file = coco_kp.parse_kek_reference(f"file:{tmp_path}/new")
    new = coco_kp.resolve(coco_kp.NewKek((file,)), coco_kp.parse_key_id("/default/key/2"))
    rewrapped = coco_kp.rewrap_image(encrypted, [opener], coco_kp.Changes(replace_by=(new,)))
    check_schema(rewrapped.to_json(), schema("rewrap"))
    with pytest.raises(coco_kp.KekError):
        coco_kp.decrypt_image(encrypted, decrypted.reference, [opener])
    plaintext = coco_kp.decrypt_image(
        encrypted, decrypted.reference, [coco_kp.opener(coco_kp.FetchedKek(file))]
    )
    check_schema(plaintext.to_json(), schema("decrypt"))
    assert decrypted.layers == plain.layers


def test_library_calls_run_at_once_with_the_same_recipient_and_opener(tmp_path: Path) -> None:
    """As the package's docstring has it of threads."""
    write_image(tmp_path / "app", [tar({"data": bytes(100_000)}), tar({"motd": b"hello"})])
    kek = coco_kp.Kek.generate()
    recipient = coco_kp.KekRecipient(coco_kp.parse_key_id("kbs:///default/key/app"), kek)
    opener = coco_kp.KekOpener(kek)

    def encrypt_and_verify(number: int) -> coco_kp.VerificationReport:
        made = f"oci:{tmp_path}/made{number}"
        coco_kp.encrypt_image(f"oci:{tmp_path}/app", made, [recipient])
        return coco_kp.verify_image(made, [opener])

    with ThreadPoolExecutor(8) as pool:
        reports = list(pool.map(encrypt_and_verify, range(16)))
    assert [report.failure for report in reports] == [None] * 16


def test_library_words_hints_of_findings_as_the_caller_wants(tmp_path: Path) -> None:
    plain = write_image(tmp_path / "plain", [tar({"etc/motd": b"hello"})])
    encrypted = f"oci:{tmp_path}/encrypted"
    coco_kp.encrypt_image(plain.reference, encrypted, [coco_kp.sample_recipient()])
    results: list[tuple[coco_kp.Inspection | coco_kp.VerificationReport, str]] = [
        (coco_kp.inspect_image(encrypted), "inspect"),
        (coco_kp.verify_image(encrypted), "verify"),
    ]
    for result, name in results:
        own, advised = result.to_json(), result.to_json(lambda error: f"see {error.code}")
        check_schema(own, schema(name))
        check_schema(advised, schema(name))
        hint = "encrypt the original for a key of your own"
        assert (
            json.dumps(own).replace(hint, "see refused") == json.dumps(advised) != json.dumps(own)
        )


KEY = coco_kp.KekRecipient(coco_kp.parse_key_id("/default/key/1"), coco_kp.Kek.generate())
WORDS: list[tuple[Callable[[Any], object], str]] = [
    (lambda word: coco_kp.Rules(zstd=word), "kepp"),
    (lambda word: coco_kp.VerificationRules(target=word), "Coco"),
    (lambda word: coco_kp.PacketForm(version=word), "V1"),
    (lambda word: coco_kp.encrypt_image("oci:a", "oci:b", [KEY], verify=word), "Full"),
]


@pytest.mark.parametrize(("call", "word"), WORDS, ids=[word for _, word in WORDS])
def test_library_refuses_word_that_is_none(call: Callable[[Any], object], word: str) -> None:
    with pytest.raises(ValueError, match=f"='{word}' is not one of '"):
        call(word)


def test_library_refuses_algorithm_by_its_name_alone() -> None:
    algorithm: Any = "A256GCM"
    with pytest.raises(TypeError, match="is not an Algorithm"):
        coco_kp.PacketForm(algorithm)


def test_library_expects_no_key_that_no_packet_names() -> None:
    key = coco_kp.parse_wrapping_reference("hashivault://key")
    with pytest.raises(TypeError, match="no packet names the key 'hashivault://key'"):
        coco_kp.VerificationRules(expected_keys=(key,))


class Place(os.PathLike[str]):
    """A path that is no pathlib.Path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


@pytest.mark.parametrize("form", [str, Place, Path], ids=["text", "PathLike", "Path"])
def test_library_takes_path_in_any_form(form: Callable[[Path], Any], tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(bytes(range(32)))
    (tmp_path / "auth.json").write_text("{}")
    assert coco_kp.read_kek(form(tmp_path / "key")).kek.raw() == bytes(range(32))
    assert coco_kp.read_kek("key", form(tmp_path)).kek.raw() == bytes(range(32))
    kept = coco_kp.KeySettings(key_dir=form(tmp_path))
    made = coco_kp.resolve(coco_kp.NewKek(), coco_kp.parse_key_id("/default/key/3"), kept)
    assert made.prepare().name == "kbs:///default/key/3"
    assert len((tmp_path / "default" / "key" / "3").read_bytes()) == 32
    access = coco_kp.Access(authfile=form(tmp_path / "auth.json"), cert_dir=form(tmp_path))
    with pytest.raises(coco_kp.RemoteError, match="nothing|refused"):
        coco_kp.inspect_image("docker://127.0.0.1:1/app:1", access=access)
    keys_file = form(tmp_path / "auth.json")
    kbcs = coco_kp.Kbcs({"offline_fs": partial(coco_kp.offline_fs_kbc, keys_file=keys_file)})
    plain = write_image(tmp_path / "plain", [tar({"etc/motd": b"hello"})])
    encrypted = f"oci:{tmp_path}/encrypted"
    coco_kp.encrypt_image(plain.reference, encrypted, [KEY])
    opener = coco_kp.KbcOpener(coco_kp.parse_kbc_spec("offline_fs::null"), kbcs)
    with pytest.raises(coco_kp.KekError, match="there is no key"):
        coco_kp.decrypt_image(encrypted, f"oci:{tmp_path}/decrypted", [opener])
