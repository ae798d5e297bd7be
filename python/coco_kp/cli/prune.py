"""``coco-kp prune``: remove what no image of a layout needs."""

from __future__ import annotations

from pathlib import Path

import click

from coco_kp.cli.errors import UsageError
from coco_kp.cli.output import print_json, say_made
from coco_kp.cli.output_options import FORMAT, verbosity


@click.command("prune", short_help="Remove from a layout what no image needs.")
@click.argument("layout", metavar="oci:DIR")
@click.option("--dry-run", is_flag=True, help="Show what would be removed; remove nothing.")
@FORMAT
@verbosity
def command(layout: str, dry_run: bool, form: str) -> None:
    """Remove blobs from the layout oci:DIR that no image in it needs.

    Such are left by killed runs, by --keep-replaced and by other tools, and a manifest among them
    may still open with a key that was removed. Nothing else may write to the layout meanwhile but
    coco-kp.

    For example: coco-kp prune oci:images
    """
    from coco_kp.cli.table import size_text
    from coco_kp.model.reference import FileReference, parse_image_reference
    from coco_kp.transport.layout import prune

    reference = parse_image_reference(layout)
    match reference:
        case FileReference("oci", path, None, None):
            pruned = prune(Path(path), dry_run=dry_run)
        case _:
            raise UsageError(
                f"{reference} is not a whole layout",
                "name its directory alone: coco-kp prune oci:DIR",
            )
    if form == "json":
        print_json(
            {
                "layout": str(reference),
                "removed": list(map(str, pruned.blobs)),
                "bytes": pruned.size,
                "dry_run": dry_run,
            }
        )
        return
    for digest in pruned.blobs:
        say_made(str(digest))
    done = "would remove" if dry_run else "removed"
    say_made(f"{reference}: {done} {len(pruned.blobs)} blobs, {size_text(pruned.size)}")
