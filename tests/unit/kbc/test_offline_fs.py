from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path

import pytest

from coco_kp.errors import CocoKpError, InputError, KekError
from coco_kp.kbc.offline_fs import (
    DEFAULT_FILES,
    EXTRA_FILES_VARIABLE,
    OfflineFsKbc,
    offline_fs_kbc,
)
from coco_kp.model.packet import parse_packet
from tests.vectors import load_vectors

GCM, CTR = (
    next(vector for vector in load_vectors("packets")["good"] if vector["name"] == name)
    for name in ("gcm", "ctr")
)
KEK = b64encode(bytes.fromhex(GCM["kek"])).decode()
OTHER_KEK = b64encode(bytes(32)).decode()
PATH = "default/key/key_id1"


def keys_file(path: Path, **keys: str) -> Path:
    path.write_text(json.dumps(keys))
    return path


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for /etc."""
    monkeypatch.delenv(EXTRA_FILES_VARIABLE, raising=False)
    return tmp_path


def unwrap(
    keys: Path | None = None, packet: str = GCM["packet"], etc: Path = Path("/nowhere")
) -> bytes:
    usual = tuple(etc / file.name for file in DEFAULT_FILES)
    kbc = OfflineFsKbc(keys, usual)
    return kbc.unwrap(parse_packet(packet.encode()))


def test_offline_fs_default_files_match_guest() -> None:
    assert [str(file) for file in DEFAULT_FILES] == [
        "/etc/aa-offline_fs_kbc-keys.json",
        "/etc/aa-offline_fs_kbc-resources.json",
    ]
    assert EXTRA_FILES_VARIABLE == "OFFLINE_FS_KBC_EXTRA_FILE_PATH"


@pytest.mark.parametrize("vector", [GCM, CTR], ids=lambda vector: vector["name"])
def test_offline_fs_opens_packet_with_key_from_named_file(
    tmp_path: Path, vector: dict[str, str]
) -> None:
    file = keys_file(tmp_path / "keys.json", **{PATH: KEK})
    assert unwrap(file, vector["packet"]) == vector["optsdata"].encode()


@pytest.mark.parametrize(
    "kid", ["kbs://kbs.example:8080/default/key/key_id1", "kbs:///default/key/key_id1?version=2"]
)
def test_offline_fs_looks_key_up_by_path_of_kid_only(tmp_path: Path, kid: str) -> None:
    file = keys_file(tmp_path / "keys.json", **{PATH: KEK})
    packet = json.dumps(json.loads(GCM["packet"]) | {"kid": kid})
    assert unwrap(file, packet) == GCM["optsdata"].encode()


@pytest.mark.parametrize("name", [file.name for file in DEFAULT_FILES])
def test_offline_fs_finds_key_in_either_default_file(etc: Path, name: str) -> None:
    keys_file(etc / name, **{PATH: KEK})
    assert unwrap(etc=etc) == GCM["optsdata"].encode()


def test_offline_fs_lets_later_file_override_earlier(
    etc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys_file(etc / DEFAULT_FILES[0].name, **{PATH: OTHER_KEK, "a/b/c": OTHER_KEK})
    with pytest.raises(KekError, match="does not open"):
        unwrap(etc=etc)
    keys_file(etc / DEFAULT_FILES[1].name, **{PATH: KEK})
    assert unwrap(etc=etc) == GCM["optsdata"].encode()
    extra = keys_file(etc / "extra.json", **{PATH: OTHER_KEK})
    monkeypatch.setenv(EXTRA_FILES_VARIABLE, f"{etc}/absent.json,{extra},")
    with pytest.raises(KekError, match="does not open"):
        unwrap(etc=etc)


def test_offline_fs_finds_key_in_extra_file_without_default_files(
    etc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EXTRA_FILES_VARIABLE, str(keys_file(etc / "extra.json", **{PATH: KEK})))
    assert unwrap(etc=etc) == GCM["optsdata"].encode()


def test_offline_fs_ignores_default_files_when_file_is_named(etc: Path) -> None:
    keys_file(etc / DEFAULT_FILES[0].name, **{PATH: KEK})
    with pytest.raises(KekError, match=f"there is no key '{PATH}' in '{etc}/keys.json'"):
        unwrap(keys_file(etc / "keys.json"), etc=etc)


def test_offline_fs_without_any_file_names_where_it_looked(etc: Path) -> None:
    with pytest.raises(KekError, match=r"none of .*aa-offline_fs_kbc-keys\.json, ") as error:
        unwrap(etc=etc)
    assert error.value.code == "keys-file-missing"
    assert error.value.hint.startswith("put the keys into one of these")


@pytest.mark.parametrize(
    ("content", "error"), [(b"", InputError), (b"[]", InputError), (b'{"a":1}', InputError)]
)
def test_offline_fs_refuses_malformed_file_even_if_another_has_the_key(
    etc: Path, content: bytes, error: type[CocoKpError]
) -> None:
    keys_file(etc / DEFAULT_FILES[0].name, **{PATH: KEK})
    (etc / DEFAULT_FILES[1].name).write_bytes(content)
    with pytest.raises(error):
        unwrap(etc=etc)


def test_offline_fs_reports_file_that_cannot_be_examined(
    etc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys_file(etc / DEFAULT_FILES[0].name, **{PATH: KEK})
    monkeypatch.setenv(EXTRA_FILES_VARIABLE, f"{etc}/{'x' * 300}")
    with pytest.raises(KekError, match="file name too long"):
        unwrap(etc=etc)


def test_offline_fs_sees_key_added_after_it_was_opened(tmp_path: Path) -> None:
    file = keys_file(tmp_path / "keys.json")
    kbc = offline_fs_kbc(keys_file=file)
    keys_file(file, **{PATH: KEK})
    assert kbc.unwrap(parse_packet(GCM["packet"].encode())) == GCM["optsdata"].encode()
