"""``coco-kp schema``: JSON schemas of the documents that ``--format json`` prints."""

from __future__ import annotations

from importlib.resources import files

import click

from coco_kp.cli.errors import UsageError
from coco_kp.cli.output_options import verbosity
from coco_kp.redact import shown

_SUFFIX = ".schema.json"


@click.command("schema", short_help="Print the JSON schema of a command's document.")
@click.argument("name", required=False)
@verbosity
def command(name: str | None) -> None:
    """Print the JSON schema of the document that the command NAME prints with --format json.

    Without NAME: list the commands whose documents have one.
    """
    schemas = {
        file.name.removesuffix(_SUFFIX): file
        for file in files("coco_kp").joinpath("schemas").iterdir()
        if file.name.endswith(_SUFFIX)
    }
    if name is None:
        for known in sorted(schemas):
            click.echo(known)
    elif name in schemas:
        click.echo(schemas[name].read_text(encoding="utf-8"), nl=False)
    else:
        known = ", ".join(sorted(schemas))
        raise UsageError(f"there is no schema {shown(name)}", f"there is one of: {known}")
