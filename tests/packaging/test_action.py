"""The GitHub Action: its steps are run with bash as the runner runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

import coco_kp
from tests.packaging.runner import load_action, run_step
from tests.support.image import Image
from tests.support.key import Key
from tests.support.markdown import ROOT

KEYID = "kbs:///default/key/key_id1"
INSTALL, ENCRYPT = load_action()["runs"]["steps"]


@pytest.fixture
def runner(tmp_path: Path) -> Path:
    """A runner's folder on which the first step has run, with this tree's coco-kp."""
    (tmp_path / "temp").mkdir()
    (tmp_path / "temp/coco-kp").symlink_to(sys.prefix)
    return tmp_path


def inputs(src: str, dst: str, keyid: str = KEYID) -> dict[str, str]:
    return {"src": src, "dst": dst, "keyid": keyid}


def environment(key: bytes) -> dict[str, str]:
    return {"COCO_KP_KEY": b64encode(key).decode()}


def test_action_encrypts_layout_and_outputs_its_digest(
    runner: Path, image: Image, key: Key
) -> None:
    names = inputs(image.reference, f"oci:{runner}/encrypted")
    done, outputs = run_step(ENCRYPT, names, runner, **environment(key.raw))
    assert done.returncode == 0, done.stderr
    written = coco_kp.verify_image(
        names["dst"], [coco_kp.KekOpener(coco_kp.read_kek(key.path).kek)]
    )
    assert written.failure is None
    assert outputs == {"digest": str(written.digest)}
    assert all(layer.encrypted for layer in Image(runner / "encrypted").layers)


@pytest.mark.peer
def test_action_encrypts_in_registry_and_outputs_its_digest(
    runner: Path, image: Image, key: Key, trusted_registry: str
) -> None:
    names = inputs(image.reference, f"docker://{trusted_registry}/team/app:1")
    done, outputs = run_step(ENCRYPT, names, runner, **environment(key.raw))
    assert done.returncode == 0, done.stderr
    by_digest = f"docker://{trusted_registry}/team/app@{outputs['digest']}"
    opener = coco_kp.KekOpener(coco_kp.read_kek(key.path).kek)
    access = coco_kp.Access(tls_verify=False)
    assert coco_kp.verify_image(by_digest, [opener], access=access).failure is None


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ({}, "COCO_KP_KEY: is not set"),
        ({"COCO_KP_KEY": ""}, "COCO_KP_KEY: is not set"),
        (environment(bytes(31)), "expected a 32-byte key"),
        ({"COCO_KP_KEY": "no base64!"}, "base64: invalid input"),
    ],
    ids=["missing", "empty", "short", "not base64"],
)
def test_action_without_valid_key_fails_and_writes_nothing(
    runner: Path, image: Image, env: dict[str, str], reason: str
) -> None:
    names = inputs(image.reference, f"oci:{runner}/encrypted")
    done, outputs = run_step(ENCRYPT, names, runner, **env)
    assert done.returncode != 0
    assert reason in done.stderr
    assert outputs == {}
    assert not (runner / "encrypted").exists()


def test_action_fails_without_output_when_another_run_replaced_the_image(
    runner: Path, image: Image, key: Key
) -> None:
    names = inputs(image.reference, f"oci:{runner}/encrypted")
    (runner / "temp/coco-kp").unlink()
    (runner / "temp/coco-kp/bin").mkdir(parents=True)
    for program in ("python", "coco-kp"):
        real = f"{Path(sys.executable).parent}/{program}"
        # after `encrypt`, somebody else encrypts into the same name
        again = f'[ "$1" != encrypt ] || {real} "$@" > /dev/null' if program == "coco-kp" else ":"
        wrapper = runner / "temp/coco-kp/bin" / program
        wrapper.write_text(f'#!/bin/bash\n{real} "$@" && {{ {again}; }}\n')
        wrapper.chmod(0o755)
    done, outputs = run_step(ENCRYPT, names, runner, **environment(key.raw))
    assert done.returncode != 0
    assert "was written, but" in done.stdout
    assert outputs == {}


def test_action_treats_names_as_neither_code_nor_options(
    runner: Path, image: Image, key: Key
) -> None:
    for hostile in ('x"; touch pwned; "', "$(touch pwned)", "`touch pwned`", "--help"):
        names = inputs(image.reference, hostile, keyid=hostile)
        done, outputs = run_step(ENCRYPT, names, runner, **environment(key.raw))
        assert done.returncode != 0
        assert done.stderr.startswith("coco-kp: ")
        assert outputs == {}
    assert not (runner / "pwned").exists()


def test_action_leaves_key_in_no_file_and_no_output(runner: Path, image: Image, key: Key) -> None:
    names = inputs(image.reference, f"oci:{runner}/encrypted")
    done, _ = run_step(ENCRYPT, names, runner, **environment(key.raw))
    assert done.returncode == 0, done.stderr
    assert environment(key.raw)["COCO_KP_KEY"] not in done.stdout + done.stderr
    assert [path.name for path in (runner / "temp").iterdir()] == ["coco-kp"]


def test_action_output_is_that_of_its_step() -> None:
    action: dict[str, Any] = load_action()
    assert (
        action["outputs"]["digest"]["value"] == f"${{{{ steps.{ENCRYPT['id']}.outputs.digest }}}}"
    )
    assert sorted(action["inputs"]) == ["dst", "keyid", "src"]
    assert all(spec["required"] for spec in action["inputs"].values())


@pytest.mark.full
def test_action_installs_what_its_second_step_needs(tmp_path: Path, image: Image, key: Key) -> None:
    wheels = tmp_path / "wheels"
    maturin = Path(sys.executable).parent / "maturin"
    options = ["--release", "--locked", "--quiet", "--out", str(wheels)]
    subprocess.run([maturin, "build", *options], cwd=ROOT, check=True)
    # The package index does not have a version before it is released.
    index = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    index |= {"PIP_FIND_LINKS": str(wheels)}
    done, _ = run_step(INSTALL, {}, tmp_path, **index)
    assert done.returncode == 0, done.stderr
    names = inputs(image.reference, f"oci:{tmp_path}/encrypted")
    done, outputs = run_step(ENCRYPT, names, tmp_path, **environment(key.raw))
    assert done.returncode == 0, done.stderr
    assert outputs["digest"].startswith("sha256:")
