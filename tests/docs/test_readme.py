"""The README's commands, run as they stand, with a real skopeo, buildah and podman."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.reader import ContainerReader
from tests.support.image import Image, tar, write_image
from tests.support.markdown import ROOT, blocks

BASE = "https://github.com/coco-kp/coco-kp/blob/main/"


@pytest.mark.peer
def test_readme_commands_run_as_written(tmp_path: Path) -> None:
    image = write_image(tmp_path / "app", [tar({"motd": b"hello"}), tar({"data": bytes(100_000)})])
    reader = ContainerReader(tmp_path)
    reader.store("app", "localhost/app")
    printed = reader.run("\n".join(blocks("README.md", "sh")))
    for name in ("encrypted", "by-skopeo", "by-buildah", "by-podman"):
        assert all(layer.encrypted for layer in Image(tmp_path / f"app-{name}").layers)
        reader.run(f"coco-kp verify oci:app-{name} --keypath kek --target coco")
    # the names that the README has for images elsewhere
    reader.run(
        "podman save --format oci-archive -o app.tar localhost/app\n"
        "buildah push localhost/app oci:app-pushed\n"
    )
    for source in (
        "oci-archive:app.tar",
        "oci:app-pushed",
        "containers-storage:localhost/app:latest",
    ):
        reader.run(f"coco-kp encrypt {source} oci:again --keyid kbs:///a/b/c --keypath kek")
    decrypted = Image(tmp_path / "app-decrypted")
    assert decrypted.layers == image.layers
    assert decrypted.config == image.config
    assert "FAIL" not in printed


def test_readme_has_fewer_than_200_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 200


def test_readme_has_no_relative_link() -> None:
    """PyPI shows the README, and has none of the other files."""
    relative = [target for target in links(ROOT / "README.md") if not target.startswith("https://")]
    assert relative == []


def test_documents_link_only_to_files_that_exist() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in links(document):
            if target.startswith(BASE):
                assert (ROOT / target.removeprefix(BASE)).exists(), f"{document.name}: {target}"
            elif not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name} names {target}"


def links(document: Path) -> list[str]:
    return re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8"))
