"""A plan as objects of Kubernetes: parts that fit, no secret, and nothing that cannot be run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from coco_kp.errors import CocoKpError, InputError
from coco_kp.fleet import kubernetes
from coco_kp.fleet.kubernetes import JobSettings, kubernetes_objects
from coco_kp.fleet.lines import PlanLine
from tests.support.command import Command
from tests.support.fleet import KID, plan_line

SETTINGS = JobSettings("fleet", "registry.example/coco-kp:slim", 2, {"app-keys": "/run/keys"})
LINES = [plan_line(tag=str(number)) for number in range(24)]
MANY = [plan_line(f"team/{'x' * 100}{number}") for number in range(3000)]
"""More than a ConfigMap holds."""


def objects(lines: list[PlanLine] = LINES, settings: JobSettings = SETTINGS) -> list[Any]:
    return list(kubernetes_objects(lines, settings))


def job(settings: JobSettings = SETTINGS) -> Any:
    return objects(settings=settings)[-1]


def test_plan_is_in_the_config_maps_line_by_line_in_its_order() -> None:
    *maps, made = objects(MANY)
    parts = [part for one in maps for part in one["data"].values()]
    assert len(parts) > 4
    assert all(part.endswith("\n") for part in parts)
    assert "".join(parts) == "".join(line.to_json() for line in MANY)
    (source,) = [
        volume["projected"]["sources"]
        for volume in made["spec"]["template"]["spec"]["volumes"]
        if volume["name"] == "plan"
    ]
    names = [one["configMap"]["name"] for one in source]
    assert names == [one["metadata"]["name"] for one in maps] == sorted(names)
    # `cat *` has the order of the file names, which are those of one folder
    assert [name for one in maps for name in one["data"]] == [f"{name}.jsonl" for name in names]


def test_config_map_and_the_annotation_of_kubectl_are_within_their_bounds() -> None:
    *maps, _ = objects(MANY)
    assert max(len(json.dumps(one)) for one in maps) < 256 * 1024


def test_plan_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes, "_PART", 100)
    with pytest.raises(InputError, match="line 1 of the plan is too long"):
        objects()
    monkeypatch.setattr(kubernetes, "_PART", 1000)
    monkeypatch.setattr(kubernetes, "_MAX_PARTS", 3)
    with pytest.raises(InputError, match="too long for 3 ConfigMaps"):
        objects()


def test_plan_of_fewer_lines_than_shards_is_refused() -> None:
    with pytest.raises(InputError, match="24 lines, fewer than the 25 completions"):
        objects(settings=replace(SETTINGS, completions=25))
    assert objects(settings=replace(SETTINGS, completions=24))


@pytest.mark.parametrize("path", ["keys/app", "app", "/run/keys/deeper/app", "/run/keys/../app"])
def test_key_file_that_no_secret_brings_is_refused(path: str) -> None:
    with pytest.raises(InputError, match="no Secret brings"):
        objects([replace(plan_line(), keys=(f"keyid={KID},keypath={path}",))] * 2)
    with pytest.raises(InputError, match="line 1 names the key file"):
        objects([replace(plan_line(), old_keys=(f"keypath={path}",))] * 2)


def test_key_in_a_store_needs_no_secret() -> None:
    line = replace(plan_line(), keys=(f"keyid={KID},kek-from=vault:///secret/app",))
    assert objects([line] * 2, replace(SETTINGS, key_folders={}))


def exit_codes(kind: type[CocoKpError] = CocoKpError) -> set[int]:
    return {kind.exit_code}.union(*map(exit_codes, kind.__subclasses__()))


def test_index_is_repeated_unless_its_exit_code_says_that_this_gives_the_same() -> None:
    disruption, refusals = job()["spec"]["podFailurePolicy"]["rules"]
    assert disruption["action"] == "Ignore"
    assert refusals["action"] == "FailIndex"
    bug, remote, interrupted = 1, 6, 130
    assert set(refusals["onExitCodes"]["values"]) == exit_codes() - {bug, remote, interrupted}
    (container,) = job()["spec"]["template"]["spec"]["containers"]
    assert refusals["onExitCodes"]["containerName"] == container["name"]
    assert job()["spec"]["template"]["spec"]["restartPolicy"] == "Never"  # as the policy wants it


def test_pod_has_no_rights_and_no_token() -> None:
    # https://kubernetes.io/docs/concepts/security/pod-security-standards, "restricted"
    pod = job()["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_secrets_are_named_and_their_files_are_not_for_others() -> None:
    settings = replace(SETTINGS, registry_secret="registries", environment_secret="vault")
    pod = job(settings)["spec"]["template"]["spec"]
    secrets = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    assert [secret["secretName"] for secret in secrets] == ["app-keys", "registries"]
    assert {secret["defaultMode"] for secret in secrets} == {0o440}
    (container,) = pod["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "vault"}}]
    assert container["command"][-1].endswith(" --authfile /registry/config.json")
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
    assert mounts["registry"] == "/registry"
    assert mounts["keys-0"] == "/run/keys"


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"name": "Fleet"}, "Job's name"),
        ({"name": "a" * 51}, "Job's name"),
        ({"name": "fleet-"}, "Job's name"),
        ({"image": "x y"}, "name of an image"),
        ({"registry_secret": "a_b"}, "Secret's name"),
        ({"environment_secret": "-a"}, "Secret's name"),
        ({"key_folders": {"a/b": "/run/keys"}}, "Secret's name"),
        ({"key_folders": {"a": "keys"}}, "absolute path"),
        ({"key_folders": {"a": "/run/../etc"}}, "absolute path"),
        ({"key_folders": {"a": "/run/$(x)"}}, "absolute path"),
        ({"key_folders": {"a": "/run/keys", "b": "/run/keys"}}, "in one directory"),
    ],
)
def test_settings_that_kubernetes_would_refuse_are_refused(
    wrong: Mapping[str, Any], what: str
) -> None:
    with pytest.raises(InputError, match=what):
        replace(SETTINGS, **wrong)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.jsonl"
    hostile = replace(
        plan_line(), keys=(f"keyid={KID},keypath=/run/keys/it's: \"#{{}} | - \u00e9\U0001f511",)
    )
    path.write_text("".join(line.to_json() for line in [*LINES, hostile]))
    return path


def test_fleet_k8s_prints_yaml_that_says_what_the_objects_are(command: Command, plan: Path) -> None:
    line = ("fleet", "k8s", plan, "--image", "x/y:1", "--completions", "3")
    outcome = command(*line, "--key-secret", "app-keys:/run/keys/")
    config, made = yaml.safe_load_all(outcome.out)
    assert list(config["data"].values()) == [plan.read_text()]
    settings = JobSettings("coco-kp-fleet", "x/y:1", 3, {"app-keys": "/run/keys"})
    assert made == job(settings)


def test_fleet_k8s_writes_into_a_file(command: Command, plan: Path, tmp_path: Path) -> None:
    line = ("fleet", "k8s", plan, "--image", "x/y:1", "--completions", "3")
    secret = ("--key-secret", "app-keys:/run/keys")
    printed = command(*line, *secret).out
    assert command(*line, *secret, "-o", tmp_path / "job.yaml").out == ""
    assert (tmp_path / "job.yaml").read_text() == printed


@pytest.mark.parametrize("given", [["a"], ["a:/x", "a:/y"]])
def test_fleet_k8s_refuses_key_secrets_that_say_two_things_or_none(
    command: Command, plan: Path, given: list[str]
) -> None:
    options = [word for secret in given for word in ("--key-secret", secret)]
    line = ("fleet", "k8s", plan, "--image", "x/y:1", "--completions", "3")
    assert command(*line, *options, ok=False).code == 2
