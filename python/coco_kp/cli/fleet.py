"""``coco-kp fleet``: many images, by a plan that any number of processes may work on."""

from __future__ import annotations

import click

from coco_kp.cli.fleet_k8s import k8s
from coco_kp.cli.fleet_plan import plan
from coco_kp.cli.fleet_report import report
from coco_kp.cli.fleet_run import run


@click.group("fleet", short_help="Plan, run and report the work on many images.")
def command() -> None:
    """Encrypt, rewrap, verify or inspect many images by a plan: lines of JSON, one an image.

    What is done already shows in the images themselves: a plan may be run again, and by several at
    once.
    """


command.add_command(plan)
command.add_command(run)
command.add_command(k8s)
command.add_command(report)
