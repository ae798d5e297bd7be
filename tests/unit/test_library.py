"""``import coco_kp``: what a library's user sees."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import coco_kp
from tests.support.image import Image, tar, write_image


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


def test_library_encrypts_inspects_and_decrypts_image(tmp_path: Path) -> None:
    plain = write_image(tmp_path / "plain", [tar({"etc/motd": b"hello"})])
    encrypted, decrypted = f"oci:{tmp_path}/encrypted", Image(tmp_path / "decrypted")
    kid = coco_kp.parse_key_id("/default/key/1")
    key = coco_kp.KekRecipient(kid, coco_kp.Kek.generate())
    made = coco_kp.encrypt_image(plain.reference, encrypted, [key], verify="full")
    assert made.key_ids == ("kbs:///default/key/1",)
    assert coco_kp.inspect_image(encrypted).digest == made.digest
    opener = coco_kp.KekOpener(key.kek)
    assert coco_kp.verify_image(encrypted, [opener]).failure is None
    file = coco_kp.parse_kek_reference(f"file:{tmp_path}/new")
    new = coco_kp.resolve(coco_kp.NewKek((file,)), coco_kp.parse_key_id("/default/key/2"))
    coco_kp.rewrap_image(encrypted, [opener], coco_kp.Changes(replace_by=(new,)))
    with pytest.raises(coco_kp.KekError):
        coco_kp.decrypt_image(encrypted, decrypted.reference, [opener])
    coco_kp.decrypt_image(
        encrypted, decrypted.reference, [coco_kp.opener(coco_kp.FetchedKek(file))]
    )
    assert decrypted.layers == plain.layers
