"""Key files that the user may not read: a matter of keys (4), not of usage."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from coco_kp.cli.main import run
from tests.support.command import KID
from tests.support.image import tar, write_image


@pytest.mark.parametrize(
    "arguments",
    [
        ["encrypt", "oci:plain", "oci:new", "--keyid", KID, "--keypath", "secret"],
        ["encrypt", "oci:plain", "oci:new", "--recipient", f"keyid={KID},keypath=secret"],
        ["decrypt", "oci:plain", "oci:new", "--keypath", "secret"],
        ["rewrap", "oci:plain", "--keypath", "secret", "--remove", KID],
        ["verify", "oci:plain", "--keypath", "secret"],
        ["keys", "list", "secret"],
        ["keys", "export", "secret", KID, "new"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_key_file_without_permission_ends_with_4(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret").touch(0)
    write_image(Path("plain"), [tar({"file": b"content"})])
    opened = os.open

    def open_(path: Any, *how: Any, **more: Any) -> int:
        if str(path) == "secret":  # as for everybody but root
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *how, **more)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert run(arguments) == 4
    assert "cannot read 'secret': permission denied" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain", "secret"]
