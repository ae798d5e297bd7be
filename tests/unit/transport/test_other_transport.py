"""An image that is named by the wrong transport: the hint names the right one."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from coco_kp.errors import InputError
from coco_kp.model.reference import parse_image_reference
from coco_kp.transport import open_source
from tests.support.refusing import refuse


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("oci:file", "it is a file: an archive is named oci-archive:PATH or docker-archive:PATH"),
        ("oci:dir", "it is a directory of skopeo's dir transport: name it dir:PATH"),
        ("oci:empty", ""),
        ("oci-archive:dir", "it is a directory, not an archive: name it oci:PATH or dir:PATH"),
        ("docker-archive:dir", "it is a directory, not an archive: name it oci:PATH or dir:PATH"),
    ],
)
def test_open_source_names_the_transport_that_was_meant(
    name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    for folder in ("dir", "empty"):
        (tmp_path / folder).mkdir()
    (tmp_path / "dir" / "manifest.json").write_text("{}")
    with pytest.raises(InputError) as error, open_source(parse_image_reference(name)):
        pass
    assert error.value.hint == words


def test_open_source_does_not_call_absent_what_it_cannot_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in ("stat", "open"):
        refuse(monkeypatch, call, lambda path: path.startswith(str(tmp_path)), errno.EACCES)
    name = parse_image_reference(f"oci:{tmp_path}")
    with pytest.raises(InputError, match="permission denied") as error, open_source(name):
        pass
    assert not error.value.hint
