"""Fleets in a real registry: killed at random, run by several at once, and left alone when done."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from coco_kp.cli.main import run as run_command
from coco_kp.crypto import Kek
from coco_kp.image.tree import images as images_of
from coco_kp.image.tree import read_tree
from coco_kp.keys.wrapper import KekOpener
from coco_kp.model.layer_encryption import parse_layer_encryption
from coco_kp.model.media_type import is_encrypted
from coco_kp.model.reference import RegistryReference
from coco_kp.transport.registry.source import RegistrySource
from tests.peers.debian import debian_bin
from tests.peers.registry import registry
from tests.support.access import PLAIN
from tests.support.command import KID
from tests.support.many_images import PLAIN_HTTP, Fleet, Results, images, push
from tests.support.patience import PATIENCE, wait_until

pytestmark = pytest.mark.peer


@dataclass(frozen=True)
class Place:
    """A registry, its folder, and a fleet in it that is planned to be copied to ``sealed/``."""

    address: str
    folder: Path
    fleet: Fleet
    key: Path

    @property
    def plan(self) -> Path:
        return self.folder / "plan.jsonl"

    @property
    def layers(self) -> int:
        """How many layers there are, each content once."""
        return len({layer for each in self.fleet.values() for layer in list(each.blobs)[1:]})

    def start(self, name: str, *more: str) -> tuple[subprocess.Popen[bytes], Results]:
        """Begin to run the plan in a process of its own."""
        results = Results(self.folder / name)
        results.path.touch()
        words = ["fleet", "run", str(self.plan), "--results", str(results.path), *PLAIN_HTTP, *more]
        command = [sys.executable, "-m", "coco_kp", *words]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        return process, results

    def run(self, name: str, *more: str) -> Results:
        """Run the plan to its end."""
        process, results = self.start(name, *more)
        _, err = process.communicate(timeout=10 * PATIENCE)
        assert process.returncode == 0, err.decode()
        return results

    def requests(self) -> list[str]:
        """What the registry was asked for, by its own log."""
        log = (self.folder / "registry.log").read_text(errors="replace")
        return [line.split('"')[1] for line in log.splitlines() if 'HTTP/1.1"' in line]

    def verify(self) -> None:
        """Verify all copies, each with its digests, HMACs and key."""
        path, words = self.folder / "verify.jsonl", ["--action=verify", "--tls-verify=false"]
        words += ["--recipient", f"keyid={KID},keypath={self.key}", "-o", str(path)]
        names = {f"docker://{self.address}/sealed/{name}" for name, _ in self.fleet}
        assert run_command(["fleet", "plan", *sorted(names), *words]) == 0
        results = self.folder / "verified.jsonl"
        words = ["fleet", "run", str(path), "--results", str(results), *PLAIN_HTTP]
        assert run_command(words) == 0
        assert Results(results).outcomes == {"done": len(self.fleet)}
        results.unlink()

    def encrypted(self) -> dict[str, set[str]]:
        """Return the encrypted layers of all copies by the layer that each one holds."""
        opener, found = KekOpener(Kek(self.key.read_bytes())), defaultdict[str, set[str]](set)
        for repository, tag in self.fleet:
            name = RegistryReference(self.address, f"sealed/{repository}", tag)
            with RegistrySource(name, PLAIN) as source:
                (image,) = images_of(read_tree(source))
            for layer in image.manifest.layers:
                assert is_encrypted(layer.media_type)
                (packet,) = parse_layer_encryption(layer.annotations).packets
                found[opener.open(packet).digest].add(str(layer.digest))
        return found


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A fleet of so many repositories with so many tags each, in a registry of its own."""
    fleet = images(*request.param)
    key = tmp_path / "key"
    key.touch(0o600)
    key.write_bytes(os.urandom(32))
    folder = tmp_path / "registry"
    folder.mkdir()
    with registry(debian_bin() / "docker-registry", folder) as address:
        push(address, fleet)
        place = Place(address, folder, fleet, key)
        names = sorted({f"docker://{address}/{name}" for name, _ in fleet})
        words = ["--to", f"docker://{address}/sealed/{{repository}}:{{tag}}", "-o", str(place.plan)]
        words += ["--recipient", f"keyid={KID},keypath={key}", "--tls-verify=false"]
        assert run_command(["fleet", "plan", *names, *words]) == 0
        yield place


def done(results: Results) -> int:
    return results.path.read_text().count('"outcome": "done"')


@pytest.mark.parametrize(
    ("place", "kills"),
    [
        ((4, 3), 6),
        pytest.param((20, 10), 50, marks=[pytest.mark.full, pytest.mark.xdist_group("fleet")]),
    ],
    indirect=["place"],
)
def test_fleet_run_killed_at_random_goes_on_and_encrypts_each_layer_once(
    place: Place, kills: int
) -> None:
    dice = random.Random(kills)
    made = 0
    for number in range(kills):
        process, results = place.start("results.jsonl", "--jobs=3")
        enough = made + dice.randint(0, 2 * len(place.fleet) // kills)
        wait_until(lambda: done(results) >= enough or process.poll() is not None)  # noqa: B023
        time.sleep(dice.uniform(0, 0.2))
        ended = process.poll()
        process.kill()
        _, err = process.communicate()
        assert ended in {None, 0}, (number, err.decode())
        made = done(results)
    assert made <= len(place.fleet)
    last = place.run("last.jsonl")
    assert set(last.outcomes) <= {"done", "unchanged"}
    assert len(last.lines) == len(place.fleet)
    place.verify()
    encrypted = place.encrypted()
    assert len(encrypted) == place.layers
    assert {len(found) for found in encrypted.values()} == {1}
    asked = len(place.requests())
    assert place.run("second.jsonl").outcomes == {"unchanged": len(place.fleet)}
    again = [request for request in place.requests()[asked:] if request != "GET /v2/ HTTP/1.1"]
    assert {request.partition(" ")[0] for request in again} == {"GET"}
    assert len(again) <= 2 * len(place.fleet)


@pytest.mark.parametrize("place", [(3, 3)], indirect=True)
def test_fleet_run_by_two_at_once_makes_images_that_verify(place: Place) -> None:
    both = [place.start(f"{number}.jsonl", "--jobs=2") for number in range(2)]
    for process, results in both:
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err.decode()
        assert sum(results.outcomes.values()) == len(place.fleet)
    place.verify()
    assert place.run("third.jsonl").outcomes == {"unchanged": len(place.fleet)}


@pytest.mark.parametrize("place", [(3, 3)], indirect=True)
def test_fleet_run_of_two_shards_at_once_does_each_image_once(place: Place) -> None:
    both = [place.start(f"{number}.jsonl", "--shard", f"{number}/2") for number in range(2)]
    sources = []
    for process, results in both:
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err.decode()
        sources += [line["line"]["source"] for line in results.lines]
    assert sorted(sources) == sorted(
        json.loads(line)["source"] for line in place.plan.read_text().splitlines()
    )
    place.verify()


@pytest.mark.parametrize("place", [(3, 4)], indirect=True)
def test_fleet_run_that_is_terminated_ends_cleanly_and_goes_on(place: Place) -> None:
    process, results = place.start("first.jsonl", "--jobs=2")
    wait_until(lambda: done(results) >= 2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err.decode()
    assert b"Traceback" not in err
    assert set(results.outcomes) == {"done"}
    named = {line["line"]["destination"] for line in results.lines}
    again = place.run("second.jsonl")
    unchanged = {
        line["line"]["destination"] for line in again.lines if line["outcome"] == "unchanged"
    }
    assert named == unchanged
    place.verify()
