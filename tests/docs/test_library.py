"""The pages on the library: they have each public name, and each of their examples works."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import coco_kp
from tests.docs.reader import Reader
from tests.support.image import Image, tar, write_image
from tests.support.markdown import ROOT, blocks

PAGES: Final = sorted((ROOT / "docs" / "api").glob("*.md"))
ENTRIES: Final = [
    name
    for page in PAGES
    for name in re.findall(r"^::: coco_kp\.(\w+)$", page.read_text("utf-8"), re.MULTILINE)
]
"""What the pages have docstrings of, in their order."""


def examples(text: str | None) -> list[str]:
    """Return the examples in a docstring."""
    return re.findall(
        r"^```python\n(.*?)^```$", inspect.cleandoc(text or ""), re.DOTALL | re.MULTILINE
    )


OF_DOCSTRINGS: Final = [
    *examples(coco_kp.__doc__),
    *(each for name in ENTRIES for each in examples(getattr(coco_kp, name).__doc__)),
]
OF_PAGES: Final = [*blocks("README.md", "python"), *blocks("docs/guide.md", "python")]


def test_reference_has_each_public_name_once() -> None:
    assert sorted(ENTRIES) == sorted(coco_kp.__all__)


def described(value: object) -> list[str]:
    """Return the arguments or attributes that a docstring describes."""
    text = inspect.getdoc(value) or ""
    section = re.search(r"^(?:Args|Attributes):\n((?:(?: .*)?\n)+)", f"{text}\n", re.MULTILINE)
    return re.findall(r"^    (\w+): ", section[1], re.MULTILINE) if section else []


@pytest.mark.parametrize("name", coco_kp.__all__)
def test_public_docstring_describes_each_argument_and_field(name: str) -> None:
    """One alone may be described by the sentence."""
    found = getattr(coco_kp, name)
    if inspect.isfunction(found):
        parameters = inspect.signature(found).parameters
        there = [each for each in parameters if not each.startswith("_")]
    else:
        there = list(getattr(found, "__match_args__", ()))
    if len(there) > 1 or (there and described(found)):
        assert described(found) == there


class Folder:
    """Where a reader runs examples: it has an image, and the keys that the pages begin with."""

    def __init__(self, path: Path, keys: tuple[str, ...]) -> None:
        self.path = path
        self.image = write_image(
            path / "app", [tar({"motd": b"hello"}), tar({"data": bytes(9000)})]
        )
        for name in keys:
            (path / name).write_bytes(coco_kp.Kek.generate().raw())
        self._reader = Reader(path)

    def run(self, program: str) -> None:
        self._reader.run(program, "python")

    def opens(self, name: str, key: str) -> bool:
        """Return whether a key opens an image whose layers are all encrypted."""
        source, plain = (f"oci:{self.path}/{each}" for each in (name, f"{name}-{key}-plain"))
        try:
            coco_kp.decrypt_image(
                source, plain, [coco_kp.KekOpener(coco_kp.read_kek(self.path / key).kek)]
            )
        except coco_kp.KekError:
            return False
        assert all(layer.encrypted for layer in Image(self.path / name).layers)
        decrypted = Image(self.path / f"{name}-{key}-plain")
        assert (decrypted.layers, decrypted.config) == (self.image.layers, self.image.config)
        return True


def test_examples_of_docstrings_make_images_that_their_keys_open(tmp_path: Path) -> None:
    """In their order: later ones begin with what earlier ones made."""
    folder = Folder(tmp_path, ())
    for program in OF_DOCSTRINGS:
        folder.run(program)
    assert folder.opens("app-encrypted", "app.key")
    assert folder.opens("app-rewrapped", "new.key")
    assert not folder.opens("app-rewrapped", "app.key")
    assert Image(tmp_path / "app-decrypted").layers == folder.image.layers


def test_readmes_example_makes_image_that_its_key_opens(tmp_path: Path) -> None:
    folder = Folder(tmp_path, ("kek",))
    for program in blocks("README.md", "python"):
        folder.run(program)
    assert folder.opens("app-from-python", "kek")


def test_guides_examples_make_image_that_its_keys_open(tmp_path: Path) -> None:
    folder = Folder(tmp_path, ("app.key", "ops.key"))
    for program in blocks("docs/guide.md", "python"):
        folder.run(program)
    assert folder.opens("app-from-python", "app.key")
    assert folder.opens("app-from-python", "ops.key")


def test_examples_pass_strict_type_checks(tmp_path: Path) -> None:
    files = []
    for number, program in enumerate([*OF_DOCSTRINGS, *OF_PAGES]):
        files.append(tmp_path / f"example{number}.py")
        files[-1].write_text(program)
    assert len(files) >= 5
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={tmp_path}/cache", *files],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
