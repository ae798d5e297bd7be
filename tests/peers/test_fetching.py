"""Peers are fetched once, whole, and from whom they claim to be; a missing one is never a pass."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.peers import __main__ as main_module
from tests.peers import cache, debian, pypi
from tests.peers.cache import PeerUnavailableError, cached
from tests.peers.debian import TRIXIE, Suite, debian_bin
from tests.peers.folder import NO_FOLDER
from tests.peers.golang import GoProgram
from tests.peers.pypi import MOTO
from tests.peers.skopeo import find_skopeo


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr(cache, "CACHE", folder)
    return folder


def test_cached_entry_is_made_once_for_concurrent_callers(empty_cache: Path) -> None:
    makers = []

    def make(folder: Path) -> None:
        makers.append(folder)
        time.sleep(0.1)
        (folder / "peer").touch()

    with ThreadPoolExecutor(4) as pool:
        entries = list(pool.map(lambda _: cached("entry", "recipe", make), range(4)))
    assert len(makers) == 1
    assert entries == [empty_cache / "entry"] * 4
    assert (empty_cache / "entry" / "peer").exists()


def test_cached_entry_that_failed_is_removed_and_made_again(empty_cache: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise PeerUnavailableError("no network")

    with pytest.raises(PeerUnavailableError):
        cached("entry", "recipe", fail)
    assert [path.name for path in empty_cache.iterdir()] == [".entry.lock"]
    entry = cached("entry", "recipe", lambda folder: (folder / "whole").touch())
    assert {path.name for path in entry.iterdir()} == {"whole", cache.RECIPE}


@pytest.mark.peer
@pytest.mark.usefixtures("empty_cache")
def test_debian_packages_without_signature_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror whose release file names its packages, but carries no signature."""
    release = tmp_path / "mirror" / "dists" / TRIXIE.codename
    (release / "main" / "binary-amd64").mkdir(parents=True)
    (release / "main" / "binary-amd64" / "Packages").touch()
    empty = hashlib.sha256().hexdigest()
    (release / "Release").write_text(
        f"Codename: {TRIXIE.codename}\nSHA256:\n {empty} 0 main/binary-amd64/Packages\n"
    )
    monkeypatch.setattr(debian, "_mirror", lambda: f"file:{tmp_path}/mirror")
    with pytest.raises(PeerUnavailableError, match="is not signed"):
        debian.debian_bin()


def test_cached_entry_is_made_again_when_its_recipe_changes(empty_cache: Path) -> None:
    cached("entry", "one program", lambda folder: (folder / "one").touch())
    entry = cached("entry", "two programs", lambda folder: (folder / "two").touch())
    assert not (entry / "one").exists()
    assert (entry / "two").exists()
    assert [path.name for path in empty_cache.glob("*")] == [".entry.lock", "entry"]


def test_cached_entry_of_old_recipe_stays_until_new_one_is_complete(empty_cache: Path) -> None:
    def fail(_: Path) -> None:
        raise PeerUnavailableError("no network")

    cached("entry", "one program", lambda folder: (folder / "one").touch())
    with pytest.raises(PeerUnavailableError):
        cached("entry", "two programs", fail)
    assert (empty_cache / "entry" / "one").exists()


@pytest.mark.parametrize(
    "changed",
    [
        replace(TRIXIE, programs=(*TRIXIE.programs, "another")),
        replace(TRIXIE, also=()),
        replace(TRIXIE, codename="sid"),
        replace(TRIXIE, modules=("usr/lib/module.so",)),
        replace(TRIXIE, package_of=(("skopeo", "another"),)),
    ],
    ids=["program", "recommended", "suite", "module", "package"],
)
def test_suite_recipe_changes_with_its_packages(changed: Suite) -> None:
    assert changed.recipe != TRIXIE.recipe


def test_go_program_recipe_changes_with_its_sources(tmp_path: Path) -> None:
    (tmp_path / "main.go").write_text("package main")
    program = GoProgram("name", "1", ".", "no", tmp_path)
    before = program.recipe
    (tmp_path / "main.go").write_text("package main // changed")
    assert program.recipe != before


def test_python_program_recipe_changes_with_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pypi, "LOCKS", tmp_path)
    (tmp_path / "moto.txt").write_text("moto==1.0 \\\n")
    before = MOTO.recipe
    assert MOTO.title == "moto 1.0"
    (tmp_path / "moto.txt").write_text("moto==1.1 \\\n")
    assert MOTO.recipe != before


@pytest.mark.peer
@pytest.mark.parametrize("name", TRIXIE.programs)
def test_debian_13_program_runs_on_this_machine(name: str) -> None:
    program = debian_bin() / name
    done = subprocess.run(
        [program, "--version"], capture_output=True, text=True, check=True, env={}
    )
    assert name.removeprefix("docker-") in done.stdout


def run_tests(*tests: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests]
    return subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("required", "outcome"), [("0", "1 skipped"), ("1", "1 error")], ids=["at home", "in CI"]
)
def test_missing_folder_program_skips_test_or_fails_it_where_required(
    required: str, outcome: str
) -> None:
    test = "tests/interop/test_peers.py::test_agent_opens_image_encrypted_by_upstream"
    done = run_tests(test, COCO_KP_PEERS="/nowhere", COCO_KP_REQUIRE_PEERS=required)
    assert f"= {outcome} in " in done.stdout
    assert "/nowhere" in done.stdout
    assert done.returncode == int(required)


def test_tests_without_peers_folder_are_reported_skipped_in_one_line() -> None:
    """Not even CI needs it."""
    done = run_tests("tests/interop/test_packets.py", COCO_KP_PEERS="", COCO_KP_REQUIRE_PEERS="1")
    (line,) = [line for line in done.stdout.splitlines() if NO_FOLDER in line]
    assert re.match(r"SKIPPED \[\d\d\] tests/peers/skipping.py", line)
    assert done.returncode == 0


@pytest.mark.peer
def test_find_skopeo_prefers_debian_13_to_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "skopeo").symlink_to("/bin/false")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert find_skopeo() == debian_bin() / "skopeo"


# `python -m tests.peers`

Fetch = Callable[..., tuple[int, str]]


@dataclass(frozen=True)
class Peer:
    """A source that takes a while, or cannot be had."""

    name: str
    seconds: float = 0
    fault: str = ""
    cached: bool = False
    effort: str = "fetching: a while"
    title: str = "peer 1.0"

    def have(self) -> None:
        time.sleep(self.seconds)
        if self.fault:
            raise PeerUnavailableError(self.fault)


@pytest.fixture
def fetch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Fetch:
    def run_with(*sources: Peer, on_request: Sequence[Peer] = (), asked: Sequence[str] = ()) -> Any:
        monkeypatch.setattr(main_module, "SOURCES", sources)
        monkeypatch.setattr(main_module, "ON_REQUEST", on_request)
        code = main_module.main(asked)
        return code, capsys.readouterr().out

    monkeypatch.delenv("COCO_KP_PEERS", raising=False)
    monkeypatch.delenv("COCO_KP_REQUIRE_PEERS", raising=False)
    return run_with


def test_make_peers_prints_each_fetch_and_its_result(fetch: Fetch) -> None:
    code, out = fetch(Peer("one"), Peer("two", cached=True))
    assert code == 0
    assert out.index("one: fetching: a while\n") < out.index("one: has peer 1.0\n")
    assert "two: fetching" not in out
    assert "two: has peer 1.0\n" in out


def test_make_peers_reports_progress_of_long_fetch(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main_module, "SPEAK_EVERY", 0.05)
    _, out = fetch(Peer("long", seconds=0.5))
    assert "0 s: still at work on long\n" in out


@pytest.mark.parametrize(("required", "code"), [("", 0), ("1", 1)])
def test_make_peers_fails_for_missing_peer_where_required(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch, required: str, code: int
) -> None:
    monkeypatch.setenv("COCO_KP_REQUIRE_PEERS", required)
    found, out = fetch(Peer("one", fault="no network"), Peer("two"))
    assert "one: missing: no network\n" in out
    assert "two: has peer 1.0\n" in out
    assert found == code


def test_make_peers_fetches_slow_peer_on_request_only(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COCO_KP_REQUIRE_PEERS", "1")
    code, out = fetch(on_request=[Peer("big")])
    assert (code, "big: left out; `make peers PEERS=big` would have it\n" in out) == (0, True)
    assert "big: has peer 1.0\n" in fetch(on_request=[Peer("big")], asked=["big"])[1]
    assert fetch(on_request=[Peer("big")], asked=["bug"])[0] == 2
