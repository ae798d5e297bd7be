"""Options of the key provider, whichever door it has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import click

from coco_kp.cli.errors import UsageError
from coco_kp.cli.options import FILE, KbcOptions, Option, OptionGroup, RegistrationOptions, usage
from coco_kp.cli.recipients import PACKET_OPTION, named_source
from coco_kp.model.layer_encryption import DEFAULT_PROVIDER_NAME, provider_scheme
from coco_kp.redact import shown

if TYPE_CHECKING:
    from coco_kp.keys.resolve import KeySource
    from coco_kp.provider import Provider


class ProviderOptions(OptionGroup):
    """What the provider's callers may name, and what it writes for them."""

    name: str | None
    key_dir: Path | None
    packet: Literal["v1", "v2"]
    kek_from: str | None
    wrap_with: str | None
    allow_kek: tuple[str, ...]
    register_callers_files: bool

    options: ClassVar[tuple[Option, ...]] = (
        click.option(
            "--name",
            metavar="NAME",
            help="Name under which clients know this provider, as in --encryption-key "
            "provider:NAME:…: parameters under other names are another's.  [default: any name; of "
            f"several {DEFAULT_PROVIDER_NAME}]",
        ),
        click.option(
            "--key-dir",
            type=FILE,
            metavar="DIR",
            help="Let 'keypath' name only files under DIR; a relative one starts there. With "
            "--kbs, keys that are made are kept there.",
        ),
        PACKET_OPTION,
        click.option(
            "--kek-from",
            metavar="URI",
            help="Wrap with this key where callers name only keyid: file:PATH, vault://…, "
            "aws-sm://…, pkcs11:… or exec:PROGRAM.",
        ),
        click.option(
            "--wrap-with",
            metavar="URI",
            help="Have this key wrap, which never leaves its KMS or HSM: awskms://…, "
            "hashivault://…, pkcs11:….",
        ),
        click.option(
            "--allow-kek",
            metavar="PATTERN",
            multiple=True,
            help="Let callers name keys to fetch (kekfrom=URI) that match, such as "
            "'vault:///secret/team/*'; may be repeated.",
        ),
        click.option(
            "--register-callers-files",
            is_flag=True,
            help="With --kbs, register the keys, too, that callers name with keypath or kekfrom: "
            "each under any key ID that a caller likes.",
        ),
    )

    def provider(
        self, registration: RegistrationOptions, kbc: KbcOptions, *, files_untold: bool = False
    ) -> Provider:
        """Make the key provider that the three groups describe. Raises ``CocoKpError``."""
        from coco_kp.files import is_folder
        from coco_kp.provider import Provider

        if self.key_dir is not None and not is_folder(self.key_dir):
            raise UsageError(f"--key-dir {shown(str(self.key_dir))} is not a directory")
        key_dir = self.key_dir and self.key_dir.absolute()
        if self.name is not None:
            with usage():
                provider_scheme(self.name)
        return Provider(
            name=self.name,
            key_dir=key_dir,
            packet_version=self.packet,
            kbc=kbc.spec(),
            kbcs=kbc.kbcs(),
            keys_file=kbc.keys and kbc.keys.absolute(),
            registrar=registration.registrar(),
            register_callers_files=self.register_callers_files,
            source=self._source(),
            allow_kek=self.allow_kek,
            files_untold=files_untold,
        )

    def _source(self) -> KeySource | None:
        if self.kek_from and self.wrap_with:
            raise UsageError("--kek-from and --wrap-with exclude each other")
        return named_source(None, self.kek_from, self.wrap_with)
