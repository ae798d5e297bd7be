"""``coco-kp inspect``: what an image's manifests tell of its encryption."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coco_kp.cli.hints import advice
from coco_kp.cli.image_options import ImageAccess
from coco_kp.cli.options import with_options
from coco_kp.cli.output import print_json, say
from coco_kp.cli.output_options import FORMAT, verbosity

if TYPE_CHECKING:
    from coco_kp.image.facts import PacketFacts
    from coco_kp.image.inspect import Inspection


@click.command("inspect", short_help="Show what is encrypted, how and for whom.")
@click.argument("image")
@with_options(access=ImageAccess)
@FORMAT
@verbosity
def command(image: str, access: ImageAccess, form: str) -> None:
    """Show for each layer of IMAGE whether it is encrypted, how, and with which key.

    Needs no key and reads manifests only. What is odd about a layer is shown as a finding, and a
    manifest that an index names but that is not there as missing.
    `coco-kp schema inspect` prints the schema of the JSON document.
    """
    from coco_kp.image.inspect import inspect_image

    inspection = inspect_image(image, access=access.access())
    if form == "json":
        print_json(inspection.to_json(advice))
    else:
        _print(inspection)


def _print(inspection: Inspection) -> None:
    from coco_kp.cli.table import print_table, size_text

    say(f"{inspection.reference} {inspection.digest}")
    rows = []
    findings = []
    for image in inspection.images:
        where = "attestation" if image.describes_another else image.platform or "-"
        for layer in image.layers:
            rows.append(
                (
                    where,
                    str(layer.number),
                    size_text(layer.size),
                    layer.cipher or ("?" if layer.encrypted else "not encrypted"),
                    ", ".join(map(_key_name, layer.packets)),
                    ", ".join(packet.wrap_type for packet in layer.packets),
                    str(layer.digest),
                )
            )
            findings += [
                (f"finding: layer {layer.number} of {where}: {finding.message}", advice(finding))
                for finding in layer.findings
            ]
    rows += [
        (entry.platform or "", "", "", "missing", "", "", str(entry.digest))
        for entry in inspection.missing
    ]
    header = ("PLATFORM", "LAYER", "SIZE", "CIPHER", "KEY ID", "WRAP", "DIGEST")
    print_table(header, rows)
    for finding, hint in findings:
        say(finding)
        if hint:
            say(f"  hint: {hint}")


def _key_name(packet: PacketFacts) -> str:
    """Return where a packet's key is: its key ID, with the service that has it if not a KBS."""
    if not packet.provider or packet.provider == "kbs":
        return packet.name
    return f"{packet.name} ({' '.join(filter(None, (packet.provider, packet.region)))})"
