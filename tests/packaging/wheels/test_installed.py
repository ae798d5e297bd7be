"""The wheel for this machine, installed where the source tree is not."""

from __future__ import annotations

import json
import platform
from typing import TYPE_CHECKING

import pytest

from tests.packaging.wheels.environment import Environment
from tests.support.markdown import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.full


def test_installed_wheel_works_without_source_tree(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    wheel: Path = request.getfixturevalue(f"{platform.machine()}_wheel")
    environment = Environment(tmp_path / "venv")
    environment.pip("install", "--require-hashes", "-r", ROOT / "requirements/runtime.txt")
    environment.pip("install", "--no-index", "--no-deps", wheel)
    environment.pip("check")
    home = tmp_path / "home"
    home.mkdir()

    where = environment.run("python", "-c", "import coco_kp; print(coco_kp.__file__)", folder=home)
    assert where.startswith(str(environment.folder))
    version = wheel.name.split("-")[1]
    assert environment.run("coco-kp", "--version", folder=home) == f"coco-kp {version}\n"
    assert "byte for byte" in environment.run("coco-kp", "demo", folder=home)

    schema = environment.run("coco-kp", "schema", "inspect", folder=home)
    assert json.loads(schema)["title"] == "coco-kp inspect --format json"

    share = environment.folder / "share"
    page = (share / "man/man1/coco-kp-encrypt.1").read_text()
    assert "\n.SH NAME\ncoco\\-kp\\-encrypt \\- Encrypt an image\n" in page
    script = f"""
        source {share}/bash-completion/completions/coco-kp
        COMP_WORDS=(coco-kp enc) COMP_CWORD=1
        _coco_kp_completion coco-kp
        echo "${{COMPREPLY[@]}}"
    """
    assert environment.run("bash", "-c", script, folder=home) == "encrypt\n"
