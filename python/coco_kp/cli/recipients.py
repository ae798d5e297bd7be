"""Options that say for whom an image is encrypted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import click

from coco_kp.cli.errors import UsageError
from coco_kp.cli.options import FILE, Option, OptionGroup, usage

if TYPE_CHECKING:
    from coco_kp.crypto import Kek
    from coco_kp.keys.register import Registrar
    from coco_kp.keys.resolve import KeySettings, KeySource
    from coco_kp.keys.wrapper import PacketForm, Recipient

PACKET_OPTION: Option = click.option(
    "--packet",
    type=click.Choice(["v1", "v2"]),
    default="v1",
    show_default=True,
    help="Annotation packet to write; every guest reads v1.",
)

PACKET_OPTIONS: tuple[Option, ...] = (
    click.option(
        "--algorithm",
        metavar="A256GCM|A256CTR",
        default="A256GCM",
        show_default=True,
        help="How a layer's key is wrapped; A256CTR does not detect tampering.",
    ),
    PACKET_OPTION,
    click.option(
        "--provider-name",
        metavar="NAME",
        help="Name under which guests' ocicrypt knows its key provider; by default the one that "
        "the layer has packets of, attestation-agent for a new image.",
    ),
)


class PacketOptions(OptionGroup):
    """How packets are written."""

    algorithm: str
    packet: Literal["v1", "v2"]
    provider_name: str | None

    options: ClassVar[tuple[Option, ...]] = PACKET_OPTIONS

    def form(self) -> PacketForm:
        """Return it as a value. Raises ``InputError``, ``UsageError``."""
        from coco_kp.cli.output import warn
        from coco_kp.keys.wrapper import CTR_WARNING, PacketForm
        from coco_kp.model.algorithm import Algorithm, parse_algorithm
        from coco_kp.model.layer_encryption import provider_scheme

        with usage():
            scheme = None if self.provider_name is None else provider_scheme(self.provider_name)
            algorithm = parse_algorithm(self.algorithm, "--algorithm")
        if algorithm is Algorithm.A256CTR:
            warn(CTR_WARNING)
        return PacketForm(algorithm, self.packet, scheme)


class RecipientOptions(OptionGroup):
    """The key or keys that will open the image."""

    keyid: str | None
    keypath: Path | None
    key: str | None
    kek_from: str | None
    wrap_with: str | None
    generate_key: Path | None
    kek_into: str | None
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
            "--kek-from",
            metavar="URI",
            help="Fetch the key: file:PATH, vault://…, aws-sm://…, pkcs11:… or exec:PROGRAM.",
        ),
        click.option(
            "--wrap-with",
            metavar="URI",
            help="Have a key wrap that never leaves its KMS or HSM: awskms://…, hashivault://…, "
            "pkcs11:….",
        ),
        click.option(
            "--generate-key",
            type=FILE,
            metavar="FILE",
            help="Make a new key, and keep it in FILE (0600), which must not exist.",
        ),
        click.option(
            "--kek-into",
            metavar="URI",
            help="Keep a new key there as well: vault://… or aws-sm://…, where a KBS looks.",
        ),
        click.option(
            "--sample", is_flag=True, help="Use the key of trials, which everybody knows."
        ),
        click.option(
            "--recipient",
            metavar="keyid=URI,keypath=FILE",
            multiple=True,
            help="Another key that opens the image (or kek-from=URI, wrap-with=URI); may be "
            "repeated.",
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

    def recipients(self, form: PacketForm, registrar: Registrar | None) -> list[Recipient]:
        """Return all that the user named, in that order. Raises ``CocoKpError``."""
        settings = key_settings(form, registrar)
        found = self._own(settings)
        found += [parse_recipient(text, form) for text in self.recipient]
        if self.provider:
            from coco_kp.image.foreign_provider import ForeignProvider, split_parameters

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

    def _own(self, settings: KeySettings) -> list[Recipient]:
        from coco_kp.cli.output import warn
        from coco_kp.keys.resolve import NewKek, SampleKek, resolve
        from coco_kp.keys.wrapper import SAMPLE_WARNING
        from coco_kp.model.resource_uri import parse_key_id

        source = self._source()
        if self.sample:
            if source or self.keyid or settings.registrar:
                raise UsageError("--sample and a key of your own exclude each other")
            if settings.form.algorithm != "A256GCM":
                raise UsageError("guests open sample packets as A256GCM only")
            warn(SAMPLE_WARNING)
            return [resolve(SampleKek(), None, settings)]
        kid = parse_key_id(self.keyid) if self.keyid else None
        if source is None and settings.registrar is None:
            if kid:
                raise UsageError(
                    "--keyid names a key, but none is given",
                    "add --keypath FILE, --key -, --kek-from URI, --wrap-with URI or "
                    "--generate-key FILE",
                )
            return []
        if source is not None and kid is None and not self.wrap_with and not settings.registrar:
            raise UsageError(f"{self._given()[0]} needs --keyid URI, by which guests find the key")
        return [resolve(source or NewKek(), kid, settings)]

    def _given(self) -> list[str]:
        """Return the options that say which key it is, of which there may be one."""
        options = {
            "--keypath": self.keypath,
            "--key": self.key,
            "--kek-from": self.kek_from,
            "--wrap-with": self.wrap_with,
            "--generate-key": self.generate_key,
            "--kek-into": self.kek_into,
        }
        return [name for name, value in options.items() if value is not None]

    def _source(self) -> KeySource | None:
        from coco_kp.keys.file_reference import FileReference
        from coco_kp.keys.resolve import GivenKek, NewKek

        given = self._given()
        if len(given) > 1 and given != ["--generate-key", "--kek-into"]:
            raise UsageError(f"{' and '.join(given)} exclude each other")
        if self.key is not None:
            return GivenKek(self._kek(self.key))
        if self.generate_key or self.kek_into:
            into = [FileReference(str(self.generate_key))] if self.generate_key else []
            if self.kek_into is None:
                return NewKek(tuple(into))
            from coco_kp.keys.reference import parse_kek_reference

            return NewKek((*into, parse_kek_reference(self.kek_into)))
        return named_source(self.keypath, self.kek_from, self.wrap_with)

    def _kek(self, key: str) -> Kek:
        from coco_kp.keys.kek import kek_of_base64

        if key == "-":
            return kek_of_base64(sys.stdin.readline(256).strip(), "stdin")
        return kek_of_base64(key, "--key")


def key_settings(form: PacketForm, registrar: Registrar | None = None) -> KeySettings:
    """Return how keys become packets, with warnings on stderr."""
    from coco_kp.cli.output import warn
    from coco_kp.keys.resolve import KeySettings

    return KeySettings(form, registrar, warn=warn)


def named_source(
    keypath: Path | None, kek_from: str | None, wrap_with: str | None
) -> KeySource | None:
    """Return the key that one of these options names, None where none does."""
    from coco_kp.keys.resolve import FetchedKek, StayingKey

    if keypath is not None:
        from coco_kp.keys.file_reference import FileReference

        return FetchedKek(FileReference(str(keypath)))
    if kek_from is not None:
        from coco_kp.keys.reference import parse_kek_reference

        return FetchedKek(parse_kek_reference(kek_from))
    if wrap_with is not None:
        from coco_kp.keys.reference import parse_wrapping_reference

        return StayingKey(parse_wrapping_reference(wrap_with))
    return None


def read_key_file(path: Path) -> Kek:
    """Read a KEK, and warn where others may. Raises ``KekError``."""
    from coco_kp.cli.output import warn
    from coco_kp.keys.kek_file import read_kek

    file = read_kek(path)
    for warning in file.warnings:
        warn(warning)
    return file.kek


def parse_recipient(text: str, form: PacketForm, registrar: Registrar | None = None) -> Recipient:
    """Read ``keyid=URI,keypath=FILE``. Raises ``UsageError``, ``InputError``."""
    from coco_kp.keys.named import key_fields, named_key
    from coco_kp.keys.resolve import resolve

    with usage():
        fields = key_fields(text)
    key = named_key(fields)
    return resolve(key.source, key.kid, key_settings(form, registrar))
