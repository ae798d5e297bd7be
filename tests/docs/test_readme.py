"""The README's commands, run as they stand, with a real skopeo."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.image import Image, tar, write_image
from tests.support.markdown import ROOT, blocks


@pytest.mark.peer
def test_the_blocks_of_the_readme_run_as_they_stand(tmp_path: Path, skopeo_program: Path) -> None:
    image = write_image(tmp_path / "app", [tar({"motd": b"hello"}), tar({"data": bytes(100_000)})])
    script = "\n".join(blocks("README.md", "sh"))
    # what else the machine has, doctor is not to find
    bare = tmp_path / "bin"
    bare.mkdir()
    for name in ("bash", "dirname", "readlink"):
        (bare / name).symlink_to(shutil.which(name) or name)
    ours = Path(sys.executable).parent
    done = subprocess.run(
        ["bash", "-eux", "-c", script],
        cwd=tmp_path,
        env={
            "HOME": str(tmp_path),
            "PATH": f"{ours}:{skopeo_program.parent}:{bare}",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in ("app-encrypted", "app-by-skopeo"):
        assert all(layer.encrypted for layer in Image(tmp_path / name).layers)
    decrypted = Image(tmp_path / "app-decrypted")
    assert decrypted.layers == image.layers
    assert decrypted.config == image.config
    assert "FAIL" not in done.stdout


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 200


def test_no_document_points_at_a_file_that_is_not_there() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name} names {target}"
