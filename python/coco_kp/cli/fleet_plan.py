"""``coco-kp fleet plan``: which images, and what is to become of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

from coco_kp.cli.errors import UsageError
from coco_kp.cli.headings import IMAGE, HeadedCommand
from coco_kp.cli.image_options import ImageAccess
from coco_kp.cli.options import FILE, usage, with_options
from coco_kp.cli.output import notice, warn
from coco_kp.cli.output_options import verbosity

if TYPE_CHECKING:
    from coco_kp.fleet.lines import Action, Options
    from coco_kp.model.reference import RegistryReference


_HEADINGS: Final = {
    "Most used": (
        *("--action", "--to", "--recipient", "--old-key", "--platform", "--skip-base"),
        *("--output", "--help"),
    ),
    "What is encrypted, or accepted": (
        *("--zstd", "--allow-foreign", "--keep-attestations", "--allow-attestations", "--target"),
    ),
    "The registries": IMAGE,
    "Output": ("--quiet", "--verbose"),
}


@click.command(
    "plan",
    short_help="Find images, and write what is to become of each.",
    cls=HeadedCommand,
    headings=_HEADINGS,
)
@click.argument("sources", metavar="SOURCE…", nargs=-1, required=True)
@click.option(
    "--action",
    type=click.Choice(["encrypt", "rewrap", "verify", "inspect"]),
    default="encrypt",
    show_default=True,
    help="What is to be done with each image.",
)
@click.option(
    "--to",
    metavar="TEMPLATE",
    help="Where images go: docker://new.example/{repository}:{tag}. A rewrap without it is done "
    "in place.",
)
@click.option(
    "--recipient",
    metavar="keyid=URI,keypath=FILE",
    multiple=True,
    help="A key for which images are encrypted, or of verify one that opens them (or kek-from=URI, "
    "wrap-with=URI); may be repeated. The plan names keys, and holds none.",
)
@click.option(
    "--old-key",
    "old_keys",
    metavar="keypath=FILE",
    multiple=True,
    help="A key that opens images that are encrypted already (or kek-from=URI, wrap-with=URI); "
    "may be repeated.",
)
@click.option(
    "--platform",
    "platforms",
    metavar="OS/ARCH[/VARIANT]",
    multiple=True,
    help="encrypt: take only this image of an index; may be repeated.",
)
@click.option(
    "--skip-base",
    metavar="IMAGE",
    help="encrypt, verify: leave layers readable that this base image has.",
)
@click.option(
    "--zstd",
    type=click.Choice(["gzip", "keep", "refuse"]),
    default="gzip",
    show_default=True,
    help="encrypt: what to do with zstd layers, which guests cannot read once encrypted.",
)
@click.option("--allow-foreign", is_flag=True, help="encrypt: leave foreign layers readable.")
@click.option(
    "--keep-attestations",
    is_flag=True,
    help="encrypt: leave attestations, and leave them readable.",
)
@click.option("--allow-attestations", is_flag=True, help="verify: attestations may be readable.")
@click.option(
    "--target",
    type=click.Choice(["coco", "nitro"]),
    help="verify: find also what a Confidential Containers guest would refuse, or an AWS Nitro "
    "sandbox.",
)
@click.option(
    "-o", "--output", type=FILE, metavar="FILE", help="Write the plan to FILE, not to stdout."
)
@with_options(access=ImageAccess)
@click.option(
    "--jobs", type=click.IntRange(1, 64), default=8, show_default=True, help="Ask for N at once."
)
@verbosity
def plan(
    sources: tuple[str, ...],
    action: Action,
    to: str | None,
    recipient: tuple[str, ...],
    old_keys: tuple[str, ...],
    platforms: tuple[str, ...],
    skip_base: str | None,
    zstd: Literal["gzip", "keep", "refuse"],
    allow_foreign: bool,
    keep_attestations: bool,
    allow_attestations: bool,
    target: Literal["coco", "nitro"] | None,
    output: Path | None,
    access: ImageAccess,
    jobs: int,
) -> None:
    """Write a plan for all images of SOURCE…, a line of JSON each; nothing else is written.

    A SOURCE is docker://host/repository (all tags), docker://host/repository:1.* (those that
    match), docker://host (all repositories of its catalogue), a file that has such words, a line
    each, or - for stdin. What a tag points to now is pinned. Tags of signatures, attestations and
    referrers are left out by name. No key is read.

    For example: coco-kp fleet plan docker://registry.example/team/app
    --to docker://new.example/{repository}:{tag}
    --recipient keyid=kbs:///default/key/app,keypath=/run/keys/app -o plan.jsonl
    """
    from coco_kp.files import write_file
    from coco_kp.fleet.halt import Halt
    from coco_kp.fleet.lines import Options
    from coco_kp.fleet.plan import (
        Template,
        Wanted,
        find_images,
        plan_lines,
        with_pinned_base,
    )
    from coco_kp.fleet.sources import Sources
    from coco_kp.transport.registry.session import Session

    options = Options(
        platforms, skip_base, zstd, allow_foreign, keep_attestations, allow_attestations, target
    )
    _check_options(action, to, recipient, old_keys, options)
    with usage():
        template = Template(to) if to else None
    how, halt = access.access(), Halt()
    with Session(sleep=halt.sleep) as session:
        found = Sources(how, session)
        names = found.images(sources)
        encrypts = action == "encrypt"
        each = list(
            find_images(names, how, session, layers=encrypts, jobs=jobs, halt=halt, gone=_tell_gone)
        )
        options = with_pinned_base(options, each, how, session)
        lines = plan_lines(each, Wanted(action, template, recipient, old_keys, options))
    text = "".join(line.to_json() for line in lines)
    if output:
        write_file(output, text.encode(), replace=True, mode=0o644)
    else:
        click.echo(text, nl=False)
    repositories = len({(line.source.host, line.source.repository) for line in lines})
    left_out = f"; left out: {found.left_out} tags of signatures and such" if found.left_out else ""
    empty = f"; without a tag: {found.empty} repositories" if found.empty else ""
    notice(f"planned: {len(lines)} images of {repositories} repositories{left_out}{empty}")


def _tell_gone(name: RegistryReference) -> None:
    warn(f"{name} is listed, but is not there: it is left out")


def _check_options(
    action: Action,
    to: str | None,
    recipient: tuple[str, ...],
    old_keys: tuple[str, ...],
    options: Options,
) -> None:
    """Raise ``UsageError`` for options that do not go with the action."""
    from coco_kp.fleet.lines import options_of

    writes = action in {"encrypt", "rewrap"}
    if action == "encrypt" and to is None:
        raise UsageError(
            "--to TEMPLATE is missing", "write docker://new.example/{repository}:{tag}"
        )
    if not writes and to is not None:
        raise UsageError(f"--to does not go with --action {action}, which writes nothing")
    if writes and not recipient:
        raise UsageError(
            "no key is named", "give --recipient keyid=kbs:///REPOSITORY/TYPE/TAG,keypath=FILE"
        )
    if action == "rewrap" and not old_keys:
        raise UsageError("no key is named that opens the images", "give --old-key keypath=FILE")
    if action == "inspect" and (recipient or old_keys):
        raise UsageError("--action inspect takes no key")
    for name in options.document():
        if name not in options_of(action):
            option = {"platforms": "platform"}.get(name, name).replace("_", "-")
            raise UsageError(f"--{option} does not go with --action {action}")
