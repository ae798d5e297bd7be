"""Plans and their runs, before a registry in this process that fails as it is told."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from coco_kp.crypto import SAMPLE_KEK
from coco_kp.errors import CancelledError
from coco_kp.fleet.halt import Halt
from coco_kp.fleet.lines import MAX_FINDINGS
from coco_kp.fleet.plan import find_images
from coco_kp.fleet.work import Worker, failed
from coco_kp.model.digest import Digest
from coco_kp.model.reference import RegistryReference
from coco_kp.transport import Access
from coco_kp.transport.registry.session import Session
from tests.sim.http_server import Reply, Request
from tests.sim.registry import Registry, error
from tests.sim.transit import TransitKey
from tests.sim.vault import DENIED, ROOT_TOKEN, SimulatedVault, errors
from tests.support.command import KID, Command
from tests.support.documents import TAR, Layer, gzipped
from tests.support.image import tar
from tests.support.many_images import PLAIN_HTTP, Results, images, push, put
from tests.support.patience import PATIENCE
from tests.support.stored import image, index

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FLEET = images(2, 2)
LAYERS = 1 + 2 + 4
"""Distinct ones: the base, one of each repository, one of each image."""

OTHER_KID = "kbs:///default/key/2"


@pytest.fixture
def host(host: str, registry: Registry) -> str:
    push(host, FLEET)
    registry.seen.clear()
    return host


class Teams:
    """Plans and runs of one registry's images; copies go to ``sealed/`` in the same one."""

    def __init__(self, command: Command, host: str, key: Path, folder: Path) -> None:
        self.command = command
        self.host = host
        self.key = key
        self.folder = folder
        self._runs = 0

    def plan(self, *sources: str, key: Path | None = None, kid: str = KID, **more: object) -> Path:
        """Plan to encrypt all images of ``sources``, by default both repositories."""
        path = self.folder / "plan.jsonl"
        options = [
            word
            for name, value in more.items()
            for word in (f"--{name.replace('_', '-')}", *([] if value is True else [value]))
        ]
        self.command(
            *(
                "fleet",
                "plan",
                *(sources or [f"docker://{self.host}/team/app{n}" for n in (0, 1)]),
            ),
            *("--tls-verify=false", "-o", path, "--to"),
            f"docker://{self.host}/sealed/{{repository}}:{{tag}}",
            *("--recipient", f"keyid={kid},keypath={key or self.key}"),
            *options,
        )
        return path

    def run(self, plan: Path, *more: object, code: int = 0) -> Results:
        """Run a plan."""
        self._runs += 1
        results = Results(self.folder / f"results-{self._runs}.jsonl")
        outcome = self.command(
            *("fleet", "run", plan, *PLAIN_HTTP, "--results", results.path, *more), ok=False
        )
        assert outcome.code == code, outcome.err
        results.path.touch()
        return results

    def verify(self, key: Path | None = None, kid: str = KID) -> None:
        """Verify all copies with a key, which alone opens them."""
        for repository, tag in FLEET:
            self.command(
                *("verify", self.sealed(repository, tag), "--tls-verify=false"),
                *("--keypath", key or self.key, "--expect-keyid", kid),
            )

    def sealed(self, repository: str = "team/app0", tag: str = "0") -> str:
        """The name of a copy."""
        return f"docker://{self.host}/sealed/{repository}:{tag}"


@pytest.fixture
def teams(command: Command, host: str, key: Path, tmp_path: Path) -> Teams:
    return Teams(command, host, key, tmp_path)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def uploads(registry: Registry) -> list[Request]:
    """Requests that end an upload of a blob."""
    return [r for r in registry.seen if r.method == "PUT" and "/blobs/" in r.path]


def tags_moved(registry: Registry) -> list[Request]:
    """Requests that move a tag."""
    puts = registry.requests("PUT", "/manifests/")
    return [r for r in puts if "sha256:" not in r.path]


def test_fleet_run_encrypts_each_layer_once_and_then_nothing(
    teams: Teams, registry: Registry
) -> None:
    plan = teams.plan()
    first = teams.run(plan)
    assert first.outcomes == {"done": 4}
    assert first.summed("encrypted") == LAYERS
    assert first.summed("taken_over") == 3 * 4 - LAYERS
    teams.verify()
    registry.seen.clear()
    second = teams.run(plan)
    assert second.outcomes == {"unchanged": 4}
    assert {line["line"]["source"] for line in second.lines} == {
        f"docker://{teams.host}/{repository}:{tag}" for repository, tag in FLEET
    }
    assert {r.method for r in registry.seen} == {"GET"}
    assert len([r for r in registry.seen if r.path != "/v2/"]) == 2 * 4


def test_fleet_run_result_says_what_was_made(teams: Teams) -> None:
    plan = teams.plan(f"docker://{teams.host}/team/app0:1")
    (line,) = teams.run(plan).lines
    document = teams.command(
        "inspect", teams.sealed(tag="1"), "--tls-verify=false", "--format=json"
    ).json
    assert line["result"] == document["digest"]
    assert (line["outcome"], line["did"], line["exit_code"]) == ("done", "encrypt", 0)
    assert line["recipients"] == [KID]
    assert line["layers"] == {"encrypted": 3, "taken_over": 0, "readable": 0}
    assert line["line"] == lines(plan)[0]
    assert line["bytes_read"] == line["bytes_written"] == 3 * 10240
    assert line["error"] is None


def test_fleet_run_of_changed_source_encrypts_the_changed_layer(
    teams: Teams, registry: Registry
) -> None:
    teams.run(teams.plan())
    layers = [*FLEET["team/app0", "0"].blobs.values()][1:]
    put(teams.host, "team/app0", "0", image(*layers, tar({"new": b"layer"})))
    registry.seen.clear()
    results = teams.run(teams.plan())
    assert results.outcomes == {"done": 1, "unchanged": 3}
    (line,) = (line for line in results.lines if line["outcome"] == "done")
    assert line["layers"] == {"encrypted": 1, "taken_over": 3, "readable": 0}
    assert len(uploads(registry)) == 1
    teams.verify()


def test_fleet_run_for_new_key_rewraps_without_touching_layers(
    teams: Teams, registry: Registry, make_key: Callable[[str], Path]
) -> None:
    new = make_key("new")
    teams.run(teams.plan())
    registry.seen.clear()
    plan = teams.plan(key=new, kid=OTHER_KID, old_key=f"keypath={teams.key}")
    results = teams.run(plan)
    assert results.outcomes == {"done": 4}
    assert {line["did"] for line in results.lines} == {"rewrap"}
    assert not uploads(registry)
    teams.verify(new, OTHER_KID)
    assert teams.run(plan).outcomes == {"unchanged": 4}


def test_fleet_run_for_new_key_under_the_old_key_id_rewraps(
    teams: Teams, make_key: Callable[[str], Path]
) -> None:
    new = make_key("new")
    teams.run(teams.plan())
    results = teams.run(teams.plan(key=new, old_key=f"keypath={teams.key}"))
    assert {line["did"] for line in results.lines} == {"rewrap"}
    teams.verify(new)


def test_fleet_run_takes_a_recipient_away_that_is_not_wanted(
    teams: Teams, make_key: Callable[[str], Path]
) -> None:
    other = make_key("other")
    teams.run(teams.plan(recipient=f"keyid={OTHER_KID},keypath={other}"))
    results = teams.run(teams.plan())
    assert {line["did"] for line in results.lines} == {"rewrap"}
    assert {tuple(line["recipients"]) for line in results.lines} == {(KID,)}
    teams.verify()


def test_fleet_run_leaves_what_the_key_does_not_open(
    teams: Teams, registry: Registry, make_key: Callable[[str], Path]
) -> None:
    teams.run(teams.plan())
    registry.seen.clear()
    results = teams.run(teams.plan(key=make_key("new"), kid=OTHER_KID), code=4)
    assert results.outcomes == {"refused": 4}
    assert {line["exit_code"] for line in results.lines} == {4}
    assert {r.method for r in registry.seen if r.method != "HEAD"} == {"GET"}
    teams.verify()


def test_fleet_run_takes_no_layer_over_that_everybody_can_open(teams: Teams) -> None:
    source = f"docker://{teams.host}/team/app0:0"
    teams.command("encrypt", source, teams.sealed(), "--sample", *PLAIN_HTTP)
    results = teams.run(teams.plan(source))
    assert results.lines[0]["layers"] == {"encrypted": 3, "taken_over": 0, "readable": 0}
    teams.command(
        "verify", teams.sealed(), "--tls-verify=false", "--keypath", teams.key
    )  # which fails for the sample key


def test_fleet_run_writes_over_a_readable_copy(teams: Teams) -> None:
    put(teams.host, "sealed/team/app0", "0", FLEET["team/app0", "0"])
    assert teams.run(teams.plan()).outcomes == {"done": 4}
    teams.verify()


@pytest.mark.parametrize("swapped", ["layers", "packets"])
def test_fleet_run_believes_no_manifest_that_names_other_layers(
    teams: Teams, registry: Registry, swapped: str
) -> None:
    plan = teams.plan(f"docker://{teams.host}/team/app0:0")
    teams.run(plan)
    media_type, raw = registry.manifests["sealed/team/app0", "0"]
    document = json.loads(raw)
    first, second, *_ = document["layers"]
    if swapped == "layers":
        document["layers"][:2] = [second, first]
    else:
        first["annotations"], second["annotations"] = second["annotations"], first["annotations"]
    registry.manifests["sealed/team/app0", "0"] = media_type, json.dumps(document).encode()
    results = teams.run(plan)
    assert results.outcomes == {"done": 1}
    teams.command("verify", teams.sealed(), "--tls-verify=false", "--keypath", teams.key)
    assert teams.run(plan).outcomes == {"unchanged": 1}


def test_fleet_run_encrypts_anew_what_is_damaged_at_the_destination(
    teams: Teams, registry: Registry
) -> None:
    source = f"docker://{teams.host}/team/app0:0"
    teams.run(teams.plan(source))
    for (repository, digest), blob in registry.blobs.items():
        if repository.startswith("sealed/") and len(blob) == 10240:
            registry.blobs[repository, digest] = bytes(len(blob))
    layers = [*FLEET["team/app0", "0"].blobs.values()][1:]
    put(teams.host, "team/app0", "0", image(*layers, tar({"new": b"layer"})))
    results = teams.run(teams.plan(source))
    assert results.lines[0]["layers"] == {"encrypted": 4, "taken_over": 0, "readable": 0}
    teams.command("verify", teams.sealed(), "--tls-verify=false", "--keypath", teams.key)


def test_fleet_run_of_list_leaves_attestations_out_and_is_unchanged_then(teams: Teams) -> None:
    put(teams.host, "team/list", "1", index(image(tar({"a": b"1"})), image(tar({"b": b"2"}))))
    plan = teams.plan(f"docker://{teams.host}/team/list")
    assert teams.run(plan).summed("encrypted") == 2
    assert teams.run(plan).outcomes == {"unchanged": 1}


DOCKER = "application/vnd.docker"
ZSTD = f"{TAR}+zstd"


@pytest.mark.parametrize("kind", ["zstd", "docker"])
def test_fleet_run_of_layer_of_another_kind_is_unchanged_then(
    teams: Teams, registry: Registry, kind: str
) -> None:
    archive = tar({"a": b"1" * 1000})
    if kind == "zstd":
        other = image(Layer(zstd.compress(archive), ZSTD, archive))
    else:
        other = image(
            replace(gzipped(archive), media_type=f"{DOCKER}.image.rootfs.diff.tar.gzip"),
            config_type=f"{DOCKER}.container.image.v1+json",
            mediaType=f"{DOCKER}.distribution.manifest.v2+json",
        )
    put(teams.host, "team/other", "1", other)
    plan = teams.plan(f"docker://{teams.host}/team/other")
    assert teams.run(plan).summed("encrypted") == 1
    registry.seen.clear()
    assert teams.run(plan).outcomes == {"unchanged": 1}
    assert {r.method for r in registry.seen} == {"GET"}


def test_fleet_run_of_zstd_layer_believes_no_other_content(
    teams: Teams, registry: Registry
) -> None:
    first, second = (tar({"a": digit * 1000}) for digit in (b"1", b"2"))
    put(teams.host, "team/other", "1", image(Layer(zstd.compress(first), ZSTD, first)))
    teams.run(teams.plan(f"docker://{teams.host}/team/other"))
    put(teams.host, "team/other", "1", image(Layer(zstd.compress(second), ZSTD, second)))
    media_type, raw = registry.manifests["sealed/team/other", "1"]
    document = json.loads(raw)
    moved = json.loads(registry.manifests["team/other", "1"][1])
    document["config"] = moved["config"]  # all but the layer is that of the new source
    digest = document["config"]["digest"]
    registry.blobs["sealed/team/other", digest] = registry.blobs["team/other", digest]
    registry.manifests["sealed/team/other", "1"] = media_type, json.dumps(document).encode()
    assert teams.run(teams.plan(f"docker://{teams.host}/team/other")).outcomes == {"done": 1}


def test_fleet_run_for_one_platform_is_unchanged_then(teams: Teams) -> None:
    put(teams.host, "team/list", "1", index(image(tar({"a": b"1"})), image(tar({"b": b"2"}))))
    plan = teams.plan(f"docker://{teams.host}/team/list", platform="linux/arch1")
    assert teams.run(plan).summed("encrypted") == 1
    assert teams.run(plan).outcomes == {"unchanged": 1}


def test_fleet_run_with_base_leaves_it_readable_and_is_unchanged_then(teams: Teams) -> None:
    base = [*FLEET["team/app0", "0"].blobs.values()][1]
    put(teams.host, "team/base", "1", image(base))
    plan = teams.plan(skip_base=f"docker://{teams.host}/team/base:1")
    results = teams.run(plan)
    assert (results.summed("readable"), results.summed("encrypted")) == (4, LAYERS - 1)
    assert teams.run(plan).outcomes == {"unchanged": 4}


def test_fleet_run_leaves_no_layer_readable_that_the_base_got_since_it_was_planned(
    teams: Teams,
) -> None:
    _, first, second, _ = FLEET["team/app0", "0"].blobs.values()
    put(teams.host, "team/base", "1", image(first))
    plan = teams.plan(skip_base=f"docker://{teams.host}/team/base:1")
    put(teams.host, "team/base", "1", image(first, second))
    assert teams.run(plan).summed("readable") == 4


def move_when_asked(registry: Registry, repository: str, tag: str) -> None:
    """Let a source's tag point to another image from the first upload on."""
    moved = image(tar({"moved": b"on"}))
    done: list[Request] = []

    def fault(request: Request) -> None:
        if request.method == "POST" and not done:
            done.append(request)
            stored = registry.manifests[repository, tag][0], moved.top.raw
            registry.manifests[repository, tag] = stored

    registry.faults.append(fault)


def test_fleet_run_names_nothing_whose_source_moved_meanwhile(
    teams: Teams, registry: Registry, tmp_path: Path
) -> None:
    plan = teams.plan(f"docker://{teams.host}/team/app0:0", f"docker://{teams.host}/team/app0:1")
    move_when_asked(registry, "team/app0", "0")
    failed = tmp_path / "failed.jsonl"
    results = teams.run(plan, "--jobs=1", "--failed-to", failed, code=6)
    assert results.outcomes == {"moved": 1, "done": 1}
    assert [r.path for r in tags_moved(registry)] == ["/v2/sealed/team/app0/manifests/1"]
    assert lines(failed) == lines(plan)[:1]


@pytest.mark.parametrize("action", ["verify", "inspect"])
def test_fleet_run_of_moved_source_says_so(teams: Teams, tmp_path: Path, action: str) -> None:
    path = tmp_path / "plan"
    source = f"docker://{teams.host}/team/app0:0"
    teams.command(*("fleet", "plan", source, "--tls-verify=false", "--action", action, "-o", path))
    put(teams.host, "team/app0", "0", image(tar({"moved": b"on"})))
    assert teams.run(path, code=6).outcomes == {"moved": 1}


def test_fleet_run_of_verify_finds_what_is_readable(
    teams: Teams, registry: Registry, tmp_path: Path
) -> None:
    teams.run(teams.plan(f"docker://{teams.host}/team/app0:0"))
    path = tmp_path / "verify"
    teams.command(
        *("fleet", "plan", f"docker://{teams.host}/team/app0:0", teams.sealed()),
        *("--tls-verify=false", "--action=verify", "-o", path),
        *("--recipient", f"keyid={KID},keypath={teams.key}"),
    )
    registry.seen.clear()
    readable, sealed = sorted(
        teams.run(path, code=7).lines, key=lambda line: line["outcome"] == "done"
    )
    assert (readable["outcome"], readable["exit_code"]) == ("refused", 7)
    assert readable["layers"] == {"encrypted": 0, "taken_over": 0, "readable": 3}
    assert len(readable["findings"]) == 4
    assert (sealed["outcome"], sealed["recipients"]) == ("done", [KID])
    assert {r.method for r in registry.seen} == {"GET", "HEAD"}


def test_fleet_run_of_inspect_keeps_the_gravest_of_too_many_findings(
    teams: Teams, registry: Registry, tmp_path: Path
) -> None:
    source = f"docker://{teams.host}/team/app0:0"
    teams.command("encrypt", source, teams.sealed(), "--sample", *PLAIN_HTTP)
    media_type, raw = registry.manifests["sealed/team/app0", "0"]
    document = json.loads(raw)
    nobodys = document["layers"][0] | {"annotations": {}}
    document["layers"] = [nobodys] * (MAX_FINDINGS + 1) + document["layers"]
    altered = json.dumps(document).encode()
    for name in ("0", str(Digest.of(altered))):
        registry.manifests["sealed/team/app0", name] = media_type, altered
    path = tmp_path / "plan"
    teams.command(
        *("fleet", "plan", teams.sealed(), "--tls-verify=false", "--action=inspect", "-o", path)
    )
    (line,) = teams.run(path).lines
    assert [finding["exit_code"] for finding in line["findings"][:4]] == [7, 7, 7, 3]


def test_fleet_run_of_verify_refuses_another_recipient(teams: Teams, tmp_path: Path) -> None:
    teams.run(teams.plan(f"docker://{teams.host}/team/app0:0"))
    path = tmp_path / "verify"
    teams.command(
        *("fleet", "plan", teams.sealed(), "--tls-verify=false", "--action=verify", "-o", path),
        *("--recipient", f"keyid={OTHER_KID},keypath={teams.key}"),
    )
    (line,) = teams.run(path, code=7).lines
    assert any("not expected" in finding["message"] for finding in line["findings"])


def test_fleet_run_of_inspect_needs_no_key(teams: Teams, tmp_path: Path) -> None:
    teams.run(teams.plan())
    path = tmp_path / "inspect"
    teams.command(
        *("fleet", "plan", f"docker://{teams.host}/sealed/team/app0", "--tls-verify=false"),
        *("--action=inspect", "-o", path),
    )
    results = teams.run(path)
    assert results.outcomes == {"done": 2}
    assert [line["recipients"] for line in results.lines] == [[KID]] * 2


def rewrap(teams: Teams, new: Path, plan: Path, *sources: str, to: str = "") -> None:
    """Plan to rewrap images, by default in place."""
    teams.command(
        *("fleet", "plan", *sources, "--tls-verify=false", "--action=rewrap", "-o", plan),
        *(("--to", to) if to else ()),
        *("--recipient", f"keyid={OTHER_KID},keypath={new}", "--old-key", f"keypath={teams.key}"),
    )


def test_fleet_run_of_rewrap_in_place_is_unchanged_then(
    teams: Teams, make_key: Callable[[str], Path], tmp_path: Path
) -> None:
    teams.run(teams.plan())
    new, path = make_key("new"), tmp_path / "rewrap"
    rewrap(teams, new, path, *(f"docker://{teams.host}/sealed/team/app{n}" for n in range(2)))
    assert teams.run(path).outcomes == {"done": 4}
    teams.verify(new, OTHER_KID)
    assert teams.run(path).outcomes == {"unchanged": 4}


def test_fleet_run_of_rewrap_elsewhere_is_unchanged_then(
    teams: Teams, make_key: Callable[[str], Path], tmp_path: Path, registry: Registry
) -> None:
    teams.run(teams.plan())
    new, path = make_key("new"), tmp_path / "rewrap"
    to = f"docker://{teams.host}/new/{{repository}}:{{tag}}"
    rewrap(teams, new, path, f"docker://{teams.host}/sealed/team/app0", to=to)
    assert teams.run(path).outcomes == {"done": 2}
    assert ("new/sealed/team/app0", "1") in registry.manifests
    assert teams.run(path).outcomes == {"unchanged": 2}


def test_fleet_run_without_the_last_key_touches_nothing(teams: Teams, registry: Registry) -> None:
    plan = teams.plan()
    *others, last = plan.read_text().splitlines()
    last = last.replace(str(teams.key), f"{teams.key}-that-is-nowhere")
    plan.write_text("".join(f"{line}\n" for line in (*others, last)))
    registry.seen.clear()
    assert teams.run(plan, code=4).lines == []
    assert registry.seen == []


def test_fleet_run_for_the_key_that_everybody_knows_touches_nothing(
    teams: Teams, registry: Registry
) -> None:
    teams.key.write_bytes(SAMPLE_KEK)
    plan = teams.plan()
    registry.seen.clear()
    assert teams.run(plan, code=7).lines == []
    assert registry.seen == []


def test_fleet_run_of_rewrap_in_place_leaves_another_image_than_was_planned(
    teams: Teams, make_key: Callable[[str], Path], tmp_path: Path, registry: Registry
) -> None:
    teams.run(teams.plan())
    path = tmp_path / "rewrap"
    rewrap(teams, make_key("new"), path, teams.sealed())
    moved = registry.manifests["sealed/team/app0", "1"]
    registry.manifests["sealed/team/app0", "0"] = moved
    assert teams.run(path, code=6).outcomes == {"moved": 1}
    assert registry.manifests["sealed/team/app0", "0"] == moved


@pytest.mark.parametrize("other", ["readable", "for the new key"])
def test_fleet_run_of_rewrap_in_place_says_of_no_other_image_that_it_is_done(
    teams: Teams, make_key: Callable[[str], Path], tmp_path: Path, registry: Registry, other: str
) -> None:
    teams.run(teams.plan())
    new, path = make_key("new"), tmp_path / "rewrap"
    rewrap(teams, new, path, teams.sealed())
    teams.command(
        *("encrypt", f"docker://{teams.host}/team/app1:0", f"docker://{teams.host}/other:0"),
        *("--keyid", OTHER_KID, "--keypath", new, *PLAIN_HTTP),
    )
    place = ("team/app0", "0") if other == "readable" else ("other", "0")
    registry.manifests["sealed/team/app0", "0"] = registry.manifests[place]
    assert teams.run(path, code=6).outcomes == {"moved": 1}


def test_fleet_run_of_rewrap_of_readable_image_is_refused(
    teams: Teams, make_key: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "rewrap"
    rewrap(teams, make_key("new"), path, f"docker://{teams.host}/team/app0:0")
    (line,) = teams.run(path, code=3).lines
    assert line["outcome"] == "refused"
    assert "has no encrypted layer" in line["error"]["message"]
    assert line["error"]["code"] == "invalid-input"


def test_fleet_run_of_rewrap_of_what_everybody_opens_is_refused(
    teams: Teams, make_key: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "rewrap"
    source = f"docker://{teams.host}/team/app0:0"
    teams.command("encrypt", source, teams.sealed(), "--sample", *PLAIN_HTTP)
    rewrap(teams, make_key("new"), path, teams.sealed())
    assert teams.run(path, code=7).outcomes == {"refused": 1}


def test_fleet_run_rewraps_no_other_image_than_it_looked_at(
    teams: Teams, make_key: Callable[[str], Path], registry: Registry
) -> None:
    source = f"docker://{teams.host}/team/app0:0"
    teams.run(teams.plan())
    plan = teams.plan(source, key=make_key("new"), kid=OTHER_KID, old_key=f"keypath={teams.key}")
    other = registry.manifests["sealed/team/app0", "1"]
    looks = iter(range(1_000_000))

    def swap(request: Request) -> None:
        looked = request.method == "GET" and request.path.endswith("/app0/manifests/0")
        if looked and "/sealed/" in request.path and next(looks) == 1:
            registry.manifests["sealed/team/app0", "0"] = other

    registry.before = swap
    assert teams.run(plan, code=6).outcomes == {"failed": 1}
    assert registry.manifests["sealed/team/app0", "0"] == other


def test_fleet_run_believes_no_manifest_that_calls_a_readable_blob_encrypted(
    teams: Teams, registry: Registry
) -> None:
    source = f"docker://{teams.host}/team/app0:0"
    plan = teams.plan(source)
    teams.run(plan)
    media_type, raw = registry.manifests["sealed/team/app0", "0"]
    document = json.loads(raw)
    plain = json.loads(registry.manifests["team/app0", "0"][1])["layers"][0]
    document["layers"][0] |= {"digest": plain["digest"], "size": plain["size"]}
    registry.manifests["sealed/team/app0", "0"] = media_type, json.dumps(document).encode()
    assert teams.run(plan).outcomes == {"done": 1}
    teams.command("verify", teams.sealed(), "--tls-verify=false", "--keypath", teams.key)


def test_fleet_run_of_wrong_last_line_touches_nothing(teams: Teams, registry: Registry) -> None:
    plan = teams.plan()
    plan.write_text(plan.read_text() + "{}\n")
    registry.seen.clear()
    assert teams.run(plan, code=3).lines == []
    assert registry.seen == []


def test_fleet_run_of_plan_that_is_no_file_is_refused(teams: Teams, tmp_path: Path) -> None:
    plan = tmp_path / "plan"
    os.mkfifo(plan)
    teams.run(plan, code=3)


def test_fleet_run_of_two_plans_that_write_one_name_touches_nothing(
    teams: Teams, registry: Registry
) -> None:
    plan = teams.plan()
    merged = plan.read_text()
    other = f"docker://{teams.host}/team/app1:0"
    named = merged.replace(teams.sealed("team/app1", "1"), teams.sealed("team/app0", "1"))
    over = merged.replace(teams.sealed("team/app0", "0"), other)
    registry.seen.clear()
    for text in (named, over):
        plan.write_text(text)
        assert teams.run(plan, code=3).lines == []
    assert registry.seen == []
    plan.write_text(merged + merged)
    assert teams.run(plan, "--jobs=1").outcomes == {"done": 4, "unchanged": 4}


def test_fleet_run_encrypts_and_verifies_images_in_one_plan(teams: Teams, tmp_path: Path) -> None:
    plan, path = teams.plan(), tmp_path / "verify"
    teams.run(plan)
    teams.command(
        *("fleet", "plan", teams.sealed(), "--tls-verify=false", "--action=verify", "-o", path),
        *("--recipient", f"keyid={KID},keypath={teams.key}"),
    )
    path.write_text(plan.read_text() + path.read_text())
    assert teams.run(path).outcomes == {"done": 1, "unchanged": 4}


def test_fleet_run_of_plan_that_changes_meanwhile_does_no_other_line(
    teams: Teams, registry: Registry
) -> None:
    plan = teams.plan()
    other = plan.read_bytes().replace(b"/sealed/team/app1:", b"/secret/team/app1:")

    def change(_: Request) -> None:
        plan.write_bytes(other)

    registry.before = change
    teams.run(plan, "--jobs=1", code=3)
    assert not any(name.startswith("secret/") for name, _ in registry.manifests)


def test_fleet_run_of_shards_does_each_image_once(teams: Teams) -> None:
    plan = teams.plan()
    results = [teams.run(plan, "--shard", f"{number}/4") for number in range(4)]
    sources = [line["line"]["source"] for part in results for line in part.lines]
    assert len(sources) == len(set(sources)) == 4
    teams.verify()


def test_fleet_run_writes_failed_lines_as_a_plan(
    teams: Teams, registry: Registry, tmp_path: Path
) -> None:
    plan, failed = teams.plan(), tmp_path / "failed.jsonl"

    def fault(request: Request) -> Reply | None:
        wrong = request.method == "PUT" and request.path.endswith("/sealed/team/app1/manifests/1")
        return error(403, "DENIED", "not you") if wrong else None

    registry.faults.append(fault)
    results = teams.run(plan, "--failed-to", failed, code=8)
    assert results.outcomes == {"done": 3, "refused": 1}
    registry.faults.clear()
    assert [line["destination"] for line in lines(failed)] == [teams.sealed("team/app1", "1")]
    assert teams.run(failed, "--failed-to", failed).outcomes == {"done": 1}
    assert failed.read_text() == ""
    teams.verify()


def test_fleet_run_that_begins_nothing_leaves_all_lines_to_do(teams: Teams, tmp_path: Path) -> None:
    plan, key = teams.plan(), teams.key.read_bytes()
    planned = lines(plan)
    teams.key.unlink()
    teams.run(plan, "--failed-to", plan, code=4)
    assert lines(plan) == planned
    failed = tmp_path / "failed.jsonl"
    teams.run(plan, "--failed-to", failed, "--shard=1/2", code=4)
    assert lines(failed) == planned[2:]
    teams.key.write_bytes(key)
    teams.key.chmod(0o600)
    assert teams.run(failed, "--failed-to", failed).outcomes == {"done": 2}
    assert lines(failed) == []


def in_turn(*replies: Reply | None) -> Callable[[Request], Reply | None]:
    """Answer each request with the next reply, None for what it would get; then all over again.

    No request fails more often than it is asked again, however the workers' requests fall.
    """
    count = iter(range(1_000_000))
    failures = Counter[tuple[str, str]]()

    def fault(request: Request) -> Reply | None:
        reply, name = replies[next(count) % len(replies)], (request.method, request.path)
        failures[name] += reply is not None
        return reply if failures[name] <= RETRIES else None

    return fault


RETRIES = 4
"""By default."""

LATER = {"Retry-After": formatdate(0, usegmt=True)}


@pytest.mark.parametrize(
    "fault",
    [
        in_turn(*[None] * 6, Reply(429, LATER)),
        in_turn(*[None] * 9, *[Reply(503, LATER)] * 2),
        in_turn(*[None] * 11, Reply(500, LATER), Reply(502, LATER)),
    ],
    ids=["429", "503", "500 and 502"],
)
def test_fleet_run_outlasts_a_registry_that_fails_in_between(
    teams: Teams, registry: Registry, fault: Callable[[Request], Reply | None]
) -> None:
    plan = teams.plan()
    registry.faults.append(fault)
    assert teams.run(plan, "--jobs=3").outcomes == {"done": 4}
    registry.faults.clear()
    teams.verify()
    assert teams.run(plan).outcomes == {"unchanged": 4}


def test_fleet_run_goes_on_where_uploads_are_cut(teams: Teams, registry: Registry) -> None:
    plan = teams.plan()
    registry.breaks += [("PUT", 4000), *[("PATCH", 4000)] * 5]
    registry.faults.append(lambda request: registry.fault(request.method, request.path))
    assert teams.run(plan).outcomes == {"done": 4}
    assert not registry.breaks
    teams.verify()


def test_fleet_run_after_the_registry_failed_goes_on(teams: Teams, registry: Registry) -> None:
    plan = teams.plan()
    count = iter(range(1_000_000))
    registry.faults.append(lambda _: Reply(503, LATER) if next(count) > 40 else None)
    results = teams.run(plan, "--retries=0", "--jobs=1", code=6)
    assert results.outcomes["failed"] >= 1
    registry.faults.clear()
    again = teams.run(plan)
    assert again.outcomes.get("failed") is None
    teams.verify()


def test_fleet_run_of_image_that_was_cancelled_alone_may_be_repeated(
    teams: Teams, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a worker of a cluster has it whose work was ended there.
    monkeypatch.setattr(Worker, "run", lambda _, line, _keys: failed(line, CancelledError("ended")))
    results = teams.run(teams.plan(), code=6)
    assert {line["exit_code"] for line in results.lines} == {130}


def test_fleet_run_with_credentials_for_several_registries_is_refused(
    teams: Teams, registry: Registry
) -> None:
    plan = teams.plan()
    first, *others = lines(plan)
    first["source"] = "docker://other.example/team/app:1"
    plan.write_text("".join(f"{json.dumps(line)}\n" for line in (first, *others)))
    registry.seen.clear()
    teams.run(plan, "--src-creds=user:password", code=3)
    assert registry.seen == []


def test_fleet_plan_reads_no_key_and_writes_none(teams: Teams) -> None:
    plan = teams.plan(key=Path("/nowhere/key"))
    assert {tuple(line["keys"]) for line in lines(plan)} == {(f"keyid={KID},keypath=/nowhere/key",)}


def test_fleet_plan_leaves_signatures_and_such_out_by_name(teams: Teams) -> None:
    name = f"sha256-{64 * 'a'}"
    for tag in (name, *(f"{name}.{kind}" for kind in ("sig", "att", "sbom")), "sha256-short"):
        put(teams.host, "team/app0", tag, image(tar({"a": b"b"})))
    outcome = teams.command(
        *("fleet", "plan", f"docker://{teams.host}/team/app0", "--tls-verify=false"),
        "--action=inspect",
    )
    found = [json.loads(line)["source"].rpartition(":")[2] for line in outcome.out.splitlines()]
    assert found == ["0", "1", "sha256-short"]
    assert "3 images of 1 repositories; left out: 4 tags" in outcome.err


def planned(teams: Teams, *sources: str, stdin: str = "") -> set[str]:
    look = ("--tls-verify=false", "--action=inspect")
    outcome = teams.command("fleet", "plan", *sources, *look, stdin=stdin)
    found = [json.loads(line)["source"] for line in outcome.out.splitlines()]
    assert len(found) == len(set(found))
    return {name.removeprefix(f"docker://{teams.host}/team/") for name in found}


def test_fleet_plan_finds_what_its_words_mean(teams: Teams, tmp_path: Path) -> None:
    put(teams.host, "team/app0", "10", image(tar({"a": b"b"})))
    listed = tmp_path / "list"
    listed.write_text(
        f"# two\n\ndocker://{teams.host}/team/app1:0\ndocker://{teams.host}/team/app0:1\n"
    )
    root = f"docker://{teams.host}"
    every = {f"app{r}:{t}" for r in range(2) for t in range(2)} | {"app0:10"}
    assert planned(teams, root) == planned(teams, f"{root}/") == every
    assert planned(teams, f"{root}/team/app0") == {"app0:0", "app0:1", "app0:10"}
    assert planned(teams, f"{root}/team/app0:1*", f"{root}/team/app0:10") == {"app0:1", "app0:10"}
    assert planned(teams, f"{root}/team/app0:[0]") == {"app0:0"}
    assert planned(teams, str(listed)) == {"app1:0", "app0:1"}


def test_fleet_plan_passes_over_a_listed_repository_without_tags(
    teams: Teams, registry: Registry
) -> None:
    registry.manifests["team/empty", f"sha256:{64 * '0'}"] = registry.manifests["team/app0", "0"]
    outcome = teams.command(
        "fleet", "plan", f"docker://{teams.host}", "--tls-verify=false", "--action=inspect"
    )
    assert len(outcome.out.splitlines()) == len(FLEET)
    assert "without a tag: 1 repositories" in outcome.err


def test_fleet_plan_of_a_named_repository_without_tags_fails(teams: Teams) -> None:
    source = f"docker://{teams.host}/team/empty"
    outcome = teams.command(
        "fleet", "plan", source, "--tls-verify=false", "--action=inspect", ok=False
    )
    assert (outcome.code, outcome.out) == (8, "")


def test_fleet_plan_reads_words_from_stdin(teams: Teams) -> None:
    assert planned(teams, "-", stdin=f"docker://{teams.host}/team/app1:0\n") == {"app1:0"}


def test_finding_images_that_is_interrupted_waits_for_no_pause(
    registry: Registry, host: str
) -> None:
    asked, halt = threading.Event(), Halt()

    def fault(request: Request) -> Reply | None:
        if request.method != "HEAD":
            return None
        asked.set()
        return Reply(429, {"Retry-After": "1"})

    def names() -> Iterator[RegistryReference]:
        yield RegistryReference(host, "team/app0", "0")
        asked.wait(PATIENCE)
        raise KeyboardInterrupt

    registry.faults.append(fault)
    access = Access(tls_verify=False, retries=1)
    with Session(sleep=halt.sleep) as session, pytest.raises(KeyboardInterrupt):
        list(
            find_images(
                names(), access, session, layers=False, jobs=1, halt=halt, gone=lambda _: None
            )
        )
    with pytest.raises(CancelledError):
        halt.check()


def test_fleet_plan_pins_what_a_name_points_to(teams: Teams) -> None:
    plan = teams.plan()
    assert {line["digest"] for line in lines(plan)} == {
        str(stored.top.digest) for stored in FLEET.values()
    }


def test_fleet_plan_for_verify_asks_for_no_manifest(teams: Teams, registry: Registry) -> None:
    planned(teams, f"docker://{teams.host}/team/app0")
    assert registry.requests("GET", "/manifests/") == []
    assert len(registry.requests("HEAD", "/manifests/")) == 2


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--to", "docker://{host}/team/app0:{tag}", "--recipient=K"], 3, "is a source itself"),
        (["--to", "docker://{host}/one:{tag}", "--recipient=K"], 3, "both be written"),
        (["--to", "docker://{host}/one/{repository}", "--recipient=K"], 3, "both be written"),
        (
            [
                "--to",
                "docker://{host}/s/{repository}:{tag}",
                "--recipient=keyid=kbs:///a/b/c,kek-from=exec:id",
            ],
            3,
            "names a program to run",
        ),
    ],
)
def test_fleet_plan_with_options_that_contradict_is_refused(
    teams: Teams, options: list[str], code: int, words: str
) -> None:
    given = [
        option.replace("{host}", teams.host).replace("=K", f"=keyid={KID},keypath=/key")
        for option in options
    ]
    sources = [f"docker://{teams.host}/team/app{number}" for number in range(2)]
    outcome = teams.command("fleet", "plan", *sources, "--tls-verify=false", *given, ok=False)
    assert (outcome.code, outcome.out) == (code, "")
    assert words in outcome.err


def transit(monkeypatch: pytest.MonkeyPatch, vault: SimulatedVault) -> list[Request]:
    """Have a key ``app`` in the Vault; return a list that gets what it is asked to open."""
    monkeypatch.setenv("VAULT_TOKEN", ROOT_TOKEN)
    vault.transit.keys["app"] = TransitKey()
    asked: list[Request] = []

    def refused_half_way(request: Request) -> Reply | None:
        asked.append(request)
        return errors(403, DENIED) if len(asked) in {4, 5} else None

    vault.faults["POST transit/decrypt/app"] = refused_half_way
    vault.faults["PUT transit/decrypt/app"] = refused_half_way
    return asked


def test_fleet_run_whose_kms_refuses_half_way_leaves_what_it_cannot_open(
    teams: Teams, registry: Registry, vault: SimulatedVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = transit(monkeypatch, vault)
    plan = teams.plan()
    named = "keyid=kbs+external:///coco-kp/app,wrap-with=hashivault://app"
    plan.write_text(plan.read_text().replace(f"keyid={KID},keypath={teams.key}", named))
    for number in range(4):  # a process and a KEK for each image
        asked.clear()
        teams.run(plan, "--shard", f"{number}/4")
    asked.clear()
    registry.seen.clear()
    results = teams.run(plan, "--jobs=1", code=6)
    assert results.outcomes == {"unchanged": 2, "failed": 2}
    assert {r.method for r in registry.seen} == {"GET"}
    assert teams.run(plan).outcomes == {"unchanged": 4}


def test_fleet_run_asks_a_kms_once_for_all_images(
    teams: Teams, vault: SimulatedVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    transit(monkeypatch, vault)
    plan = teams.plan()
    named = "keyid=kbs+external:///coco-kp/app,wrap-with=hashivault://app"
    plan.write_text(plan.read_text().replace(f"keyid={KID},keypath={teams.key}", named))
    assert teams.run(plan, "--jobs=4").outcomes == {"done": 4}
    assert [r.path for r in vault.requests if "transit" in r.path].count(
        "/v1/transit/encrypt/app"
    ) == 1


def test_fleet_run_reads_a_layer_that_many_take_over_once(teams: Teams, registry: Registry) -> None:
    teams.run(teams.plan(), "--jobs=3")
    read = [
        digest
        for request in registry.requests("GET", "/v2/sealed/")
        for repository, kind, digest in [request.path.removeprefix("/v2/").rsplit("/", 2)]
        if kind == "blobs" and len(registry.blobs[repository, digest]) == 10240
    ]
    assert len(read) == len(set(read)) == 1 + 2  # the base, and that of each repository
