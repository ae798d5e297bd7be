"""The commands of the page on verification, run as they stand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.docs.reader import Reader
from tests.support.image import tar, write_image
from tests.support.markdown import blocks


@pytest.mark.parametrize("layers", [1, 3])
def test_commands_of_verification_run_as_written(tmp_path: Path, layers: int) -> None:
    write_image(tmp_path / "app", [tar({f"{n}": os.urandom(1000)}) for n in range(layers)])
    Reader(tmp_path).run("\n".join(blocks("docs/verify.md", "sh")))
    report = json.loads((tmp_path / "report.json").read_bytes())
    assert report["verified"]
    assert (tmp_path / "digest").read_text().strip() == report["digest"]
    assert len(report["layers"]) == layers
