"""The workflows, the action and the task, as far as they can be checked without their servers."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.packaging.lint import actionlint, shellcheck
from tests.packaging.runner import ACTION, load_action
from tests.packaging.task import TASK
from tests.support.markdown import ROOT, blocks

WORKFLOWS: Final = sorted((ROOT / ".github/workflows").glob("*.yml"))
EXAMPLE, TASK_RUN = blocks("docs/ci.md", "yaml")
VERSION: Final[str] = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))["workspace"][
    "package"
]["version"]


def load(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return document


def steps(path: Path) -> list[dict[str, Any]]:
    document = load(path)
    jobs = document["jobs"].values() if "jobs" in document else [document["runs"]]
    return [step for job in jobs for step in job.get("steps", [])]


def scripts() -> dict[str, str]:
    found = {
        f"{path.name} {number}": step["run"]
        for path in (*WORKFLOWS, ACTION)
        for number, step in enumerate(steps(path))
        if "run" in step
    }
    return found | {"encrypt.yaml": TASK["spec"]["steps"][0]["script"]}


def test_workflows_exist_for_ci_and_release() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "release.yml"]


@pytest.mark.parametrize("name", scripts())
def test_workflow_scripts_contain_no_expression(name: str) -> None:
    # it would be put in before bash reads the line: whoever chooses its value chooses the code
    assert "${{" not in scripts()[name]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_pin_every_action_by_commit_with_its_version(path: Path) -> None:
    pins = re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))
    assert pins
    for pin in pins:
        assert re.fullmatch(r"\./\S+|[\w.-]+/[\w.-]+@[0-9a-f]{40} # v[\d.]+", pin), pin


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow_permissions_are_read_only_except_in_jobs_that_publish(path: Path) -> None:
    workflow = load(path)
    assert workflow["permissions"] in ({}, {"contents": "read"})
    writing = {
        name
        for name, job in workflow["jobs"].items()
        if "write" in job.get("permissions", {}).values()
    }
    assert writing <= {"images", "publish-images", "publish-packages"}


def test_release_publishes_only_after_tests_and_audits_passed() -> None:
    jobs = load(ROOT / ".github/workflows/release.yml")["jobs"]

    def before(name: str) -> set[str]:
        needed = jobs[name].get("needs", [])
        direct = {needed} if isinstance(needed, str) else set(needed)
        return direct.union(*map(before, direct)) if direct else direct

    for name in ("images", "publish-images", "publish-packages"):
        assert {"test", "audit"} <= before(name)
    assert "make audit" in [step.get("run") for step in jobs["audit"]["steps"]]
    assert jobs["test"]["uses"] == "./.github/workflows/ci.yml"


def test_ci_runs_both_commands_on_both_architectures() -> None:
    path = ROOT / ".github/workflows/ci.yml"
    assert {"make check", "make test-all"} <= {step.get("run") for step in steps(path)}
    matrix = load(path)["jobs"]["test"]["strategy"]["matrix"]
    assert matrix == {"runner": ["ubuntu-24.04", "ubuntu-24.04-arm"]}


def test_release_files_name_the_current_version() -> None:
    assert f"coco-kp=={VERSION}" in load_action()["runs"]["steps"][0]["run"]
    assert f"uses: coco-kp/coco-kp@v{VERSION}" in EXAMPLE
    assert TASK["spec"]["steps"][0]["image"].endswith(f"/coco-kp:{VERSION}")
    assert TASK["metadata"]["labels"]["app.kubernetes.io/version"] == VERSION


def test_example_workflow_passes_key_in_environment_only() -> None:
    (job,) = yaml.safe_load(EXAMPLE)["jobs"].values()
    (step,) = [step for step in job["steps"] if "coco-kp" in step.get("uses", "")]
    assert step["with"].keys() == load_action()["inputs"].keys()
    assert step["env"] == {"COCO_KP_KEY": "${{ secrets.COCO_KP_KEY }}"}


def test_example_task_run_binds_what_the_task_requires() -> None:
    run, task = yaml.safe_load(TASK_RUN)["spec"], TASK["spec"]
    assert run["taskRef"]["name"] == TASK["metadata"]["name"]
    assert [param["name"] for param in run["params"]] == [param["name"] for param in task["params"]]
    assert [bound["name"] for bound in run["workspaces"]] == [
        declared["name"] for declared in task["workspaces"]
    ]
    text = (ROOT / "docs/ci.md").read_text(encoding="utf-8")
    for bound, entry in zip(run["workspaces"], ("kek", "config.json"), strict=True):
        created = (
            f"kubectl create secret generic {bound['secret']['secretName']} --from-file={entry}"
        )
        assert created in text


@pytest.mark.full
def test_actionlint_accepts_workflows() -> None:
    assert actionlint(ROOT) == ""


@pytest.mark.full
def test_actionlint_accepts_example_workflow(tmp_path: Path) -> None:
    # the action beside it, so that its inputs and outputs are held to those that it has
    workflows = tmp_path / ".github/workflows"
    workflows.mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    (tmp_path / "action.yml").write_bytes(ACTION.read_bytes())
    local = EXAMPLE.replace(f"coco-kp/coco-kp@v{VERSION}", "./")
    (workflows / "encrypt.yml").write_text(local, encoding="utf-8")
    assert actionlint(tmp_path) == ""
    for wrong in (("keyid:", "kid:"), ("outputs.digest", "outputs.digests"), ('$DIGEST"', "$X")):
        (workflows / "encrypt.yml").write_text(local.replace(*wrong), encoding="utf-8")
        assert actionlint(tmp_path) != ""


@pytest.mark.full
@pytest.mark.parametrize("name", scripts())
def test_shellcheck_accepts_script(name: str, tmp_path: Path) -> None:
    # Tekton's variables are put in before bash reads the line
    text = re.sub(r"\$\((results\.[A-Z_]+\.path)\)", r"/\1", scripts()[name])
    (tmp_path / "script").write_text(text, encoding="utf-8")
    assert shellcheck(tmp_path / "script") == ""
