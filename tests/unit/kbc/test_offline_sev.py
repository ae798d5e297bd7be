"""``offline_sev``: keys that a guest was launched with."""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest

from coco_kp.errors import InputError, KekError
from coco_kp.kbc import KbcSettings, open_kbc
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.kbc_spec import parse_kbc_spec
from coco_kp.model.sev_secret import KEYS_GUID
from tests.support.wrapping import PATH, SECRET, Wrapping

if TYPE_CHECKING:
    from pathlib import Path

SPEC = parse_kbc_spec("offline_sev_kbc::null")


def write(file: Path, **keys: bytes) -> Path:
    file.write_text(json.dumps({name: b64encode(key).decode() for name, key in keys.items()}))
    return file


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("name", [PATH, "key_id1"])
def test_offline_sev_finds_key_by_path_or_by_tag(
    tmp_path: Path, wrapping: Wrapping, algorithm: Algorithm, name: str
) -> None:
    file = write(tmp_path / "copy.json", **{name: wrapping.raw})
    kbc = open_kbc(SPEC, KbcSettings(keys_file=file))
    assert kbc.unwrap(wrapping.packet(algorithm)) == SECRET


def test_offline_sev_prefers_path_to_tag(tmp_path: Path, wrapping: Wrapping) -> None:
    file = write(tmp_path / "copy.json", **{"key_id1": bytes(32), PATH: wrapping.raw})
    kbc = open_kbc(SPEC, KbcSettings(keys_file=file))
    assert kbc.unwrap(wrapping.packet()) == SECRET


def test_offline_sev_does_not_change_copy_of_secret(tmp_path: Path, wrapping: Wrapping) -> None:
    file = write(tmp_path / "copy.json", **{PATH: wrapping.raw})
    before = file.read_bytes()
    open_kbc(SPEC, KbcSettings(keys_file=file)).unwrap(wrapping.packet())
    assert file.read_bytes() == before


def test_offline_sev_deletes_injected_secret_and_keeps_serving(
    tmp_path: Path, wrapping: Wrapping
) -> None:
    file = write(tmp_path / KEYS_GUID, **{PATH: wrapping.raw})
    settings = KbcSettings(sev_secrets=tmp_path)
    for _ in range(3):
        assert open_kbc(SPEC, settings).unwrap(wrapping.packet()) == SECRET
        assert not file.exists()


def test_offline_sev_keeps_injected_secret_with_keep_secret(
    tmp_path: Path, wrapping: Wrapping
) -> None:
    file = write(tmp_path / KEYS_GUID, **{PATH: wrapping.raw})
    settings = KbcSettings(sev_secrets=tmp_path, keep_secret=True)
    assert open_kbc(SPEC, settings).unwrap(wrapping.packet()) == SECRET
    assert file.exists()


def test_offline_sev_shares_deleted_secret_among_threads(
    tmp_path: Path, wrapping: Wrapping
) -> None:
    write(tmp_path / KEYS_GUID, **{PATH: wrapping.raw})
    settings, packet = KbcSettings(sev_secrets=tmp_path), wrapping.packet()
    opened: list[bytes] = []

    def work() -> None:
        opened.append(open_kbc(SPEC, settings).unwrap(packet))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == [SECRET] * 16


def test_offline_sev_reports_key_missing_from_secret(tmp_path: Path, wrapping: Wrapping) -> None:
    file = write(tmp_path / "copy.json", other=wrapping.raw)
    with pytest.raises(KekError, match=f"there is no key '{PATH}' in the secret '{file}'"):
        open_kbc(SPEC, KbcSettings(keys_file=file)).unwrap(wrapping.packet())


def test_offline_sev_fails_with_wrong_key(tmp_path: Path, wrapping: Wrapping) -> None:
    file = write(tmp_path / "copy.json", **{PATH: bytes(32)})
    with pytest.raises(KekError):
        open_kbc(SPEC, KbcSettings(keys_file=file)).unwrap(wrapping.packet())


def test_offline_sev_refuses_secret_that_is_not_a_keys_file(tmp_path: Path) -> None:
    (tmp_path / "copy.json").write_bytes(b"{")
    with pytest.raises(InputError, match="is not valid JSON"):
        open_kbc(SPEC, KbcSettings(keys_file=tmp_path / "copy.json"))


def test_offline_sev_reports_missing_secret(tmp_path: Path) -> None:
    with pytest.raises(KekError, match="no such file"):
        open_kbc(SPEC, KbcSettings(sev_secrets=tmp_path))
