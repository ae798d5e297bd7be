"""``coco-kp fleet k8s``: a plan as a Job of Kubernetes."""

from __future__ import annotations

from pathlib import Path

import click

from coco_kp.cli.errors import UsageError
from coco_kp.cli.options import FILE, usage
from coco_kp.cli.output import notice
from coco_kp.cli.output_options import verbosity
from coco_kp.redact import shown


@click.command("k8s", short_help="Write a plan as an Indexed Job of Kubernetes.")
@click.argument("plan", type=FILE)
@click.option("--image", required=True, help="The container image of coco-kp.")
@click.option(
    "--completions",
    type=click.IntRange(1, 10_000),
    metavar="N",
    required=True,
    help="How many pods do a shard of the plan each, at once.",
)
@click.option(
    "--name", default="coco-kp-fleet", show_default=True, help="Name of the Job and its parts."
)
@click.option(
    "--key-secret",
    "key_secrets",
    metavar="NAME:DIR",
    multiple=True,
    help="Let the members of this Secret be files of DIR, where the plan's keypath= looks; may "
    "be repeated.",
)
@click.option(
    "--registry-secret",
    metavar="NAME",
    help="Log in to registries with this Secret of the type kubernetes.io/dockerconfigjson.",
)
@click.option(
    "--environment-secret",
    metavar="NAME",
    help="Let the members of this Secret be variables: of a store, or of options of fleet run.",
)
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Write FILE instead of stdout.")
@verbosity
def k8s(
    plan: Path,
    image: str,
    completions: int,
    name: str,
    key_secrets: tuple[str, ...],
    registry_secret: str | None,
    environment_secret: str | None,
    output: Path | None,
) -> None:
    """Write PLAN as ConfigMaps and a Job, of which each index does a shard of it.

    What a registry, KBS or KMS failed at is repeated, what was refused is not. No secret is
    written: Secrets are named. Results are the pods' output.

    For example: coco-kp fleet k8s plan.jsonl --image registry.example/coco-kp:slim --completions 8
    --key-secret app-keys:/run/keys --registry-secret registries | kubectl apply -f -
    """
    from coco_kp.cli.yaml import yaml_lines
    from coco_kp.files import write_file
    from coco_kp.fleet.kubernetes import JobSettings, kubernetes_objects
    from coco_kp.fleet.lines import read_plan

    folders = dict(map(_split, key_secrets))
    if len(folders) < len(key_secrets):
        raise UsageError("a Secret is named twice with --key-secret")
    with usage():
        settings = JobSettings(
            name, image, completions, folders, registry_secret, environment_secret
        )
    lines = [
        line
        for document in kubernetes_objects(read_plan(plan), settings)
        for line in ("---", *yaml_lines(document))
    ]
    text = "".join(f"{line}\n" for line in lines)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_file(output, text.encode(), replace=True, mode=0o644)
        notice(f"wrote {output}; now: kubectl apply -f {output}")


def _split(text: str) -> tuple[str, str]:
    name, colon, folder = text.partition(":")
    if not colon:
        raise UsageError(f"{shown(text)} names no directory", "write NAME:DIR")
    return name, folder.rstrip("/") or "/"
