"""The Tekton Task: its structure, and its step run with bash as Tekton runs it.

No package registry has Tekton or the schema of its Task, so the members are held by hand to what
tekton.dev/v1 names (docs/tasks.md and docs/variables.md of tektoncd/pipeline).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any, Final

import pytest

import coco_kp
from tests.packaging.login import LOGIN
from tests.packaging.task import TASK
from tests.support.image import Image
from tests.support.key import Key

SPEC: Final = TASK["spec"]
(STEP,) = SPEC["steps"]
KEYID: Final = "kbs:///default/key/key_id1"


def names(members: list[dict[str, Any]]) -> set[str]:
    found = [member["name"] for member in members]
    assert len(found) == len(set(found))
    return set(found)


class TestStructure:
    def test_tekton_task_is_of_the_stable_api(self) -> None:
        assert TASK.keys() == {"apiVersion", "kind", "metadata", "spec"}
        assert (TASK["apiVersion"], TASK["kind"]) == ("tekton.dev/v1", "Task")
        assert TASK["metadata"].keys() == {"name", "labels", "annotations"}
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", TASK["metadata"]["name"])
        assert SPEC.keys() == {"description", "params", "workspaces", "results", "steps"}

    def test_tekton_task_members_are_those_of_the_api(self) -> None:
        for param in SPEC["params"]:
            assert param.keys() == {"name", "description"}  # no default: Tekton requires it
        for workspace in SPEC["workspaces"]:
            assert workspace.keys() <= {"name", "description", "readOnly", "optional"}
        for result in SPEC["results"]:
            assert result.keys() == {"name", "description"}  # type: string
        assert STEP.keys() == {"name", "image", "env", "securityContext", "script"}

    def test_tekton_task_has_the_results_that_chains_looks_for(self) -> None:
        assert names(SPEC["results"]) == {"IMAGE_DIGEST", "IMAGE_URL"}

    def test_tekton_task_declares_and_uses_every_variable(self) -> None:
        declared = (
            {f"params.{name}" for name in names(SPEC["params"])}
            | {f"workspaces.{name}.path" for name in names(SPEC["workspaces"])}
            | {f"results.{name}.path" for name in names(SPEC["results"])}
        )
        assert set(re.findall(r"\$\(([a-zA-Z_.-]+)\)", json.dumps(STEP))) == declared

    def test_tekton_task_puts_no_parameter_into_the_script(self) -> None:
        assert "$(params." not in STEP["script"]

    def test_tekton_step_runs_without_privileges(self) -> None:
        context = STEP["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}


class Pod:
    """The step's container: variables substituted, results and workspaces mounted."""

    def __init__(self, home: Path, **params: str) -> None:
        self.home = home
        self.results = home / "results"
        self.results.mkdir()
        self.variables = {f"params.{name}": value for name, value in params.items()}
        for name in names(SPEC["results"]):
            self.variables[f"results.{name}.path"] = str(self.results / name)
        for name in names(SPEC["workspaces"]):
            self.variables[f"workspaces.{name}.path"] = ""  # not bound

    def bind(self, workspace: str, folder: Path) -> None:
        self.variables[f"workspaces.{workspace}.path"] = str(folder)

    def run(self) -> subprocess.CompletedProcess[str]:
        script = self.home / "script"
        script.write_text(self._substituted(STEP["script"]), encoding="utf-8")
        script.chmod(0o755)
        env = {entry["name"]: self._substituted(entry["value"]) for entry in STEP["env"]}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        temp = self.home / "tmp"
        temp.mkdir()
        return subprocess.run(
            [script],
            cwd=self.home,
            env={"PATH": path, "HOME": str(self.home), "TMPDIR": str(temp), **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def written(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.results.iterdir()}

    def _substituted(self, text: str) -> str:
        return re.sub(r"\$\(([a-zA-Z_.-]+)\)", lambda match: self.variables[match[1]], text)


@pytest.mark.peer
def test_tekton_step_encrypts_and_writes_both_results(
    tmp_path: Path, image: Image, key: Key, trusted_registry: str
) -> None:
    name = f"{trusted_registry}/team/app:1"
    pod = Pod(tmp_path, src=image.reference, dst=f"docker://{name}", keyid=KEYID)
    pod.bind("keys", key.path.parent)
    key.path.chmod(0o644)  # as a Secret is mounted
    done = pod.run()
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    results = pod.written()
    assert results["IMAGE_URL"] == name
    report = coco_kp.verify_image(
        f"docker://{trusted_registry}/team/app@{results['IMAGE_DIGEST']}",
        [coco_kp.KekOpener(coco_kp.read_kek(key.path).kek)],
        access=coco_kp.Access(tls_verify=False),
    )
    assert report.failure is None
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.peer
def test_tekton_step_logs_in_with_dockerconfig_workspace(
    tmp_path: Path, image: Image, key: Key, password_registry: str
) -> None:
    login = tmp_path / "login"
    login.mkdir()
    auth = b64encode(LOGIN.encode()).decode()
    config = {"auths": {password_registry: {"auth": auth}}}
    (login / "config.json").write_text(json.dumps(config))
    dst = f"docker://{password_registry}/team/app:1"
    without, having = tmp_path / "without", tmp_path / "with"
    for home in (without, having):
        home.mkdir()
        (home / ".config").symlink_to(tmp_path / ".config")
    pod = Pod(without, src=image.reference, dst=dst, keyid=KEYID)
    pod.bind("keys", key.path.parent)
    done = pod.run()
    assert done.returncode == 8
    assert "wants a user name and a password" in done.stderr
    assert pod.written() == {}
    pod = Pod(having, src=image.reference, dst=dst, keyid=KEYID)
    pod.bind("keys", key.path.parent)
    pod.bind("dockerconfig", login)
    done = pod.run()
    assert done.returncode == 0, done.stderr
    assert pod.written().keys() == {"IMAGE_DIGEST", "IMAGE_URL"}


@pytest.mark.parametrize(
    ("dst", "size", "reason"),
    [
        ("docker://127.0.0.1:1/app:1", 31, "expected a 32-byte key"),
        ("docker://127.0.0.1:1/app:1", 0, "expected a 32-byte key"),
        ("oci:app-encrypted", 32, "dst must be an image in a registry"),
        ('$(touch pwned)"; touch pwned', 32, "dst must be an image in a registry"),
    ],
    ids=["short key", "empty key", "no registry", "code"],
)
def test_tekton_step_that_fails_writes_no_results(
    tmp_path: Path, image: Image, key: Key, dst: str, size: int, reason: str
) -> None:
    key.path.write_bytes(bytes(size))
    pod = Pod(tmp_path, src=image.reference, dst=dst, keyid=KEYID)
    pod.bind("keys", key.path.parent)
    done = pod.run()
    assert done.returncode != 0
    assert reason in done.stderr
    assert pod.written() == {}
    assert not (tmp_path / "app-encrypted").exists()
    assert not (tmp_path / "pwned").exists()
    assert list((tmp_path / "tmp").iterdir()) == []
