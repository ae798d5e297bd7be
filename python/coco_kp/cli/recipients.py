"""Options that say for whom an image is encrypted."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import click

from coco_kp.cli.options import FILE, Option, OptionGroup
from coco_kp.errors import InputError, UsageError, shown

if TYPE_CHECKING:
    from coco_kp.crypto import Kek
    from coco_kp.image.recipient import KekRecipient, NewRecipient, PacketForm, Recipient
    from coco_kp.keys.registrar import Registrar

PACKET_OPTIONS: tuple[Option, ...] = (
    click.option(
        "--algorithm",
        metavar="A256GCM|A256CTR",
        default="A256GCM",
        show_default=True,
        help="How a layer's key is wrapped; A256CTR does not detect tampering.",
    ),
    click.option(
        "--packet",
        type=click.Choice(["v1", "v2"]),
        default="v1",
        show_default=True,
        help="Annotation packet to write; every guest reads v1.",
    ),
    click.option(
        "--provider-name",
        metavar="NAME",
        help="Name under which guests' ocicrypt knows its key provider; by default the one that "
        "the layer has packets of, attestation-agent for a new image.",
    ),
)

_RECIPIENT_HINT = "write keyid=kbs:///<repository>/<type>/<tag>,keypath=<file>"


@dataclass(frozen=True, slots=True)
class PacketOptions(OptionGroup):
    """How packets are written."""

    algorithm: str
    packet: Literal["v1", "v2"]
    provider_name: str | None

    options: ClassVar[tuple[Option, ...]] = PACKET_OPTIONS

    def form(self) -> PacketForm:
        """Give it as a value. Raises ``InputError``, ``UsageError``."""
        from coco_kp.cli.output import warn
        from coco_kp.image.recipient import PacketForm
        from coco_kp.model.algorithm import Algorithm, parse_algorithm
        from coco_kp.model.layer_encryption import provider_scheme
        from coco_kp.provider import CTR_WARNING

        scheme = None if self.provider_name is None else provider_scheme(self.provider_name)
        algorithm = parse_algorithm(self.algorithm, "--algorithm")
        if algorithm is Algorithm.A256CTR:
            warn(CTR_WARNING)
        return PacketForm(algorithm, self.packet, scheme)


@dataclass(frozen=True, slots=True)
class RecipientOptions(OptionGroup):
    """The key or keys that will open the image."""

    keyid: str | None
    keypath: Path | None
    key: str | None
    generate_key: Path | None
    sample: bool
    recipient: tuple[str, ...]
    provider: str | None
    provider_unwrap: str
    trust_provider: bool

    options: ClassVar[tuple[Option, ...]] = (
        click.option(
            "--keyid",
            metavar="URI",
            help="Where guests find the key: kbs:///REPOSITORY/TYPE/TAG.",
        ),
        click.option("--keypath", type=FILE, metavar="FILE", help="The key: 32 raw bytes in FILE."),
        click.option(
            "--key",
            metavar="BASE64",
            help="The key in base64; - reads it from stdin, where no other user sees it.",
        ),
        click.option(
            "--generate-key",
            type=FILE,
            metavar="FILE",
            help="Make a new key, and keep it in FILE (0600), which must not exist.",
        ),
        click.option(
            "--sample", is_flag=True, help="Use the key of trials, which everybody knows."
        ),
        click.option(
            "--recipient",
            metavar="keyid=URI,keypath=FILE",
            multiple=True,
            help="Another key that opens the image; may be repeated.",
        ),
        click.option(
            "--provider",
            metavar="NAME[:PARAMETERS]",
            help="Have keys wrapped by the key provider NAME of OCICRYPT_KEYPROVIDER_CONFIG.",
        ),
        click.option(
            "--provider-unwrap",
            metavar="PARAMETERS",
            default="Enabled",
            help="Parameters with which that provider opens again what it wrapped.",
        ),
        click.option(
            "--trust-provider",
            is_flag=True,
            help="Do not have the provider prove that it opens what it wrapped.",
        ),
    )

    def recipients(
        self, form: PacketForm, registrar: Registrar | None
    ) -> list[Recipient | NewRecipient]:
        """Give all that the user named, in that order. Raises ``CocoKpError``."""
        from coco_kp.image.foreign_provider import ForeignProvider, split_parameters

        found = self._own(form, registrar)
        found += [parse_recipient(text, form) for text in self.recipient]
        if self.provider:
            name, parameters = split_parameters(self.provider)
            unwrap, trusted = self.provider_unwrap, self.trust_provider
            found.append(ForeignProvider.configured(name, parameters, unwrap, trusted=trusted))
        if not found:
            raise UsageError(
                "no key is named",
                "give --keyid URI with --keypath FILE or --generate-key FILE, "
                "or --sample for a trial",
            )
        return found

    def _own(self, form: PacketForm, registrar: Registrar | None) -> list[Recipient | NewRecipient]:
        from coco_kp.cli.output import warn
        from coco_kp.image.recipient import (
            GeneratedKek,
            KekRecipient,
            Registered,
            RegisteredKek,
            sample_recipient,
        )
        from coco_kp.model.resource_uri import parse_key_id
        from coco_kp.provider import SAMPLE_WARNING

        sources = {
            "--keypath": self.keypath,
            "--key": self.key,
            "--generate-key": self.generate_key,
        }
        given = [name for name, value in sources.items() if value is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} exclude each other")
        if self.sample:
            if given or self.keyid or registrar:
                raise UsageError("--sample and a key of your own exclude each other")
            if form.algorithm != "A256GCM":
                raise UsageError("guests open sample packets as A256GCM only")
            warn(SAMPLE_WARNING)
            return [sample_recipient(form)]
        kid = parse_key_id(self.keyid) if self.keyid else None
        if not given and not registrar:
            if kid:
                raise UsageError(
                    "--keyid names a key, but none is given",
                    "add --keypath FILE, --key -, --generate-key FILE or --register",
                )
            return []
        if not given and registrar:
            return [RegisteredKek(kid, registrar, form)]
        if kid is None:
            raise UsageError(f"{given[0]} needs --keyid URI, by which guests find the key")
        own: KekRecipient | GeneratedKek
        if self.generate_key:
            own = GeneratedKek(kid, self.generate_key, form)
        else:
            own = KekRecipient(kid, self._kek(), form)
        return [Registered(own, registrar) if registrar else own]

    def _kek(self) -> Kek:
        if self.keypath:
            return read_key_file(self.keypath)
        from coco_kp.crypto import KEK_SIZE, Kek
        from coco_kp.errors import KekError
        from coco_kp.model.encoding import decode_base64

        text = sys.stdin.readline(256).strip() if self.key == "-" else self.key or ""
        try:
            raw = decode_base64(text, "the key")
        except InputError as error:
            raise KekError(error.message, error.hint) from None
        if len(raw) != KEK_SIZE:
            raise KekError(f"expected a {KEK_SIZE}-byte key in base64, found {len(raw)} bytes")
        return Kek(raw)


def read_key_file(path: Path) -> Kek:
    """Read a KEK, and warn where others may. Raises ``KekError``."""
    from coco_kp.cli.output import warn
    from coco_kp.keys.kek_file import read_kek

    file = read_kek(path)
    for warning in file.warnings:
        warn(warning)
    return file.kek


def parse_recipient(text: str, form: PacketForm) -> KekRecipient:
    """Read ``keyid=URI,keypath=FILE``. Raises ``UsageError``, ``InputError``, ``KekError``."""
    from coco_kp.image.recipient import KekRecipient
    from coco_kp.model.resource_uri import parse_key_id

    fields: dict[str, str] = {}
    for field in text.split(","):
        name, equals, value = field.partition("=")
        if not equals or name not in {"keyid", "keypath"} or name in fields:
            raise UsageError(f"the recipient {shown(text)} cannot be read", _RECIPIENT_HINT)
        fields[name] = value
    if len(fields) != 2:
        raise UsageError(f"the recipient {shown(text)} lacks its key or key id", _RECIPIENT_HINT)
    kek = read_key_file(Path(fields["keypath"]))
    return KekRecipient(parse_key_id(fields["keyid"]), kek, form)
