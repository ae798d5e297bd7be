"""``offline_sev``: keys that a guest was launched with."""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest

from coco_kp.errors import InputError, KekError
from coco_kp.kbc.injected_secret import InjectedSecrets
from coco_kp.kbc.offline_sev import offline_sev_kbc
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.sev_secret import KEYS_GUID
from tests.support.wrapping import PATH, SECRET, Wrapping

if TYPE_CHECKING:
    from pathlib import Path


def write(file: Path, **keys: bytes) -> Path:
    file.write_text(json.dumps({name: b64encode(key).decode() for name, key in keys.items()}))
    return file


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("name", [PATH, "key_id1"])
def test_offline_sev_finds_key_by_path_or_by_tag(
    tmp_path: Path, wrapping: Wrapping, algorithm: Algorithm, name: str
) -> None:
    file = write(tmp_path / "copy.json", **{name: wrapping.raw})
    kbc = offline_sev_kbc(keys_file=file)
    assert kbc.unwrap(wrapping.packet(algorithm)) == SECRET


def test_offline_sev_prefers_path_to_tag(tmp_path: Path, wrapping: Wrapping) -> None:
    file = write(tmp_path / "copy.json", **{"key_id1": bytes(32), PATH: wrapping.raw})
    kbc = offline_sev_kbc(keys_file=file)
    assert kbc.unwrap(wrapping.packet()) == SECRET


def test_offline_sev_does_not_change_copy_of_secret(tmp_path: Path, wrapping: Wrapping) -> None:
    file = write(tmp_path / "copy.json", **{PATH: wrapping.raw})
    before = file.read_bytes()
    offline_sev_kbc(keys_file=file).unwrap(wrapping.packet())
    assert file.read_bytes() == before


def test_offline_sev_deletes_injected_secret_and_keeps_serving(
    tmp_path: Path, wrapping: Wrapping
) -> None:
    file = write(tmp_path / KEYS_GUID, **{PATH: wrapping.raw})
    secrets = InjectedSecrets(tmp_path)
    for _ in range(3):
        assert offline_sev_kbc(secrets=secrets).unwrap(wrapping.packet()) == SECRET
        assert not file.exists()


def test_offline_sev_keeps_injected_secret_with_keep_secret(
    tmp_path: Path, wrapping: Wrapping
) -> None:
    file = write(tmp_path / KEYS_GUID, **{PATH: wrapping.raw})
    secrets = InjectedSecrets(tmp_path, keep=True)
    assert offline_sev_kbc(secrets=secrets).unwrap(wrapping.packet()) == SECRET
    assert file.exists()


def test_offline_sev_shares_deleted_secret_among_threads(
    tmp_path: Path, wrapping: Wrapping
) -> None:
    write(tmp_path / KEYS_GUID, **{PATH: wrapping.raw})
    secrets, packet = InjectedSecrets(tmp_path), wrapping.packet()
    opened: list[bytes] = []

    def work() -> None:
        opened.append(offline_sev_kbc(secrets=secrets).unwrap(packet))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == [SECRET] * 16


def test_offline_sev_reports_key_missing_from_secret(tmp_path: Path, wrapping: Wrapping) -> None:
    file = write(tmp_path / "copy.json", other=wrapping.raw)
    with pytest.raises(KekError, match=f"there is no key '{PATH}' in the secret '{file}'"):
        offline_sev_kbc(keys_file=file).unwrap(wrapping.packet())


def test_offline_sev_fails_with_wrong_key(tmp_path: Path, wrapping: Wrapping) -> None:
    file = write(tmp_path / "copy.json", **{PATH: bytes(32)})
    with pytest.raises(KekError):
        offline_sev_kbc(keys_file=file).unwrap(wrapping.packet())


def test_offline_sev_refuses_secret_that_is_not_a_keys_file(
    tmp_path: Path, wrapping: Wrapping
) -> None:
    (tmp_path / "copy.json").write_bytes(b"{")
    with pytest.raises(InputError, match="is not valid JSON"):
        offline_sev_kbc(keys_file=tmp_path / "copy.json").unwrap(wrapping.packet())


def test_offline_sev_reports_missing_secret(tmp_path: Path, wrapping: Wrapping) -> None:
    with pytest.raises(KekError, match="no such file"):
        offline_sev_kbc(secrets=InjectedSecrets(tmp_path)).unwrap(wrapping.packet())
