"""Options that the commands on images share, in groups (see :mod:`.options`)."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import click

from coco_kp.cli.errors import UsageError
from coco_kp.cli.options import FILE, KbcOptions, Option, OptionGroup, usage
from coco_kp.cli.output import tell_made
from coco_kp.errors import InputError
from coco_kp.redact import shown
from coco_kp.values import replace

if TYPE_CHECKING:
    from coco_kp.keys.reference import AwsKmsReference
    from coco_kp.keys.wrapper import Opener
    from coco_kp.model.digest import Digest
    from coco_kp.transport.access import Access, Credentials


def _jobs(by_default: str) -> Option:
    return click.option(
        "--jobs",
        type=click.IntRange(1, 64),
        metavar="N",
        help=f"Work on N layers at once; by default {by_default}.",
    )


JOBS: Option = _jobs("one a processor")

JOBS_OF_COPIES: Option = _jobs("one a processor, and six or more to or from a registry")

DRY_RUN: Option = click.option(
    "--dry-run", is_flag=True, help="Show what would be done; write nothing."
)

KEEP_REPLACED: Option = click.option(
    "--keep-replaced",
    is_flag=True,
    help="Keep what an image of the same name leaves behind in an oci: layout.",
)

NO_PROGRESS: Option = click.option("--no-progress", is_flag=True, help="Show no progress bars.")


def _check_digestfile(
    ctx: click.Context,  # noqa: ARG001
    option: click.Parameter,  # noqa: ARG001
    path: Path | None,
) -> Path | None:
    """Refuse before the work what could not be written after it."""
    if path:
        _check_digest_replaceable(path)
    return path


def _check_digest_replaceable(path: Path) -> None:
    """Raise ``InputError`` where a digest cannot be written, or would replace anything else.

    What is there may be a key, such as the new one of the very command.
    """
    from coco_kp.files import check_replaceable, read_small_if_there
    from coco_kp.model.digest import parse_digest

    check_replaceable(path)
    found = read_small_if_there(path, _LONGEST_LINE)
    if not found:
        return
    try:
        parse_digest(found.decode("ascii", "replace").strip())
    except InputError:
        raise InputError(
            f"cannot write {shown(str(path))}: it holds something other than a digest",
            "name another file, or remove it",
        ) from None


DIGESTFILE: Option = click.option(
    "--digestfile",
    type=FILE,
    callback=_check_digestfile,
    metavar="FILE",
    help="Write the digest of the new image to FILE, as skopeo does.",
)

_MAX_UNPACKED: Option = click.option(
    "--max-unpacked",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="GIB",
    help="Let compressed archives and layers become so much more than 100 times their size.",
)


_LONGEST_LINE: Final = 64 * 1024

_RETRIES: Option = click.option(
    "--retries",
    type=click.IntRange(0, 100),
    default=4,
    show_default=True,
    metavar="N",
    help="Ask a registry again after N failures in a row.",
)


def _access_options(side: str, what: str) -> tuple[Option, ...]:
    """Return skopeo's options of access to a registry; ``side`` is empty, ``src-`` or ``dest-``."""
    return (
        click.option(
            f"--{side}creds",
            metavar="USER:PASSWORD",
            help=f"Credentials for the {what}; - reads them from a line of stdin.",
        ),
        click.option(
            f"--{side}registry-token",
            metavar="TOKEN",
            help=f"Bearer token for the {what}; - reads it from a line of stdin.",
        ),
        click.option(
            f"--{side}authfile",
            type=FILE,
            metavar="FILE",
            help=f"Read credentials for the {what} from FILE, not from the user's own files.",
        ),
        click.option(
            f"--{side}cert-dir",
            type=FILE,
            metavar="DIR",
            help=f"CA certificates (*.crt) and client certificates (*.cert, *.key) for the {what}.",
        ),
        click.option(
            f"--{side}tls-verify",
            type=click.BOOL,
            metavar="BOOL",
            help=f"Verify the certificate of the {what}; false allows plain http, too. By default "
            "as registries.conf says, and true without a word there.",
        ),
    )


class ImageAccess(OptionGroup):
    """How the registry of the one image is reached."""

    creds: str | None
    registry_token: str | None
    authfile: Path | None
    cert_dir: Path | None
    tls_verify: bool | None
    retries: int
    max_unpacked: int

    options: ClassVar[tuple[Option, ...]] = (
        *_access_options("", "registry"),
        _RETRIES,
        _MAX_UNPACKED,
    )

    def access(self) -> Access:
        """Return it as a value. Raises ``InputError``."""
        from coco_kp.transport.access import Access

        return Access(
            _credentials(self.creds, self.registry_token, ""),
            self.authfile,
            self.cert_dir,
            self.tls_verify,
            self.max_unpacked << 30,
            self.retries,
        )


class CopyAccess(OptionGroup):
    """How the registries of source and destination are reached."""

    authfile: Path | None
    src_creds: str | None
    src_registry_token: str | None
    src_authfile: Path | None
    src_cert_dir: Path | None
    src_tls_verify: bool | None
    dest_creds: str | None
    dest_registry_token: str | None
    dest_authfile: Path | None
    dest_cert_dir: Path | None
    dest_tls_verify: bool | None
    retries: int
    max_unpacked: int

    options: ClassVar[tuple[Option, ...]] = (
        click.option(
            "--authfile",
            type=FILE,
            metavar="FILE",
            help="Read credentials for both registries from FILE.",
        ),
        *_access_options("src-", "source registry"),
        *_access_options("dest-", "destination registry"),
        _RETRIES,
        _MAX_UNPACKED,
    )

    def source(self) -> Access:
        """Return the source's as a value. Raises ``InputError``."""
        from coco_kp.transport.access import Access

        return Access(
            _credentials(self.src_creds, self.src_registry_token, "src-"),
            self.src_authfile or self.authfile,
            self.src_cert_dir,
            self.src_tls_verify,
            self.max_unpacked << 30,
            self.retries,
            "src-",
        )

    def destination(self) -> Access:
        """Return the destination's as a value. Raises ``InputError``."""
        from coco_kp.transport.access import Access

        return Access(
            _credentials(self.dest_creds, self.dest_registry_token, "dest-"),
            self.dest_authfile or self.authfile,
            self.dest_cert_dir,
            self.dest_tls_verify,
            self.max_unpacked << 30,
            self.retries,
            "dest-",
        )

    def in_place(self) -> Access:
        """Return how an image is reached that is changed where it is. Raises ``InputError``.

        There is one registry: what is given for the destination goes before what is for the source.
        """
        source, destination = self.source(), self.destination()
        verify = destination.tls_verify
        return replace(
            destination,
            credentials=destination.credentials or source.credentials,
            authfile=self.dest_authfile or source.authfile,
            cert_dir=destination.cert_dir or source.cert_dir,
            tls_verify=source.tls_verify if verify is None else verify,
        )


class OpeningOptions(OptionGroup):
    """A key, or another key provider, that opens packets; beside :class:`KbcOptions`."""

    keypath: tuple[Path, ...]
    kek_from: tuple[str, ...]
    wrap_with: tuple[str, ...]
    provider: str | None

    options: ClassVar[tuple[Option, ...]] = (
        click.option(
            "--keypath",
            type=FILE,
            metavar="FILE",
            multiple=True,
            help="Open packets with the key in FILE (32 raw bytes), whatever key ID they name.",
        ),
        click.option(
            "--kek-from",
            metavar="URI",
            multiple=True,
            help="Open packets with this key: vault://…, aws-sm://…, pkcs11:… or exec:PROGRAM.",
        ),
        click.option(
            "--wrap-with",
            metavar="URI",
            multiple=True,
            help="Have packets opened by a key in its KMS or HSM: awskms://…, hashivault://…, "
            "pkcs11:….",
        ),
        click.option(
            "--provider",
            metavar="NAME[:PARAMETERS]",
            help="Have packets opened by the key provider NAME of OCICRYPT_KEYPROVIDER_CONFIG.",
        ),
    )

    def openers(self, kbc: KbcOptions) -> list[Opener]:
        """Return all that the user named, keys first. Raises ``CocoKpError``."""
        from coco_kp.cli.recipients import read_key_file
        from coco_kp.keys.wrapper import KekOpener

        openers: list[Opener] = [
            KekOpener(read_key_file(path), f"the key in {shown(str(path))}")
            for path in self.keypath
        ]
        if self.kek_from or self.wrap_with:
            from coco_kp.keys.reference import parse_kek_reference, parse_wrapping_reference
            from coco_kp.keys.resolve import FetchedKek, StayingKey, opener

            sources: tuple[FetchedKek | StayingKey, ...] = (
                *(FetchedKek(parse_kek_reference(uri)) for uri in self.kek_from),
                *(StayingKey(parse_wrapping_reference(uri)) for uri in self.wrap_with),
            )
            keep = click.get_current_context().with_resource
            openers += [keep(closing(opener(source))) for source in sources]
        if spec := kbc.spec():
            from coco_kp.image.opener import KbcOpener

            openers.append(KbcOpener(spec, kbc.kbcs()))
        if self.provider:
            from coco_kp.image.foreign_provider import ForeignProvider, split_parameters

            name, parameters = split_parameters(self.provider)
            openers.append(ForeignProvider.configured(name, unwrap_parameters=parameters))
        return openers

    def needed(self, kbc: KbcOptions) -> list[Opener]:
        """Return all that the user named, which is at least one. Raises ``CocoKpError``."""
        if openers := self.openers(kbc):
            return openers
        raise UsageError(
            "nothing is named that opens the image",
            "give --keypath FILE, --keys FILE, --kbc NAME, --kek-from URI or --wrap-with URI",
        )


def tell_image(destination: str, digest: Digest, digestfile: Path | None) -> None:
    """Learn that an image is in place, and write its digest. Raises ``InputError``.

    The file is skopeo's: the digest without a line break, for everybody to read.
    """
    from coco_kp.files import write_file

    tell_made(destination)
    if digestfile:
        try:
            _check_digest_replaceable(digestfile)
            write_file(digestfile, str(digest).encode(), replace=True, mode=0o644)
        except InputError as error:  # an old digest in there would be taken for the new one
            raise error.adding(f"{destination} is in place as {digest}") from None


def _credentials(creds: str | None, token: str | None, side: str) -> Credentials | None:
    from coco_kp.transport.access import Credentials, parse_credentials

    options = f"--{side}creds", f"--{side}registry-token"
    if creds and token:
        raise UsageError(f"{' and '.join(options)} exclude each other")
    if creds:
        pair = _from_stdin(creds, options[0])
        with usage():
            return parse_credentials(pair, options[0])
    if token:
        token = _from_stdin(token, options[1])
        return Credentials("", "", registry_token=token, origin=options[1])
    return None


def _from_stdin(value: str, option: str) -> str:
    """Return the value, or for ``-`` a line of stdin: what is on a command line others can see."""
    if value != "-":
        return value
    line = sys.stdin.readline(_LONGEST_LINE).rstrip("\r\n")
    if not line:
        raise InputError(f"stdin has no line for {option} -")
    return line


def parse_kms_key(text: str) -> AwsKmsReference:
    """Read the name of a KMS packet's key, awskms:///KEY. Raises ``InputError``."""
    from coco_kp.keys.reference import AwsKmsReference, parse_wrapping_reference

    reference = parse_wrapping_reference(text)
    if not isinstance(reference, AwsKmsReference):
        raise InputError(f"{shown(text)} is not a key of AWS KMS")
    if reference.endpoint or reference.context:
        raise InputError(
            f"{shown(text)} names more than a key, which is all that is compared",
            f"write {AwsKmsReference('', reference.key)}",
        )
    return reference
