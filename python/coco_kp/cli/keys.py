"""``coco-kp keys``: KEKs in the files that guests and users keep."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coco_kp.cli.options import FILE, RegistrationOptions, with_options
from coco_kp.cli.output import notice, print_json, say
from coco_kp.cli.output_options import FORMAT, verbosity

if TYPE_CHECKING:
    from coco_kp.crypto import Kek
    from coco_kp.model.resource_uri import ResourceUri


@click.group("keys")
def command() -> None:
    """Make, move and list key-encryption keys."""


@command.command("generate", short_help="Make keys: print a new keys file.")
@click.option("--count", type=click.IntRange(1, 1000), default=10, show_default=True)
@click.option("--repository", default="default", show_default=True, help="First part of each name.")
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Write FILE (0600), not stdout.")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@verbosity
def generate(count: int, repository: str, output: Path | None, force: bool) -> None:
    """Print a new keys file: what an offline_fs guest has as aa-offline_fs_kbc-keys.json."""
    from coco_kp.files import write_file
    from coco_kp.keys.keys_file import format_keys, generate_keys

    keys = format_keys(generate_keys(repository, count))
    if output is None:
        click.echo(keys, nl=False)
    else:
        write_file(output, keys, replace=force)
        notice(f"wrote {count} {'key' if count == 1 else 'keys'} to {output}")


@command.command("export", short_help="Take one key out of a keys file.")
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
    from coco_kp.files import write_file
    from coco_kp.keys.keys_file import find_kek, parse_keys_file_name, read_keys
    from coco_kp.redact import shown

    uri = parse_keys_file_name(kid)
    kek = find_kek(read_keys(file), uri, shown(str(file)))
    write_file(out, kek.raw(), replace=force)
    notice(f"wrote the key {uri.path} to {out}")


@command.command("import", short_help="Put a key into a keys file.")
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
    from coco_kp.keys.kek_file import read_kek
    from coco_kp.keys.keys_file import add_kek, parse_keys_file_name

    uri = parse_keys_file_name(kid)
    key = read_kek(keyfile)
    for warning in key.warnings:
        warn(warning)
    add_kek(file, uri, key.kek, replace=force)
    notice(f"put the key {uri.path} into {file}")


@command.command("list", short_help="List names and fingerprints of a keys file.")
@click.argument("file", type=FILE)
@FORMAT
@verbosity
def list_(file: Path, form: str) -> None:
    """List the keys of the keys FILE by name and fingerprint; never the keys themselves.

    The fingerprint is the beginning of the key's SHA-256, as sha256sum prints it for the exported
    key.
    """
    from coco_kp.keys.keys_file import list_keys, read_keys

    rows = list_keys(read_keys(file))
    if form == "json":
        print_json([{"kid": kid, "fingerprint": fingerprint} for kid, fingerprint in rows])
        return
    width = max((len(kid) for kid, _ in rows), default=0)
    for kid, fingerprint in rows:
        say(f"{kid:{width}}  {fingerprint}")


@command.command("register", short_help="Give a key to a KBS, for attested guests.")
@click.argument("file", type=FILE)
@click.argument("kid")
@click.option("--force", is_flag=True, help="Replace another key that was registered as KID.")
@click.option(
    "--into",
    metavar="URI",
    help="Write the key where the KBS's own back end looks: vault://… or aws-sm://….",
)
@with_options(registration=RegistrationOptions)
@verbosity
def register(
    file: Path, kid: str, force: bool, into: str | None, registration: RegistrationOptions
) -> None:
    """Register the key in FILE with a KBS, from where attested guests fetch it as KID.

    FILE holds 32 raw bytes, or is a keys file that has KID. The KBS must confirm. It overwrites
    silently, so what was registered from here is kept on record (fingerprints only), and another
    key under the same KID needs --force.
    """
    from coco_kp.cli.errors import UsageError
    from coco_kp.keys.keys_file import parse_keys_file_name

    registrar = registration.registrar()
    if registrar is None and into is None:
        raise UsageError("no KBS to register with", "name it with --kbs URL, or --into URI")
    uri = parse_keys_file_name(kid)
    kek = _kek(file, uri)
    if into is not None:
        if registrar is not None and not force:
            registrar.check(uri, kek)
        done = "put {} into {}" if _put(kek, into) else "{} is in {} already"
        notice(f"{done.format(uri, into)}: key {kek.fingerprint}")
    if registrar is not None:
        registrar.register(uri, kek, replace=force)
        notice(f"registered {uri} with {registrar.kbs_url}: key {kek.fingerprint}")


def _put(kek: Kek, into: str) -> bool:
    """Put a key into a store; return False if it has this key already, as after a failed run."""
    from coco_kp.errors import CocoKpError, RefusedError
    from coco_kp.keys.reference import parse_kek_reference
    from coco_kp.keys.resolve import fetch
    from coco_kp.keys.stores.opening import open_store

    reference = parse_kek_reference(into)
    try:
        with closing(open_store(reference)) as store:
            store.keep(kek.raw())
    except RefusedError:
        try:
            same = fetch(reference).raw() == kek.raw()
        except CocoKpError:
            same = False
        if not same:
            raise
        return False
    return True


def _kek(file: Path, uri: ResourceUri) -> Kek:
    """Read a key from a file of its own or from a keys file, whichever FILE is."""
    from coco_kp.cli.recipients import read_key_file
    from coco_kp.crypto import KEK_SIZE
    from coco_kp.errors import KekError
    from coco_kp.files import read_file
    from coco_kp.keys.keys_file import MAX_KEYS_FILE, find_kek, read_keys
    from coco_kp.redact import shown

    content = read_file(file, MAX_KEYS_FILE, KekError).data
    if content.lstrip().startswith(b"{") and len(content) != KEK_SIZE:
        return find_kek(read_keys(file), uri, shown(str(file)))
    return read_key_file(file)
