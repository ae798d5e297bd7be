"""``coco-kp fleet``: many images, by a plan that any number of processes may work on."""

from __future__ import annotations

import click

from coco_kp.cli.fleet_k8s import k8s
from coco_kp.cli.fleet_report import report


@click.group("fleet", short_help="Report on many images.")
def command() -> None:
    """Encrypt, rewrap, verify or inspect many images by a plan: lines of JSON, one an image."""


command.add_command(k8s)
command.add_command(report)
