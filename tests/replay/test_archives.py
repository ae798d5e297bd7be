"""Archives are read as Go's reader reads them, which docker, podman and skopeo have, or refused.

Whoever makes an archive could else show one image to ``verify`` and another to who loads it.
"""

from __future__ import annotations

import gzip
import posixpath
from base64 import b64decode
from typing import TYPE_CHECKING, Any, Final

import pytest

from coco_kp.errors import InputError
from coco_kp.transport.tar import TarFile
from tests.replay.recording import names, recording

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

CASES: Final = recording("go-tar")["cases"]
_NO_FILES: Final = "g5"  # global headers, and directories


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_archive_is_read_as_by_go_or_refused(case: dict[str, Any], tmp_path: Path) -> None:
    found = read(case, tmp_path)
    if found is not None:
        assert not case["error"]
        assert found == table(case["entries"])


def test_most_archives_that_go_reads_are_read(tmp_path: Path) -> None:
    """What is not odd is not refused: of those made at random, half are not."""
    readings = [read(case, tmp_path) for case in CASES]
    assert sum(found is not None for found in readings) >= len(CASES) / 3


def read(case: Mapping[str, Any], folder: Path) -> dict[str, str] | None:
    """Return the files of an archive with their contents; None where it is refused."""
    path = folder / "archive.tar"
    path.write_bytes(gzip.decompress(b64decode(case["archive_base64"])))
    try:
        archive = TarFile(path)
    except InputError:
        return None
    found = {
        name: f"-> {member.link}"
        if member.link is not None
        else archive.pread(member.size, member.offset).decode()
        for name, member in archive.members.items()
    }
    archive.close()
    return found


def table(entries: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return what entries leave behind where they are unpacked one after the other."""
    found: dict[str, str] = {}
    for entry in entries:
        name, kind = posixpath.normpath(entry["name"]) if entry["name"] else "", entry["type"]
        target = posixpath.normpath(entry["link"])
        if kind == "1":
            found[name] = found[target]
        elif kind == "2":
            beside = posixpath.join(posixpath.dirname(name), entry["link"])
            found[name] = f"-> {posixpath.normpath(beside)}"
        elif kind not in _NO_FILES and (entry["content"] or not entry["name"].endswith("/")):
            found[name] = entry["content"]
    return found
