"""``coco-kp decrypt``: restore the image that was encrypted."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from coco_kp.cli.headings import DESTINATION, KBC, OUTPUT, SOURCE, HeadedCommand
from coco_kp.cli.image_options import (
    DIGESTFILE,
    DRY_RUN,
    JOBS_OF_COPIES,
    KEEP_REPLACED,
    NO_PROGRESS,
    CopyAccess,
    OpeningOptions,
    tell_image,
)
from coco_kp.cli.options import KbcOptions, with_options
from coco_kp.cli.output import print_json, say, say_made
from coco_kp.cli.output_options import FORMAT, verbosity

_HEADINGS: Final = {
    "Most used": (
        *("--keypath", "--keys", "--kbc", "--kek-from", "--wrap-with", "--provider"),
        *("--dry-run", "--format", "--digestfile", "--help"),
    ),
    "The KBC": (*KBC, "--kbs-ca", "--kbs-insecure-http"),
    "Source": (*SOURCE, "--max-unpacked"),
    "Destination": (*DESTINATION, "--keep-replaced"),
    "Source and destination": ("--authfile", "--retries", "--jobs"),
    "Output": OUTPUT,
}


@click.command("decrypt", short_help="Decrypt an image.", cls=HeadedCommand, headings=_HEADINGS)
@click.argument("source")
@click.argument("destination")
@with_options(opening=OpeningOptions, kbc=KbcOptions, access=CopyAccess)
@JOBS_OF_COPIES
@DRY_RUN
@FORMAT
@KEEP_REPLACED
@DIGESTFILE
@NO_PROGRESS
@verbosity
def command(
    source: str,
    destination: str,
    opening: OpeningOptions,
    kbc: KbcOptions,
    access: CopyAccess,
    jobs: int | None,
    dry_run: bool,
    form: str,
    keep_replaced: bool,
    digestfile: Path | None,
    no_progress: bool,
) -> None:
    """Decrypt the image SOURCE into DESTINATION, both named as skopeo names them.

    The layers and the config are as before; encrypt says where the manifest is not. No layer takes
    its name before its HMAC and the digest that its packet records agree, or where that records
    none its diff_id. To judge the image is the part of verify.

    For example: coco-kp decrypt oci:encrypted oci:plain --keys aa-offline_fs_kbc-keys.json
    """
    from coco_kp.cli.interrupt import interruptible
    from coco_kp.cli.progress import ProgressBars
    from coco_kp.image.decrypt import decrypt_image

    with ProgressBars(wanted=not no_progress) as progress, interruptible():
        result = decrypt_image(
            source,
            destination,
            opening.needed(kbc),
            jobs=jobs,
            source_access=access.source(),
            destination_access=access.destination(),
            progress=progress,
            keep_replaced=keep_replaced,
            dry_run=dry_run,
        )
    if result.digest:
        tell_image(result.destination, result.digest, digestfile)
    if form == "json":
        print_json(result.to_json())
        return
    if dry_run:
        say(
            f"would write {result.destination}: layers {result.decrypted} decrypted, "
            f"{result.copied} copied; nothing was written"
        )
        return
    say_made(
        f"{result.destination} {result.digest}: layers {result.decrypted} decrypted, "
        f"{result.copied} copied"
    )
