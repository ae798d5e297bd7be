"""A plan as objects of Kubernetes: an Indexed Job of which each index is a shard, and the plan.

What Kubernetes does is its own: it starts what was ended by a node, and repeats an index that
failed for a reason that may pass. No secret is in the objects: they name Secrets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final

from coco_kp.errors import InputError
from coco_kp.fleet.lines import PlanLine, parse_plan_key
from coco_kp.keys.file_reference import FileReference
from coco_kp.redact import shown
from coco_kp.values import dataclass

_PART: Final = 240_000
"""Characters of a part of the plan as JSON has it. A ConfigMap may hold 1 MiB; but `kubectl apply`
keeps a copy of it in an annotation, and annotations 256 KiB."""
_MAX_PARTS: Final = 200
_PERMANENT: Final = (2, 3, 4, 5, 7, 8)
"""Exit codes (docs/cli.md) after which a repeat gives the same."""
_REPEATS: Final = 6
_GRACE: Final = 120  # seconds from SIGTERM, in which a blob may end

# https://kubernetes.io/docs/concepts/overview/working-with-objects/names: a pod's host name is the
# Job's name and its index, and has 63 characters at the most.
_NAME: Final = re.compile(r"[a-z]([a-z0-9-]{0,48}[a-z0-9])?")
_SECRET: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_FOLDER: Final = re.compile(r"(/[A-Za-z0-9._-]+)+")
_IMAGE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}")

# `cat` in the order of the parts' names; `exec`, so that SIGTERM reaches coco-kp.
_SCRIPT: Final = (
    "cat /plan/* > /work/plan.jsonl\n"
    'exec coco-kp fleet run /work/plan.jsonl --shard "$JOB_COMPLETION_INDEX/{completions}" --quiet'
)
_AUTHFILE: Final = "/registry/config.json"

Object = dict[str, object]


@dataclass(frozen=True, slots=True)
class JobSettings:
    """What the Job is to be: its name, coco-kp's image, how many shards, and Secrets by name.

    ``key_folders`` are Secrets and where their members become files; ``registry_secret`` is of the
    type ``kubernetes.io/dockerconfigjson``; members of ``environment_secret`` become variables.
    """

    name: str
    image: str
    completions: int
    key_folders: Mapping[str, str]
    registry_secret: str | None = None
    environment_secret: str | None = None

    def __post_init__(self) -> None:
        """Raise ``InputError`` for what Kubernetes would refuse."""
        if not _NAME.fullmatch(self.name):
            raise InputError(
                f"{shown(self.name)} cannot be the Job's name",
                "take up to 50 of a-z, 0-9 and -, from a letter on",
            )
        if not _IMAGE.fullmatch(self.image):
            raise InputError(f"{shown(self.image)} is not the name of an image")
        named = (*self.key_folders, self.registry_secret, self.environment_secret)
        for secret in filter(None, named):
            if not _SECRET.fullmatch(secret):
                raise InputError(f"{shown(secret)} cannot be a Secret's name")
        for folder in self.key_folders.values():
            if not _FOLDER.fullmatch(folder) or ".." in PurePosixPath(folder).parts:
                raise InputError(f"{shown(folder)} is not a directory's absolute path")
        if len(set(self.key_folders.values())) < len(self.key_folders):
            raise InputError("two Secrets are to be in one directory")


def kubernetes_objects(lines: Iterable[PlanLine], settings: JobSettings) -> list[Object]:
    """Return the plan's ConfigMaps and the Job.

    Raises ``InputError`` for a plan that does not fit, has fewer lines than there are shards, or
    names a key's file that no Secret brings.
    """
    parts = list(_parts(_checked(lines, settings)))
    names = [f"{settings.name}-plan-{number:03}" for number in range(len(parts))]
    maps = [
        _object("v1", "ConfigMap", name, settings, immutable=True, data={f"{name}.jsonl": part})
        for name, part in zip(names, parts, strict=True)
    ]
    return [*maps, _job(settings, names)]


def _checked(lines: Iterable[PlanLine], settings: JobSettings) -> Iterator[str]:
    number = 0
    for number, line in enumerate(lines, 1):
        for key in (*line.keys, *line.old_keys):
            reference = parse_plan_key(key, "the plan", kid_needed=False).source.reference
            if isinstance(reference, FileReference):
                _check_file(reference.path, number, settings.key_folders.values())
        yield line.to_json()
    if number < settings.completions:
        raise InputError(
            f"the plan has {number} lines, fewer than the {settings.completions} completions",
            "an index would have nothing to do: use fewer completions",
            code="fleet-too-many-pods",
        )


def _check_file(path: str, number: int, folders: Iterable[str]) -> None:
    if str(PurePosixPath(path).parent) not in folders:
        raise InputError(
            f"line {number} names the key file {shown(path)}, which no Secret brings into the pod",
            "name a Secret for its directory",
            code="fleet-key-without-secret",
        )


def _parts(lines: Iterable[str]) -> Iterator[str]:
    """Put whole lines together to parts that fit."""
    part: list[str] = []
    size, count = 0, 1
    for number, line in enumerate(lines, 1):
        length = len(json.dumps(line)) - 2
        if length > _PART:
            raise InputError(f"line {number} of the plan is too long for a ConfigMap")
        if size + length > _PART:
            yield "".join(part)
            part, size, count = [], 0, count + 1
        if count > _MAX_PARTS:
            raise InputError(
                f"the plan is too long for {_MAX_PARTS} ConfigMaps", "make a Job of each half"
            )
        part.append(line)
        size += length
    yield "".join(part)


def _job(settings: JobSettings, plan: Sequence[str]) -> Object:
    spec = {
        "completionMode": "Indexed",
        "completions": settings.completions,
        "parallelism": settings.completions,
        "backoffLimitPerIndex": _REPEATS,
        "podFailurePolicy": {"rules": _rules()},
        "template": {"metadata": {"labels": _labels(settings)}, "spec": _pod(settings, plan)},
    }
    return _object("batch/v1", "Job", settings.name, settings, spec=spec)


def _rules() -> list[Object]:
    """Return what to do with an index whose pod failed; by default it is repeated and counted."""
    disruption = {"type": "DisruptionTarget", "status": "True"}
    refusals = {"containerName": "fleet", "operator": "In", "values": list(_PERMANENT)}
    return [
        {"action": "Ignore", "onPodConditions": [disruption]},
        {"action": "FailIndex", "onExitCodes": refusals},
    ]


def _pod(settings: JobSettings, plan: Sequence[str]) -> Object:
    volumes: list[Object] = [
        {
            "name": "plan",
            "projected": {"sources": [{"configMap": {"name": name}} for name in plan]},
        },
        {"name": "work", "emptyDir": {}},
    ]
    mounts: list[Object] = [
        {"name": "plan", "mountPath": "/plan", "readOnly": True},
        {"name": "work", "mountPath": "/work"},
    ]
    script = _SCRIPT.format(completions=settings.completions)
    for number, (secret, folder) in enumerate(settings.key_folders.items()):
        # Secrets' files are of root, for the pod's group.
        volumes.append(
            {"name": f"keys-{number}", "secret": {"secretName": secret, "defaultMode": 0o440}}
        )
        mounts.append({"name": f"keys-{number}", "mountPath": folder, "readOnly": True})
    if settings.registry_secret:
        item = {"key": ".dockerconfigjson", "path": PurePosixPath(_AUTHFILE).name}
        secret_volume = {"secretName": settings.registry_secret, "defaultMode": 0o440}
        volumes.append({"name": "registry", "secret": {**secret_volume, "items": [item]}})
        folder = str(PurePosixPath(_AUTHFILE).parent)
        mounts.append({"name": "registry", "mountPath": folder, "readOnly": True})
        script += f" --authfile {_AUTHFILE}"
    container: Object = {
        "name": "fleet",
        "image": settings.image,
        "command": ["/bin/sh", "-euc", script],
        "env": [{"name": "TMPDIR", "value": "/work"}],
        "resources": {
            "requests": {"cpu": "1", "memory": "256Mi"},
            "limits": {"memory": "1Gi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }
    if settings.environment_secret:
        container["envFrom"] = [{"secretRef": {"name": settings.environment_secret}}]
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "fsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }


def _object(version: str, kind: str, name: str, settings: JobSettings, **members: object) -> Object:
    metadata = {"name": name, "labels": _labels(settings)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **members}


def _labels(settings: JobSettings) -> Object:
    return {
        "app.kubernetes.io/name": "coco-kp",
        "app.kubernetes.io/instance": settings.name,
    }
