"""The wheels as files: what they claim to run on, and what they install."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from tools import wheel_data
from tools.command_tree import all_contexts

pytestmark = pytest.mark.full

ARCHITECTURES = ["x86_64", "aarch64"]
BIN = Path(sys.executable).parent


@pytest.fixture(params=ARCHITECTURES)
def wheel(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(f"{request.param}_wheel")
    return path


def test_abi3audit_accepts_wheel_with_one_extension(wheel: Path) -> None:
    command = [str(BIN / "abi3audit"), "--strict", "--verbose", str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 0, said
    assert "1 extensions scanned; 0 ABI version mismatches and 0 ABI violations found" in said


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_auditwheel_accepts_wheel_for_glibc_2_17(
    request: pytest.FixtureRequest, architecture: str
) -> None:
    wheel: Path = request.getfixturevalue(f"{architecture}_wheel")
    command = [str(BIN / "auditwheel"), "show", str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = " ".join(done.stdout.split())
    assert f'consistent with the following platform tag: "manylinux_2_17_{architecture}"' in said
    versions = re.findall(r"GLIBC_(\d+)\.(\d+)", said)
    assert versions
    assert max((int(major), int(minor)) for major, minor in versions) <= (2, 17)


def test_wheel_has_man_pages_of_all_commands_and_all_completions(wheel: Path) -> None:
    pages = {f"man/man1/{wheel_data.page_name(context)}.1" for context in all_contexts()}
    assert {"man/man1/coco-kp.1", "man/man1/coco-kp-keys-list.1"} <= pages
    share = ".data/data/share/"
    installed = {name.partition(share)[2] for name in names(wheel) if share in name}
    assert installed == pages | set(wheel_data.COMPLETIONS.values())


def test_wheel_installs_nothing_into_another_package(wheel: Path) -> None:
    tops = {
        re.sub(r"^coco_kp-[^-]*\.(data|dist-info)$", r"\1", n.split("/")[0]) for n in names(wheel)
    }
    assert tops == {"coco_kp", "data", "dist-info"}


def test_wheel_has_the_schemas(wheel: Path) -> None:
    assert "coco_kp/schemas/inspect.schema.json" in names(wheel)


def test_wheel_has_the_parts_of_the_fleet_report(wheel: Path) -> None:
    parts = {f"coco_kp/fleet/page/report.{kind}" for kind in ("html", "css", "js")}
    assert parts <= set(names(wheel))


def names(wheel: Path) -> list[str]:
    with ZipFile(wheel) as archive:
        return archive.namelist()
