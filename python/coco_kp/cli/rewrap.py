"""``coco-kp rewrap``: change who can open an image, without touching a layer."""

from __future__ import annotations

from pathlib import Path

import click

from coco_kp.cli.image_options import FORMAT, NO_PROGRESS, CopyAccess, OpeningOptions
from coco_kp.cli.options import FILE, KbcOptions, RegistrationOptions, with_options
from coco_kp.cli.output import print_json, say, verbosity
from coco_kp.cli.recipients import PacketOptions
from coco_kp.errors import UsageError, shown


@click.command("rewrap", short_help="Change which keys open an image.")
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
    help="Take the packets with this key id, or of this scheme (jwe, pkcs7, ...), away; never the "
    "last that opens. May be repeated.",
)
@click.option(
    "--register",
    is_flag=True,
    help="Register the new keys with the KBS of --kbs first; --to-keypath may then be left out.",
)
@with_options(packets=PacketOptions, access=CopyAccess)
@FORMAT
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
    add: tuple[str, ...],
    remove: tuple[str, ...],
    register: bool,
    packets: PacketOptions,
    access: CopyAccess,
    form: str,
    no_progress: bool,
) -> None:
    """Change who can open IMAGE, in place or into DESTINATION; layers are not touched.

    The old key (--keypath, --keys or --kbc) must open every layer first. An image whose key ids no
    guest can read is mended the same way.

    For example: coco-kp rewrap oci:app --keypath old --to-keyid kbs:///default/key/2
    --to-keypath new
    """
    from coco_kp.cli.interrupt import interruptible
    from coco_kp.cli.progress import ProgressBars
    from coco_kp.cli.recipients import parse_recipient, read_key_file
    from coco_kp.image.recipient import KekRecipient, RegisteredKek
    from coco_kp.image.rewrap import Changes, rewrap_image
    from coco_kp.model.resource_uri import parse_key_id

    registrar = registration.registrar()
    if register != (registrar is not None):
        raise UsageError("--register and --kbs URL go together")
    if (to_keyid is None) != (to_keypath is None) and not (to_keyid and registrar):
        raise UsageError("--to-keyid URI and --to-keypath FILE go together")
    packet_form = packets.form()
    replace_by: list[KekRecipient] = []
    added = [parse_recipient(text, packet_form) for text in add]
    if to_keyid is not None and to_keypath is not None:
        kid = parse_key_id(to_keyid)
        replace_by.append(KekRecipient(kid, read_key_file(to_keypath), packet_form))
    if registrar:
        for recipient in (*replace_by, *added):
            registrar.register(recipient.kid, recipient.kek)
        if to_keyid is not None and to_keypath is None:
            made = RegisteredKek(parse_key_id(to_keyid), registrar, packet_form)
            replace_by.append(made.make())
    changes = Changes(tuple(replace_by), tuple(added), remove)
    with ProgressBars(wanted=not no_progress) as progress, interruptible():
        result = rewrap_image(
            image,
            opening.openers(kbc),
            changes,
            destination=destination,
            source_access=access.source(),
            destination_access=access.destination() if destination else None,
            progress=progress,
        )
    if form == "json":
        print_json(
            {
                "destination": result.destination,
                "digest": str(result.digest),
                "rewrapped": result.rewrapped,
                "recipients": list(result.recipients),
            }
        )
        return
    say(
        f"{result.destination} {result.digest}: layers {result.rewrapped} rewrapped; "
        f"can be opened by {', '.join(map(shown, result.recipients))}"
    )
