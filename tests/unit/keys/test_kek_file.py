from __future__ import annotations

import subprocess
from base64 import b64encode
from pathlib import Path

import pytest

from coco_kp.crypto import Kek
from coco_kp.errors import KekError, KeyPathForbiddenError
from coco_kp.keys.kek_file import read_kek
from tests.support.refusals import refusals

RAW = bytes(range(0x20, 0x40))
TEXT = b64encode(RAW)


def key_file(path: Path, data: bytes = RAW, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_read_kek_accepts_32_raw_bytes(tmp_path: Path) -> None:
    file = read_kek(key_file(tmp_path / "key"))
    assert file.kek.raw() == RAW
    assert file.warnings == ()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_read_kek_warns_about_file_that_others_may_read(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path / "key", mode=mode)
    (warning,) = read_kek(path).warnings
    assert warning == f"others may read the key file '{path}': chmod 600 it"


def test_read_kek_warns_about_directory_that_others_may_write(tmp_path: Path) -> None:
    path = key_file(tmp_path / "key")
    tmp_path.chmod(0o777)
    (warning,) = read_kek(path).warnings
    assert warning.startswith(f"others may replace the key file '{path}'")


@pytest.mark.parametrize(
    ("data", "found", "hint"),
    [
        (b"", "nothing", "head -c 32 /dev/urandom"),
        (RAW[:31], "31 bytes", "head -c 32 /dev/urandom"),
        (RAW * 2, "64 bytes", "head -c 32 /dev/urandom"),
        (bytes(4096), "4096 bytes", "head -c 32 /dev/urandom"),
        (bytes(4097), "more than 4096 bytes", "head -c 32 /dev/urandom"),
        (bytes(10_000_000), "more than 4096 bytes", "head -c 32 /dev/urandom"),
        (TEXT, "44 bytes", "base64 -d"),
        (TEXT + b"\n", "45 bytes", "base64 -d"),
        (b64encode(RAW[:31]), "44 bytes", "head -c 32 /dev/urandom"),
        (b64encode(RAW * 2), "88 bytes", "head -c 32 /dev/urandom"),
        (RAW.hex().encode(), "64 bytes", "basenc -d --base16"),
        (RAW.hex().upper().encode() + b"\n", "65 bytes", "basenc -d --base16"),
        (RAW + b"\n", "33 bytes", "head -c 32 old"),
        (RAW + b"\r\n", "34 bytes", "head -c 32 old"),
        (RAW + b"\0", "33 bytes", "head -c 32 /dev/urandom"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_read_kek_recognises_encoded_key_and_refuses_other_content(
    tmp_path: Path, data: bytes, found: str, hint: str
) -> None:
    path = key_file(tmp_path / "kek", data)
    with pytest.raises(KekError) as error:
        read_kek(path)
    assert error.value.message == f"expected a 32-byte key in '{path}', found {found}"
    assert hint in error.value.hint
    assert TEXT.decode()[:10] not in str(error.value)


test_read_kek_raises_kek_error_for_what_is_not_a_regular_file = refusals(
    lambda path: read_kek(Path(path)),
    {"": ["/", "/dev/urandom", "/absent", "/dev/null"]},
    raises=KekError,
)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("key.b64", TEXT),
        ("key.hex", RAW.hex().encode()),
        ("key.hex", RAW.hex().upper().encode() + b"\n"),
        ("old", RAW + b"\n"),
    ],
)
def test_read_kek_hint_is_a_command_that_makes_a_key(
    tmp_path: Path, name: str, data: bytes
) -> None:
    with pytest.raises(KekError) as error:
        read_kek(key_file(tmp_path / name, data))
    command = error.value.hint.rpartition(": ")[2]
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)  # noqa: S602
    assert read_kek(tmp_path / "key").kek.raw() == RAW


@pytest.fixture
def key_dir(tmp_path: Path) -> Path:
    """A folder with a key, a link to it, and links that lead out of it; a key outside."""
    folder = tmp_path / "keys"
    (folder / "sub").mkdir(parents=True)
    key_file(folder / "sub" / "key")
    key_file(tmp_path / "outside", Kek.generate().raw())
    (folder / "link").symlink_to("sub/key")
    (folder / "out").symlink_to(tmp_path / "outside")
    (folder / "up").symlink_to("..")
    (folder / "loop").symlink_to("loop")
    (tmp_path / "keys-too").mkdir()
    key_file(tmp_path / "keys-too" / "key")
    (tmp_path / "in").symlink_to(folder / "sub")
    return folder


@pytest.mark.parametrize("path", ["sub/key", "{}/sub/key", "link", "sub/../link", "{}/../in/key"])
def test_read_kek_accepts_path_under_key_dir(key_dir: Path, path: str) -> None:
    assert read_kek(Path(path.format(key_dir)), key_dir).kek.raw() == RAW


@pytest.mark.parametrize(
    "path",
    [
        "../outside",
        "{}/../outside",
        "out",
        "up/outside",
        "up/absent",
        "../keys-too/key",
        "/etc/passwd",
        "/absent",
        "loop",
        "loop/key",
        "/" + "x" * 300,
    ],
)
def test_read_kek_refuses_every_path_outside_key_dir_alike(key_dir: Path, path: str) -> None:
    path = path.format(key_dir)
    with pytest.raises(KeyPathForbiddenError) as error:
        read_kek(Path(path), key_dir)
    assert error.value.message.endswith("is outside the directory that this provider may read")
    assert error.value.code == "key-path-forbidden"


def test_read_kek_accepts_key_dir_that_is_a_symlink(key_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "allowed").symlink_to(key_dir)
    assert read_kek(Path("link"), tmp_path / "allowed").kek.raw() == RAW
    assert read_kek(key_dir / "link", tmp_path / "allowed").kek.raw() == RAW


def test_read_kek_names_missing_file_under_key_dir(key_dir: Path) -> None:
    with pytest.raises(KekError, match="absent': no such file"):
        read_kek(Path("absent"), key_dir)
