"""``coco-kp rewrap``: change who can open an image, without touching a layer."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from coco_kp.cli.errors import UsageError
from coco_kp.cli.headings import DESTINATION, KBC, KBS, OUTPUT, SOURCE, HeadedCommand
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
from coco_kp.cli.options import FILE, KbcOptions, RegistrationOptions, with_options
from coco_kp.cli.output import print_json, say, say_made
from coco_kp.cli.output_options import FORMAT, verbosity
from coco_kp.cli.recipients import PacketOptions
from coco_kp.redact import shown

_HEADINGS: Final = {
    "Most used": (
        *("--keypath", "--keys", "--to-keyid", "--to-keypath", "--add", "--remove"),
        *("--register", "--kbs", "--dry-run", "--help"),
    ),
    "What opens the image": ("--kek-from", "--wrap-with", "--provider", "--kbc", *KBC),
    "For whom": (
        *("--to-kek-from", "--to-wrap-with", "--algorithm", "--packet", "--provider-name"),
    ),
    "The KBS": KBS,
    "Source": (*SOURCE, "--max-unpacked"),
    "Destination": (*DESTINATION, "--keep-replaced"),
    "Source and destination": ("--authfile", "--retries", "--jobs"),
    "Output": ("--format", "--digestfile", *OUTPUT),
}


@click.command(
    "rewrap", short_help="Change which keys open an image.", cls=HeadedCommand, headings=_HEADINGS
)
@click.argument("image")
@click.argument("destination", required=False)
@with_options(opening=OpeningOptions, kbc=KbcOptions, registration=RegistrationOptions)
@click.option("--to-keyid", metavar="URI", help="Where guests find the new key.")
@click.option(
    "--to-keypath",
    type=FILE,
    metavar="FILE",
    help="The new key: 32 raw bytes. Packets that the old key opens give way to its own.",
)
@click.option("--to-kek-from", metavar="URI", help="Fetch the new key, as --kek-from does.")
@click.option(
    "--to-wrap-with",
    metavar="URI",
    help="Have a key wrap that never leaves its KMS or HSM; from one key of AWS KMS to another "
    "KMS does it alone.",
)
@click.option(
    "--add",
    metavar="keyid=URI,keypath=FILE",
    multiple=True,
    help="Another key that opens the image; may be repeated.",
)
@click.option(
    "--remove",
    metavar="KID|SCHEME",
    multiple=True,
    help="Take the packets with this key ID (or awskms:///KEY), or of this scheme (jwe, pkcs7, "
    "...), away; never the last that opens. May be repeated.",
)
@click.option(
    "--register",
    is_flag=True,
    help="Register the new keys with the KBS of --kbs, once the image is known to open.",
)
@with_options(packets=PacketOptions, access=CopyAccess)
@JOBS_OF_COPIES
@DRY_RUN
@FORMAT
@KEEP_REPLACED
@DIGESTFILE
@NO_PROGRESS
@verbosity
def command(
    image: str,
    destination: str | None,
    opening: OpeningOptions,
    kbc: KbcOptions,
    registration: RegistrationOptions,
    to_keyid: str | None,
    to_keypath: Path | None,
    to_kek_from: str | None,
    to_wrap_with: str | None,
    add: tuple[str, ...],
    remove: tuple[str, ...],
    register: bool,
    packets: PacketOptions,
    access: CopyAccess,
    jobs: int | None,
    dry_run: bool,
    form: str,
    keep_replaced: bool,
    digestfile: Path | None,
    no_progress: bool,
) -> None:
    """Change who can open IMAGE, in place or into DESTINATION; layers are not touched.

    The old key (--keypath, --keys or --kbc) must open every layer first. An image whose key IDs no
    guest can read is mended the same way.

    For example: coco-kp rewrap oci:app --keypath old --to-keyid kbs:///default/key/2
    --to-keypath new
    """
    from coco_kp.cli.interrupt import interruptible
    from coco_kp.cli.progress import ProgressBars
    from coco_kp.cli.recipients import key_settings, named_source, parse_recipient
    from coco_kp.image.rewrap import Changes, rewrap_image
    from coco_kp.keys.resolve import resolve
    from coco_kp.model.resource_uri import parse_key_id

    registrar = registration.registrar()
    if register != (registrar is not None):
        raise UsageError("--register and --kbs URL go together")
    if register and to_keypath is None and to_kek_from is None and not add and to_wrap_with is None:
        raise UsageError(
            "--register has no new key to register", "name one with --to-keypath or --add"
        )
    named = {
        "--to-keypath FILE": to_keypath,
        "--to-kek-from URI": to_kek_from,
        "--to-wrap-with URI": to_wrap_with,
    }
    given = [name for name, value in named.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other")
    if (to_keyid is None) != (not given) and not to_wrap_with:
        raise UsageError(f"--to-keyid URI and {(given or ['--to-keypath FILE'])[0]} go together")
    packet_form = packets.form()
    source = named_source(to_keypath, to_kek_from, to_wrap_with)
    kid = parse_key_id(to_keyid) if to_keyid else None
    settings = key_settings(packet_form, registrar)
    replace_by = () if source is None else (resolve(source, kid, settings),)
    added = tuple(parse_recipient(text, packet_form, registrar) for text in add)
    changes = Changes(replace_by, added, tuple(map(_removed, remove)))
    if changes == Changes():
        raise UsageError(
            "no change is named",
            "give --to-keyid URI with --to-keypath FILE, --add keyid=URI,keypath=FILE or "
            "--remove KID",
        )
    with ProgressBars(wanted=not no_progress) as progress, interruptible():
        result = rewrap_image(
            image,
            opening.needed(kbc),
            changes,
            destination=destination,
            jobs=jobs,
            source_access=access.source() if destination else access.in_place(),
            destination_access=access.destination() if destination else None,
            progress=progress,
            keep_replaced=keep_replaced,
            dry_run=dry_run,
        )
    if result.digest:
        tell_image(result.destination, result.digest, digestfile)
    if form == "json":
        print_json(result.to_json())
        return
    who = ", ".join(map(shown, result.recipients))
    if dry_run:
        say(
            f"would write {result.destination}: layers {result.rewrapped} rewrapped; "
            f"could be opened by {who}; nothing was written"
        )
        return
    say_made(
        f"{result.destination} {result.digest}: layers {result.rewrapped} rewrapped; "
        f"can be opened by {who}"
    )


def _removed(text: str) -> str:
    """Return a key ID or scheme as packets have it."""
    from coco_kp.cli.image_options import parse_kms_key

    return parse_kms_key(text).key if text.startswith("awskms:") else text
