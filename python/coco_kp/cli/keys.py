"""``coco-kp keys``: KEKs in the files that guests and users keep."""

from __future__ import annotations

from pathlib import Path

import click

from coco_kp.cli.options import FILE
from coco_kp.cli.output import notice, print_json, verbosity


@click.group("keys")
def command() -> None:
    """Make, move and list key-encryption keys."""


@command.command("generate")
@click.option("--count", type=click.IntRange(1, 1000), default=10, show_default=True)
@click.option("--repository", default="default", show_default=True, help="First part of each name.")
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Write FILE (0600), not stdout.")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@verbosity
def generate(count: int, repository: str, output: Path | None, force: bool) -> None:
    """Print a new keys file: what an offline_fs guest has as aa-offline_fs_kbc-keys.json."""
    from coco_kp.files import write_file
    from coco_kp.keys_file import format_keys, generate_keys

    keys = format_keys(generate_keys(repository, count))
    if output is None:
        click.echo(keys, nl=False)
    else:
        write_file(output, keys, replace=force)
        notice(f"wrote {count} keys to {output}")


@command.command("export")
@click.argument("file", type=FILE)
@click.argument("kid")
@click.argument("out", type=FILE)
@click.option("--force", is_flag=True, help="Overwrite OUT.")
@verbosity
def export(file: Path, kid: str, out: Path, force: bool) -> None:
    """Write the key KID of the keys FILE to OUT: 32 raw bytes, readable by you alone.

    KID is the name as FILE has it (default/key/key_id1) or as a packet has it
    (kbs:///default/key/key_id1). OUT can then be used as keypath.
    """
    from coco_kp.errors import shown
    from coco_kp.files import write_file
    from coco_kp.keys_file import find_kek, parse_keys_file_name, read_keys

    uri = parse_keys_file_name(kid)
    kek = find_kek(read_keys(file), uri, shown(str(file)))
    write_file(out, kek.raw(), replace=force)
    notice(f"wrote the key {uri.path} to {out}")


@command.command("import")
@click.argument("file", type=FILE)
@click.argument("kid")
@click.argument("keyfile", type=FILE)
@click.option("--force", is_flag=True, help="Replace the key that FILE has under KID.")
@verbosity
def import_(file: Path, kid: str, keyfile: Path, force: bool) -> None:
    """Put the key in KEYFILE (32 raw bytes) into the keys FILE under the name KID.

    FILE is made if there is none; all its other members stay as they are.
    """
    from coco_kp.cli.output import warn
    from coco_kp.kek_file import read_kek
    from coco_kp.keys_file import add_kek, parse_keys_file_name

    uri = parse_keys_file_name(kid)
    key = read_kek(keyfile)
    for warning in key.warnings:
        warn(warning)
    add_kek(file, uri, key.kek, replace=force)
    notice(f"put the key {uri.path} into {file}")


@command.command("list")
@click.argument("file", type=FILE)
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
@verbosity
def list_(file: Path, form: str) -> None:
    """List the keys of the keys FILE by name and fingerprint; never the keys themselves.

    The fingerprint is the beginning of the key's SHA-256, as sha256sum prints it for the exported
    key.
    """
    from coco_kp.keys_file import list_keys, read_keys

    rows = list_keys(read_keys(file))
    if form == "json":
        print_json([{"kid": kid, "fingerprint": fingerprint} for kid, fingerprint in rows])
        return
    width = max((len(kid) for kid, _ in rows), default=0)
    for kid, fingerprint in rows:
        click.echo(f"{kid:{width}}  {fingerprint}")
