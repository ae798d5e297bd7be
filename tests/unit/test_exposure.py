from __future__ import annotations

import grp
import os
import pwd
from typing import TYPE_CHECKING

import pytest

from coco_kp.exposure import exposure

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "key").touch(mode=0o600)
    return folder / "key"


def warnings(file: Path) -> tuple[str, ...]:
    return exposure("key file", file, file.stat())


@pytest.mark.parametrize(
    ("mode", "actions"),
    [
        (0o600, ""),
        (0o400, ""),
        (0o711, ""),
        (0o640, "read"),
        (0o604, "read"),
        (0o620, "change"),
        (0o602, "change"),
        (0o664, "read and change"),
    ],
)
def test_exposure_says_what_others_may_do_with_file(file: Path, mode: int, actions: str) -> None:
    file.chmod(mode)
    expected = (f"others may {actions} the key file '{file}': chmod 600 it",) if actions else ()
    assert warnings(file) == expected


@pytest.mark.parametrize("mode", [0o702, 0o777])
def test_exposure_names_innermost_directory_that_others_may_write(file: Path, mode: int) -> None:
    for folder in (file.parents[2], file.parents[1]):
        folder.chmod(mode)
    (warning,) = warnings(file)
    assert warning == (
        f"others may replace the key file '{file}': "
        f"they may write to the directory '{file.parents[1]}': chmod go-w it"
    )
    file.parents[1].chmod(0o1777)  # sticky, as /tmp is
    file.parents[2].chmod(0o1777)
    assert warnings(file) == ()


@pytest.mark.parametrize(
    ("name", "members", "private"),
    [("me", [], True), ("me", ["me"], True), ("me", ["you"], False), ("users", [], False)],
)
def test_exposure_tolerates_directory_that_user_private_group_may_write(
    file: Path, monkeypatch: pytest.MonkeyPatch, name: str, members: list[str], private: bool
) -> None:
    """Where the umask is 002, every directory is so."""
    group = grp.struct_group((name, "x", os.getgid(), members))
    user = pwd.struct_passwd(("me", "x", os.getuid(), os.getgid(), "", "/", "/bin/sh"))
    monkeypatch.setattr(grp, "getgrgid", lambda _: group)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: user)
    file.parent.chmod(0o770)
    assert (warnings(file) == ()) == private


def test_exposure_warns_of_directory_of_group_without_name(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_gid: int) -> grp.struct_group:
        raise KeyError

    monkeypatch.setattr(grp, "getgrgid", unknown)
    file.parent.chmod(0o770)
    assert len(warnings(file)) == 1


def test_exposure_looks_at_directories_of_file_that_link_names(file: Path, tmp_path: Path) -> None:
    file.parent.chmod(0o777)
    (tmp_path / "link").symlink_to(file)
    (warning,) = warnings(tmp_path / "link")
    assert f"'{file.parent}'" in warning


def test_exposure_warns_of_other_owners_but_root(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = os.getuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    found = warnings(file)
    if owner == 0:
        assert found == ()
        os.chown(file, 4242, -1)
        os.chown(file.parent, 4242, -1)
        owner, found = 4242, warnings(file)
    change, replace = found
    key = f"the key file '{file}'"
    assert change == f"another user (uid {owner}) may change {key}: it is his"
    assert replace == (
        f"another user (uid {owner}) may replace {key}: the directory '{file.parent}' is his"
    )


def test_exposure_trusts_root_of_host_in_user_namespace(file: Path) -> None:
    status = list(file.stat())
    status[4] = 65534
    assert exposure("key file", file, os.stat_result(status)) == ()
