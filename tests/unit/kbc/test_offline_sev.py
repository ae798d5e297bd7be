"""``offline_sev``: keys that a guest was launched with."""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from coco_kp.errors import InputError, KekError
from coco_kp.kbc.injected_secret import InjectedSecrets
from coco_kp.kbc.kbcs import Kbcs
from coco_kp.kbc.offline_sev import offline_sev_kbc
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.kbc_spec import KbcSpec
from coco_kp.model.sev_secret import KEYS_GUID
from tests.support.patience import PATIENCE
from tests.support.wrapping import PATH, SECRET, Wrapping

if TYPE_CHECKING:
    from pathlib import Path


def write(file: Path, **keys: bytes) -> Path:
    file.write_text(json.dumps({name: b64encode(key).decode() for name, key in keys.items()}))
    return file


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize(
    "wrong", [{}, {"key_id1": bytes(32)}], ids=["alone", "beside another key by the tag"]
)
@pytest.mark.parametrize("name", [PATH, "key_id1"])
def test_offline_sev_finds_key_by_path_or_else_by_tag_in_a_copy_that_stays_as_it_is(
    tmp_path: Path, wrapping: Wrapping, algorithm: Algorithm, name: str, wrong: dict[str, bytes]
) -> None:
    file = write(tmp_path / "copy.json", **wrong | {name: wrapping.raw})
    before = file.read_bytes()
    kbc = offline_sev_kbc(keys_file=file)
    assert kbc.unwrap(wrapping.packet(algorithm)) == SECRET
    assert file.read_bytes() == before


def test_offline_sev_warns_of_a_keys_file_that_others_may_change(
    tmp_path: Path, wrapping: Wrapping, caplog: pytest.LogCaptureFixture
) -> None:
    file = write(tmp_path / "copy.json", **{PATH: wrapping.raw})
    file.chmod(0o622)
    assert offline_sev_kbc(keys_file=file).unwrap(wrapping.packet()) == SECRET
    assert caplog.messages == [f"others may change the keys file '{file}': chmod 600 it"]


@pytest.mark.parametrize("keep", [False, True])
def test_offline_sev_deletes_injected_secret_unless_it_is_kept_and_keeps_serving(
    tmp_path: Path, wrapping: Wrapping, keep: bool
) -> None:
    file = write(tmp_path / KEYS_GUID, **{PATH: wrapping.raw})
    secrets = InjectedSecrets(tmp_path, keep=keep)
    for _ in range(3):
        assert offline_sev_kbc(secrets=secrets).unwrap(wrapping.packet()) == SECRET
        assert file.exists() is keep


def test_offline_sev_takes_the_secret_of_its_guest_once_for_all(
    tmp_path: Path, wrapping: Wrapping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opens KBCs anew still has what was deleted: it is nowhere else."""
    file = write(tmp_path / KEYS_GUID, **{PATH: wrapping.raw})
    monkeypatch.setattr("coco_kp.kbc.offline_sev.THIS_GUESTS", InjectedSecrets(tmp_path))
    for _ in range(2):
        with Kbcs() as kbcs:
            assert kbcs.unwrap(KbcSpec("offline_sev", ""), wrapping.packet()) == SECRET
        assert not file.exists()


def test_offline_sev_shares_deleted_secret_among_threads(
    tmp_path: Path, wrapping: Wrapping
) -> None:
    write(tmp_path / KEYS_GUID, **{PATH: wrapping.raw})
    secrets, packet = InjectedSecrets(tmp_path), wrapping.packet()
    together = threading.Barrier(16)

    def work(_: int) -> bytes:
        together.wait(PATIENCE)
        return offline_sev_kbc(secrets=secrets).unwrap(packet)

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(work, range(16))) == [SECRET] * 16


@pytest.mark.parametrize(
    ("name", "words"),
    [("other", f"there is no key '{PATH}' in the secret '.*copy.json'"), (PATH, "does not open")],
)
def test_offline_sev_refuses_secret_without_the_key(
    tmp_path: Path, wrapping: Wrapping, name: str, words: str
) -> None:
    file = write(tmp_path / "copy.json", **{name: bytes(32)})
    with pytest.raises(KekError, match=words):
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
