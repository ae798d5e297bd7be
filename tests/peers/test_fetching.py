"""Peers are fetched once, whole, and from whom they claim to be; a missing one is never a pass."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.peers import cache, debian
from tests.peers.cache import PeerUnavailableError, cached
from tests.peers.debian import debian_bin
from tests.peers.skopeo import find_skopeo


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr(cache, "CACHE", folder)
    return folder


@pytest.fixture
def debian_machine() -> None:
    debian._require_debian()


def test_an_entry_is_made_once_by_all_who_want_it(empty_cache: Path) -> None:
    makers = []

    def make(folder: Path) -> None:
        makers.append(folder)
        time.sleep(0.1)
        (folder / "peer").touch()

    with ThreadPoolExecutor(4) as pool:
        entries = list(pool.map(lambda _: cached("entry", make), range(4)))
    assert len(makers) == 1
    assert entries == [empty_cache / "entry"] * 4
    assert (empty_cache / "entry" / "peer").exists()


def test_an_entry_that_failed_is_not_there_and_is_made_anew(empty_cache: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise PeerUnavailableError("no network")

    with pytest.raises(PeerUnavailableError):
        cached("entry", fail)
    assert [path.name for path in empty_cache.iterdir()] == [".entry.lock"]
    entry = cached("entry", lambda folder: (folder / "whole").touch())
    assert [path.name for path in entry.iterdir()] == ["whole"]


@pytest.mark.peer
@pytest.mark.usefixtures("empty_cache", "debian_machine")
def test_packages_that_debian_did_not_sign_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror whose release file names its packages, but carries no signature."""
    release = tmp_path / "mirror" / "dists" / debian.SUITE
    (release / "main" / "binary-amd64").mkdir(parents=True)
    (release / "main" / "binary-amd64" / "Packages").touch()
    empty = hashlib.sha256().hexdigest()
    (release / "Release").write_text(
        f"Codename: {debian.SUITE}\nSHA256:\n {empty} 0 main/binary-amd64/Packages\n"
    )
    monkeypatch.setattr(debian, "_mirror", lambda: f"file:{tmp_path}/mirror")
    with pytest.raises(PeerUnavailableError, match="is not signed"):
        debian.debian_bin()


@pytest.mark.parametrize(
    ("required", "outcome"), [("0", "1 skipped"), ("1", "1 error")], ids=["at home", "in CI"]
)
def test_a_missing_peer_is_no_pass(required: str, outcome: str) -> None:
    test = "tests/interop/test_peers.py::test_agent_opens_image_encrypted_by_upstream"
    env = os.environ | {"COCO_KP_PEERS": "/nowhere", "COCO_KP_REQUIRE_PEERS": required}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", test],
        cwd=Path(__file__).parents[2],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"= {outcome} in " in done.stdout
    assert "/nowhere" in done.stdout
    assert done.returncode == int(required)


@pytest.mark.peer
def test_a_skopeo_on_path_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "skopeo").symlink_to(find_skopeo())
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert find_skopeo() == tmp_path / "skopeo"


@pytest.mark.peer
def test_a_skopeo_without_key_providers_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends as Debian 12's 1.9.3 does (docs/protocols.md, before 1)."""
    skopeo = tmp_path / "skopeo"
    skopeo.write_text(
        "#!/bin/sh\necho 'Invalid encryption keys: Provided protocol not recognized' >&2; exit 1\n"
    )
    skopeo.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert find_skopeo() == debian_bin() / "skopeo"
