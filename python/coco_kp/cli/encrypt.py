"""``coco-kp encrypt``: encrypt an image, or fail and leave the destination as it was."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

from coco_kp.cli.errors import UsageError
from coco_kp.cli.headings import DESTINATION, KBS, OUTPUT, SOURCE, HeadedCommand
from coco_kp.cli.image_options import (
    DIGESTFILE,
    DRY_RUN,
    JOBS_OF_COPIES,
    KEEP_REPLACED,
    NO_PROGRESS,
    CopyAccess,
    tell_image,
)
from coco_kp.cli.options import FILE, RegistrationOptions, usage, with_options
from coco_kp.cli.output import print_json, say, say_made
from coco_kp.cli.output_options import FORMAT, verbosity
from coco_kp.cli.recipients import PacketOptions, RecipientOptions

if TYPE_CHECKING:
    from coco_kp.image.results import EncryptionResult, LayerResult


_HEADINGS: Final = {
    "Most used": (
        *("--keyid", "--keypath", "--generate-key", "--recipient", "--register", "--kbs"),
        *("--platform", "--dry-run", "--format", "--help"),
    ),
    "For whom": (
        *("--key", "--kek-from", "--wrap-with", "--kek-into", "--sample", "--provider"),
        *("--provider-unwrap", "--trust-provider", "--algorithm", "--packet", "--provider-name"),
    ),
    "The KBS": KBS,
    "What is encrypted": (
        *("--layer", "--skip-base", "--reuse", "--reuse-keypath", "--keep-encrypted"),
        *("--allow-foreign", "--keep-attestations", "--drop-attestations", "--zstd", "--verify"),
    ),
    "Source": (*SOURCE, "--max-unpacked"),
    "Destination": (*DESTINATION, "--keep-replaced"),
    "Source and destination": ("--authfile", "--retries", "--jobs"),
    "Output": ("--digestfile", *OUTPUT),
}


@click.command("encrypt", short_help="Encrypt an image.", cls=HeadedCommand, headings=_HEADINGS)
@click.argument("source")
@click.argument("destination")
@with_options(recipients=RecipientOptions, packets=PacketOptions)
@click.option(
    "--register",
    is_flag=True,
    help="Register the key with the KBS of --kbs, once the image is known to open; those of "
    "--recipient are not registered.",
)
@with_options(registration=RegistrationOptions)
@click.option(
    "--platform",
    "platforms",
    metavar="OS/ARCH[/VARIANT]",
    multiple=True,
    help="Take only this image of an index; may be repeated.",
)
# Skopeo's word for what is done anyway: who writes it is right, and nobody needs to know it.
@click.option("--all", "all_platforms", is_flag=True, hidden=True)
@click.option(
    "--layer",
    "layers",
    type=int,
    metavar="N",
    multiple=True,
    help="Encrypt only layer N, from 0, or from -1 at the end; may be repeated.",
)
@click.option(
    "--skip-base", metavar="IMAGE", help="Leave layers readable that this base image has."
)
@click.option(
    "--reuse", metavar="IMAGE", help="Take unchanged layers over from this encrypted image."
)
@click.option(
    "--reuse-keypath",
    type=FILE,
    metavar="FILE",
    multiple=True,
    help="A key that opens the image of --reuse, where it is not the new one.",
)
@click.option("--keep-encrypted", is_flag=True, help="Leave layers as they are that are encrypted.")
@click.option("--allow-foreign", is_flag=True, help="Leave foreign layers readable.")
@click.option(
    "--keep-attestations",
    is_flag=True,
    help="Leave attestations readable; without it they are left out, for they describe the "
    "plaintext.",
)
@click.option("--drop-attestations", is_flag=True, help="Leave out SOCI indexes as well.")
@click.option(
    "--zstd",
    type=click.Choice(["gzip", "keep", "refuse"]),
    default="gzip",
    show_default=True,
    help="What to do with zstd layers, which guests cannot read once they are encrypted.",
)
@click.option(
    "--verify",
    type=click.Choice(["packets", "full"]),
    default="packets",
    show_default=True,
    help="Before the image gets its name, open all packets, or read and decrypt everything.",
)
@DRY_RUN
@with_options(access=CopyAccess)
@JOBS_OF_COPIES
@FORMAT
@KEEP_REPLACED
@DIGESTFILE
@NO_PROGRESS
@verbosity
def command(
    source: str,
    destination: str,
    recipients: RecipientOptions,
    packets: PacketOptions,
    register: bool,
    registration: RegistrationOptions,
    platforms: tuple[str, ...],
    all_platforms: bool,
    layers: tuple[int, ...],
    skip_base: str | None,
    reuse: str | None,
    reuse_keypath: tuple[Path, ...],
    keep_encrypted: bool,
    allow_foreign: bool,
    keep_attestations: bool,
    drop_attestations: bool,
    zstd: Literal["gzip", "keep", "refuse"],
    verify: Literal["packets", "full"],
    dry_run: bool,
    access: CopyAccess,
    jobs: int | None,
    form: str,
    keep_replaced: bool,
    digestfile: Path | None,
    no_progress: bool,
) -> None:
    """Encrypt the image SOURCE into DESTINATION, both named as skopeo names them.

    Every layer of every platform is encrypted, unless options say otherwise. Packets are opened
    again and manifests compared before the destination's name changes; after any failure it is as
    it was. No signature of SOURCE is checked: where policy.json demands one, a warning says so;
    what it rejects is refused.

    For example: coco-kp encrypt docker://docker.io/library/nginx docker://registry.example/nginx:enc
    --keyid kbs:///default/key/1 --keypath key
    """
    from coco_kp.cli.interrupt import interruptible
    from coco_kp.cli.progress import ProgressBars
    from coco_kp.cli.recipients import read_key_file
    from coco_kp.image.encrypt import check_names, encrypt_image
    from coco_kp.image.plan import Rules
    from coco_kp.keys.wrapper import KekOpener
    from coco_kp.model.manifest import parse_platform

    if all_platforms and platforms:
        raise UsageError("--all and --platform exclude each other")
    if layers and skip_base:
        raise UsageError("--layer and --skip-base exclude each other")
    if keep_attestations and drop_attestations:
        raise UsageError("--keep-attestations and --drop-attestations exclude each other")
    registrar = registration.registrar()
    if register != (registrar is not None):
        raise UsageError("--register and --kbs URL go together")
    readers = recipients.recipients(packets.form(), registrar)
    with usage():
        wanted = tuple(map(parse_platform, platforms))
        check_names(readers)
    rules = Rules(
        platforms=wanted,
        layers=layers or None,
        keep_encrypted=keep_encrypted,
        allow_foreign=allow_foreign,
        keep_attestations=keep_attestations,
        drop_attestations=drop_attestations,
        zstd=zstd,
    )
    with ProgressBars(wanted=not no_progress) as progress, interruptible():
        result = encrypt_image(
            source,
            destination,
            readers,
            rules=rules,
            base=skip_base,
            reuse=reuse,
            reuse_openers=[KekOpener(read_key_file(path)) for path in reuse_keypath],
            verify=verify,
            dry_run=dry_run,
            jobs=jobs,
            source_access=access.source(),
            destination_access=access.destination(),
            progress=progress,
            keep_replaced=keep_replaced,
        )
    if result.digest:
        tell_image(result.destination, result.digest, digestfile)
    if form == "json":
        print_json(result.to_json())
    else:
        _print(result)


def _print(result: EncryptionResult) -> None:
    from coco_kp.cli.table import print_table, size_text
    from coco_kp.image.plan import LayerAction

    for digest in result.attestations:
        click.echo(f"left readable: attestation {digest}: it describes the plaintext")
    for entry in result.left_out:
        if entry.what != "image":  # the user picked other platforms
            click.echo(f"left out: {entry}")
    if result.digest is None:
        print_table(
            ("IMAGE", "LAYER", "ACTION", "SIZE", "DIGEST"),
            [
                (
                    image.name,
                    str(layer.number),
                    _action(layer),
                    size_text(layer.size),
                    str(layer.source_digest),
                )
                for image in result.images
                for layer in image.layers
            ],
        )
        say(f"would write {result.destination}; nothing was written")
        return
    counts = {
        action: sum(layer.action is action for image in result.images for layer in image.layers)
        for action in LayerAction
    }
    readable = sum(count for action, count in counts.items() if action.readable)
    parts = [
        f"{count} {what}"
        for count, what in (
            (counts[LayerAction.ENCRYPT], "encrypted"),
            (counts[LayerAction.REUSE], "reused"),
            (counts[LayerAction.KEEP], "kept encrypted"),
            (readable, "left readable"),
        )
        if count or what == "encrypted"
    ]
    for image in result.images:
        for layer in image.layers:
            if layer.action.readable:
                click.echo(f"layer {layer.number} of {image.name}: {layer.action}")
    keys = ", ".join(result.key_ids) or "none"
    say_made(f"{result.destination} {result.digest}: layers {', '.join(parts)}; keys {keys}")


def _action(layer: LayerResult) -> str:
    return f"{layer.action}, as gzip" if layer.transcoded else str(layer.action)
