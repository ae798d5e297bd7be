"""contrib/kubernetes and what `fleet k8s` writes, held to the schemas of Kubernetes.

The first is built by kustomize, and also held to those of cert-manager.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from coco_kp.cli.serve import command
from coco_kp.keyprovider.call import SERVICE
from coco_kp.keyprovider.server import READY
from coco_kp.service.clients_file import read_clients
from tests.peers.golang import KUBECTL_VALIDATE, KUBERNETES_OBJECTS, KUSTOMIZE
from tests.support.command import Command
from tests.support.fleet import plan_line
from tests.support.markdown import ROOT

FOLDER = ROOT / "contrib" / "kubernetes"
VERSION = "1.30"
"""The newest release whose schemas kubectl-validate has."""


def built() -> list[dict[str, Any]]:
    line: list[str | Path] = [KUSTOMIZE.have(), "build", FOLDER]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # it warns of what is deprecated
    return list(yaml.safe_load_all(done.stdout))


def objection(document: dict[str, Any], folder: Path) -> str:
    """Return what an API server would have against an object, empty for nothing."""
    text = yaml.safe_dump(document)
    said = _objection([KUBERNETES_OBJECTS.have()], text)
    ours = not document["apiVersion"].startswith("cert-manager.io/")
    if ours and not said and KUBECTL_VALIDATE.cached:
        file = folder / f"{document['kind']}.yaml"
        file.write_text(text)
        said = _objection([KUBECTL_VALIDATE.have(), "--version", VERSION, file], text)
    return said


def _objection(line: list[str | Path], text: str) -> str:
    done = subprocess.run(line, input=text, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.peer
def test_all_objects_are_valid(tmp_path: Path) -> None:
    objects = built()
    assert [objection(document, tmp_path) for document in objects] == [""] * len(objects)
    assert {document["kind"] for document in objects} == {
        *("Namespace", "ConfigMap", "Deployment", "Service", "Certificate", "NetworkPolicy"),
        "PodDisruptionBudget",
    }
    spaces = {document["metadata"].get("namespace", "coco-kp") for document in objects}
    assert spaces == {"coco-kp"}


@pytest.fixture
def fleet(command: Command, tmp_path: Path) -> list[dict[str, Any]]:
    """What `coco-kp fleet k8s` makes of a plan, with all that it can have."""
    plan = tmp_path / "plan.jsonl"
    plan.write_text(plan_line().to_json() * 3)
    line = ("fleet", "k8s", plan, "--image", "registry.example/coco-kp:slim", "--completions", "3")
    secrets = ("--key-secret", "app-keys:/run/keys", "--registry-secret", "registries")
    made = command(*line, *secrets, "--environment-secret", "vault").out
    return list(yaml.safe_load_all(made))


@pytest.mark.peer
def test_objects_of_a_fleet_are_valid(fleet: list[dict[str, Any]], tmp_path: Path) -> None:
    assert [document["kind"] for document in fleet] == ["ConfigMap", "Job"]
    assert [objection(document, tmp_path) for document in fleet] == ["", ""]


@pytest.mark.peer
def test_wrong_member_of_a_job_is_found(fleet: list[dict[str, Any]], tmp_path: Path) -> None:
    _, job = fleet
    job["spec"]["backoffLimitPerIndexes"] = 6
    assert "backoffLimitPerIndexes" in objection(job, tmp_path)


@pytest.mark.peer
@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("Deployment", {"spec": {"template": {"spec": {"containers": [{"name": 1}]}}}}),
        ("Service", {"spec": {"ports": [{"port": 1, "targetPorts": 1}]}}),
        ("NetworkPolicy", {"spec": {"podSelector": {}, "ingres": []}}),
        ("Certificate", {"spec": {"dnsName": "coco-kp"}}),
    ],
)
def test_wrong_members_are_found(tmp_path: Path, kind: str, wrong: dict[str, Any]) -> None:
    document = next(document for document in built() if document["kind"] == kind)
    assert objection({**document, **wrong}, tmp_path)


def container() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the pod of the deployment, and its container."""
    pod = yaml.safe_load((FOLDER / "deployment.yaml").read_text())["spec"]["template"]["spec"]
    (found,) = pod["containers"]
    return pod, found


def test_server_is_started_with_options_that_it_has() -> None:
    _, found = container()
    program, name, *arguments = found["args"]
    assert (program, name) == ("coco-kp", "serve")
    known = {option for parameter in command.params for option in parameter.opts}
    assert {argument.partition("=")[0] for argument in arguments} <= known
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    ports = {port["name"]: f"0.0.0.0:{port['containerPort']}" for port in found["ports"]}
    assert ports == {
        "grpc-tls": given["--socket"],
        "health": given["--health"],
        "metrics": given["--metrics"],
    }
    mounts = {mount["mountPath"] for mount in found["volumeMounts"]}
    named = [path for path in given.values() if path.startswith("/")]
    assert {path for path in named if not any(path.startswith(mount) for mount in mounts)} == set()


def test_probes_ask_for_what_the_server_says() -> None:
    _, found = container()
    (port,) = (port["containerPort"] for port in found["ports"] if port["name"] == "health")
    asked = {probe: found[probe]["grpc"] for probe in found if probe.endswith("Probe")}
    alive, ready = {"port": port, "service": SERVICE}, {"port": port, "service": SERVICE + READY}
    assert asked == {"startupProbe": alive, "livenessProbe": alive, "readinessProbe": ready}


def test_pod_has_no_rights_and_no_token() -> None:
    pod, found = container()
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert found["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_example_of_the_clients_file_is_read() -> None:
    read_clients(FOLDER / "clients.toml")


def test_readme_names_each_file_that_is_there() -> None:
    text = (FOLDER / "README.md").read_text()
    files = {path.name for path in FOLDER.iterdir()} - {"README.md"}
    assert set(re.findall(r"`([\w.-]+\.(?:yaml|toml))`", text)) == files
