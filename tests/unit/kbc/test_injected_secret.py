"""Injected secrets are read, deleted, and the way to them is closed: in upstream's order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coco_kp.errors import KekError
from coco_kp.kbc import injected_secret
from coco_kp.kbc.injected_secret import take_secret

GUID = "e6f5a162-d67f-4750-a67c-5d065f2a9910"


@pytest.fixture
def kernels(tmp_path: Path) -> Path:
    """A folder that is taken for the kernel's own, in a securityfs."""
    folder = tmp_path / "secrets" / "coco"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("keep", [False, True])
def test_take_secret_deletes_secret_after_reading_unless_it_is_kept(
    tmp_path: Path, keep: bool
) -> None:
    (tmp_path / GUID).write_bytes(b"secret")
    assert take_secret(GUID, tmp_path, keep=keep) == b"secret"
    assert (tmp_path / GUID).exists() is keep


def test_take_secret_reads_and_deletes_secret_before_unloading_module(
    kernels: Path, tmp_path: Path
) -> None:
    commands: list[tuple[str, ...]] = []
    secret = kernels / GUID

    def run(*command: str) -> bool:
        commands.append(command)
        if command == ("modprobe", "efi_secret"):
            secret.write_bytes(b"secret")
        if command == ("modprobe", "-r", "efi_secret"):
            assert not secret.exists()
        return True

    assert take_secret(GUID, kernels, securityfs=tmp_path, run=run) == b"secret"
    assert commands == [
        ("mount", "-t", "securityfs", "securityfs", str(tmp_path)),
        ("modprobe", "efi_secret"),
        ("modprobe", "-r", "efi_secret"),
    ]


def test_take_secret_does_not_load_module_that_is_loaded(kernels: Path, tmp_path: Path) -> None:
    commands: list[tuple[str, ...]] = []
    (kernels / GUID).write_bytes(b"secret")

    def run(*command: str) -> bool:
        commands.append(command)
        return False

    assert take_secret(GUID, kernels, securityfs=tmp_path, run=run) == b"secret"
    assert commands == [("modprobe", "-r", "efi_secret")]


def test_take_secret_runs_no_command_for_folder_outside_securityfs(tmp_path: Path) -> None:
    def run(*command: str) -> bool:
        raise AssertionError(command)

    (tmp_path / GUID).write_bytes(b"secret")
    take_secret(GUID, tmp_path, run=run)
    with pytest.raises(KekError, match="no such file") as refused:
        take_secret(GUID, tmp_path, run=run)
    assert refused.value.code == "injected-secret-unreadable"


def test_take_secret_refuses_secret_that_cannot_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever starts later in the guest could read it."""
    (tmp_path / GUID).write_bytes(b"secret")

    def refuse(_: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(KekError, match="cannot delete the secret") as refused:
        take_secret(GUID, tmp_path)
    assert refused.value.code == "injected-secret-undeleted"


def test_take_secret_reports_folder_readable_by_root_only(
    kernels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = Path.stat

    def refuse(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if path.parent == kernels:
            raise PermissionError(13, "Permission denied")
        return stat(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(KekError, match="cannot read"):
        take_secret(GUID, kernels, securityfs=tmp_path, run=lambda *_: False)


def test_take_secret_refuses_oversized_secret(tmp_path: Path) -> None:
    with (tmp_path / GUID).open("wb") as file:
        file.truncate(4 * 1024 * 1024 + 1)
    with pytest.raises(KekError, match="more than 4194304 bytes"):
        take_secret(GUID, tmp_path)
    assert (tmp_path / GUID).exists()


def test_run_returns_false_when_command_fails_or_is_missing() -> None:
    assert injected_secret._run("true")
    assert not injected_secret._run("false")
    assert not injected_secret._run("/nonexistent/modprobe")
