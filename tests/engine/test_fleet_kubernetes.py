"""The pods of a fleet's Job as processes, each with the command line that stands in the Job."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.sim.http_server import Reply, Request
from tests.sim.registry import Registry, error
from tests.support.command import KID, Command
from tests.support.many_images import images, push

FLEET = images(3, 2)
PLAIN = {"COCO_KP_FLEET_RUN_SRC_TLS_VERIFY": "false", "COCO_KP_FLEET_RUN_DEST_TLS_VERIFY": "false"}
"""As a Secret of ``--environment-secret`` would have it."""


@pytest.fixture
def host(host: str) -> str:
    push(host, FLEET)
    return host


class Job:
    """What `fleet k8s` wrote, with folders in place of the pod's volumes."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder = folder
        *maps, job = yaml.safe_load_all(text)
        (folder / "plan").mkdir()
        for name, part in (item for one in maps for item in one["data"].items()):
            (folder / "plan" / name).write_text(part)
        self.spec: dict[str, Any] = job["spec"]
        (self.container,) = self.spec["template"]["spec"]["containers"]
        self._pods = 0

    def start(self, index: int) -> subprocess.Popen[str]:
        """Start a pod of an index."""
        self._pods += 1
        work = self.folder / f"work-{self._pods}"
        work.mkdir()
        places = {"/plan/": f"{self.folder}/plan/", "/work/": f"{work}/"}
        words = list(self.container["command"])
        for mounted, place in places.items():
            words[-1] = words[-1].replace(mounted, place)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        env = {"PATH": path, "HOME": str(work), "JOB_COMPLETION_INDEX": str(index), **PLAIN}
        return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True)

    def is_repeated_after(self, code: int) -> bool:
        """Return whether Kubernetes starts an index again whose pod ended so."""
        rules = self.spec["podFailurePolicy"]["rules"]
        refusals = [rule["onExitCodes"]["values"] for rule in rules if "onExitCodes" in rule]
        return not any(code in values for values in refusals)


@pytest.fixture
def job(command: Command, host: str, key: Path, tmp_path: Path) -> Job:
    plan = tmp_path / "plan.jsonl"
    command(
        *("fleet", "plan", *(f"docker://{host}/team/app{n}" for n in range(3))),
        *("--tls-verify=false", "-o", plan, "--to"),
        f"docker://{host}/sealed/{{repository}}:{{tag}}",
        *("--recipient", f"keyid={KID},keypath={key}"),
    )
    line = ("fleet", "k8s", plan, "--image", "coco-kp", "--completions", "3")
    folder = tmp_path / "job"
    folder.mkdir()
    return Job(folder, command(*line, "--key-secret", f"app-key:{key.parent}").out)


def test_pods_of_all_indexes_do_the_whole_plan_two_of_them_on_one_shard_at_once(
    job: Job, command: Command, host: str, key: Path, tmp_path: Path
) -> None:
    pods = [job.start(index) for index in (0, 1, 1, 2)]
    said = [pod.communicate(timeout=300)[0] for pod in pods]
    assert [pod.returncode for pod in pods] == [0, 0, 0, 0]
    for repository, tag in FLEET:
        image = f"docker://{host}/sealed/{repository}:{tag}"
        command("verify", image, "--tls-verify=false", "--keypath", key)
    results = tmp_path / "results.jsonl"
    results.write_text("".join(said))
    report = command("fleet", "report", results, "--format", "json").json
    assert [image["standing"] for image in report["images"]] == ["encrypted"] * 6
    assert [said.count("\n") for said in said] == [2, 2, 2, 2]


def test_pod_whose_registry_fails_is_repeated(job: Job, registry: Registry) -> None:
    registry.faults.append(lambda _: Reply(500, headers={"Retry-After": "0"}))
    pod = job.start(0)
    pod.communicate(timeout=300)
    assert pod.returncode == 6
    assert job.is_repeated_after(pod.returncode)


def test_pod_whose_registry_refuses_is_not_repeated(job: Job, registry: Registry) -> None:
    def denied(request: Request) -> Reply | None:
        return error(403, "DENIED", "no") if request.path != "/v2/" else None

    registry.faults.append(denied)
    pod = job.start(0)
    pod.communicate(timeout=300)
    assert pod.returncode == 8
    assert not job.is_repeated_after(pod.returncode)


def test_pod_whose_key_is_none_is_not_repeated(job: Job, key: Path) -> None:
    key.write_bytes(b"short")
    pod = job.start(2)
    pod.communicate(timeout=300)
    assert pod.returncode == 4
    assert not job.is_repeated_after(pod.returncode)
