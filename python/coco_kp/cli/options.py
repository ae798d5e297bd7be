"""Options that several commands share, in groups.

A group is a class whose annotated attributes are the options' values;
``with_options(kbc=KbcOptions)`` adds all options of the group to a command, and hands it their
values as one argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, dataclass_transform

import click

from coco_kp.cli.errors import UsageError
from coco_kp.errors import InputError

if TYPE_CHECKING:
    from coco_kp.kbc.kbcs import Kbc, Kbcs
    from coco_kp.kbs.admin import Admin
    from coco_kp.keys.register import Registrar
    from coco_kp.model.kbc_spec import KbcSpec

FILE = click.Path(readable=False, path_type=Path)
"""A file's path; whether it is there and what is in it, the use case says."""

LOG_FORMAT = click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Form of the lines on stderr.",
)
"""How a server logs."""

Command = Callable[..., None]
Option = Callable[[Command], Command]


@contextmanager
def usage() -> Iterator[None]:
    """Read values of options in the block: what is malformed there is wrong usage."""
    try:
        yield
    except InputError as error:
        raise error.blaming(UsageError) from None


def with_options(**groups: type[OptionGroup]) -> Option:
    """Add the options of these groups to a command; two groups may share one."""
    options = dict.fromkeys(option for group in groups.values() for option in group.options)
    names = {name for group in groups.values() for name in group.names()}

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(**given: Any) -> None:  # noqa: ANN401 (as click hands them)
            values = {
                name: group(**{value: given[value] for value in group.names()})
                for name, group in groups.items()
            }
            command(**values, **{name: given[name] for name in given.keys() - names})

        wrapped: Command = run
        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped

    return decorate


@dataclass_transform(frozen_default=True, kw_only_default=True)
class OptionGroup:
    """What groups have in common: values by name.

    No real dataclasses: to make those takes a millisecond each, at every start.
    """

    options: ClassVar[tuple[Option, ...]] = ()

    def __init__(self, **values: Any) -> None:  # noqa: ANN401 (typed by the groups' annotations)
        vars(self).update(values)

    @classmethod
    def names(cls) -> set[str]:
        """Return the names of all values."""
        annotations = (vars(one).get("__annotations__", {}) for one in cls.__mro__)
        return set().union(*annotations) - {"options"}


_KBS_ACCESS = (
    click.option(
        "--kbs-ca",
        type=FILE,
        metavar="PEM",
        help="Trust this CA for a KBS, beside the system's.",
    ),
    click.option(
        "--kbs-insecure-http",
        is_flag=True,
        help="Allow plain http:// to a KBS beyond loopback: whoever listens learns the keys.",
    ),
)


class KbcOptions(OptionGroup):
    """Who opens packets, and with what."""

    kbc: str | None
    keys: Path | None
    sev_secrets: Path | None
    keep_secret: bool
    attester: str
    aa: str
    eaa_allow_unverified: bool
    kbs_ca: Path | None
    kbs_insecure_http: bool

    options: ClassVar[tuple[Option, ...]] = (
        click.option(
            "--kbc",
            metavar="NAME[::URI]",
            help="Who opens packets: sample, offline_fs, offline_sev, online_sev::HOST:PORT, "
            "cc::URL, eaa::IP:PORT or a plug-in.",
        ),
        click.option(
            "--keys",
            type=FILE,
            metavar="FILE",
            help="Keys file of offline_fs or offline_sev, or connection file of online_sev, "
            "instead of the guest's own. It is only read. Alone it means --kbc offline_fs.",
        ),
        click.option(
            "--sev-secrets",
            type=FILE,
            hidden=True,  # for trials without a SEV guest, whose kernel has one place for them
        ),
        click.option(
            "--keep-secret",
            is_flag=True,
            help="Do not delete a SEV guest's injected secret once it was read.",
        ),
        click.option(
            "--attester",
            metavar="NAME",
            default="sample",
            show_default=True,
            help="How cc proves what this machine is: sample, aa (the guest's Attestation Agent), "
            "aa-token (a token of the agent's) or a plug-in.",
        ),
        click.option("--aa", metavar="URL", default="", help="REST API of the Attestation Agent."),
        click.option(
            "--eaa-allow-unverified",
            is_flag=True,
            help="Let eaa talk to a Verdictd beyond loopback. Its quote is not verified: a man in "
            "the middle could answer in its place and learn the keys of your layers.",
        ),
        *_KBS_ACCESS,
    )

    def spec(self) -> KbcSpec | None:
        """Read ``--kbc``; a keys file alone is what an offline_fs guest has.

        Raises ``InputError``.
        """
        from coco_kp.model.kbc_spec import KBC_NAMES, KbcSpec, parse_kbc_spec

        if self.kbc:
            from coco_kp.kbc.kbcs import PLUGINS

            ours = self.kbc.partition("::")[0].removesuffix("_kbc") in KBC_NAMES
            return parse_kbc_spec(self.kbc, () if ours else PLUGINS.names())
        return KbcSpec("offline_fs", "") if self.keys else None

    def _check_attester(self) -> None:
        if self.attester in ("sample", "aa", "aa-token"):
            return
        from coco_kp.kbs.attester import check_name

        check_name(self.attester)

    def kbcs(self) -> Kbcs:
        """Return all KBCs, set as the user wants them; they are closed when the command ends.

        Paths are absolute, since a daemon changes its directory. Raises ``UsageError``.
        """
        from coco_kp.kbc.injected_secret import SEV_SECRETS, InjectedSecrets
        from coco_kp.kbc.kbcs import Kbcs

        with usage():
            self._check_attester()
        keys_file = self.keys and self.keys.absolute()
        ca_file = self.kbs_ca and self.kbs_ca.absolute()
        folder = (self.sev_secrets or SEV_SECRETS).absolute()
        secrets = InjectedSecrets(folder, keep=self.keep_secret)

        # Each is loaded when it is first named: a server has not that time while it starts.
        def offline_fs(address: str) -> Kbc:
            from coco_kp.kbc import offline_fs

            return offline_fs.offline_fs_kbc(address, keys_file=keys_file)

        def offline_sev(address: str) -> Kbc:
            from coco_kp.kbc import offline_sev

            return offline_sev.offline_sev_kbc(address, keys_file=keys_file, secrets=secrets)

        def online_sev(address: str) -> Kbc:
            from coco_kp.kbc import online_sev

            return online_sev.online_sev_kbc(address, connection_file=keys_file, secrets=secrets)

        def cc(address: str) -> Kbc:
            from coco_kp.kbc import cc

            return cc.cc_kbc(
                address,
                ca_file=ca_file,
                insecure_http=self.kbs_insecure_http,
                attester=self.attester,
                agent=self.aa,
            )

        def eaa(address: str) -> Kbc:
            from coco_kp.kbc import eaa

            return eaa.eaa_kbc(address, allow_unverified=self.eaa_allow_unverified)

        makers = (offline_fs, offline_sev, online_sev, cc, eaa)
        kbcs = Kbcs({make.__name__: make for make in makers})
        return click.get_current_context().with_resource(kbcs)


class AdminOptions(OptionGroup):
    """A KBS, and the right to write into it."""

    kbs: str | None
    auth_private_key: Path | None
    admin_token_file: Path | None
    admin_role: str
    admin_issuer: str
    admin_audience: str
    kbs_ca: Path | None
    kbs_insecure_http: bool

    options: ClassVar[tuple[Option, ...]] = (
        click.option("--kbs", metavar="URL", help="Register keys with this KBS."),
        click.option(
            "-a",
            "--auth-private-key",
            type=FILE,
            metavar="PEM",
            help="Make the KBS's admin tokens with this Ed25519, EC or RSA key.",
        ),
        click.option(
            "--admin-token-file",
            type=FILE,
            metavar="FILE",
            help="A ready admin token; else COCO_KP_ADMIN_TOKEN, else ~/.trustee/admin-token.",
        ),
        click.option(
            "--admin-role", default="admin", show_default=True, help="Role in tokens made here."
        ),
        click.option("--admin-issuer", default="", help="Issuer (iss) in tokens made here."),
        click.option("--admin-audience", default="", help="Audience (aud) in tokens made here."),
        *_KBS_ACCESS,
    )

    def admin(self) -> Admin | None:
        """Return the KBS and the right to write into it, or None without ``--kbs``.

        Its connections are closed when the command ends. Raises ``CocoKpError``.
        """
        if self.kbs is None:
            if self.auth_private_key or self.admin_token_file:
                raise UsageError("admin tokens need a KBS to go to", "name it with --kbs URL")
            return None
        if self.auth_private_key and self.admin_token_file:
            raise UsageError("--auth-private-key and --admin-token-file exclude each other")
        from coco_kp.kbs import admin_token
        from coco_kp.kbs.admin import Admin
        from coco_kp.kbs.client import Kbs
        from coco_kp.model.kbs_url import KbsUrl

        token = admin_token.find(
            token_file=self.admin_token_file,
            private_key=self.auth_private_key,
            role=self.admin_role,
            issuer=self.admin_issuer,
            audience=self.admin_audience,
        )
        url = KbsUrl.parse(self.kbs)
        kbs = Kbs(url, ca_file=self.kbs_ca, insecure_http=self.kbs_insecure_http)
        return Admin(click.get_current_context().with_resource(kbs), token)


class RegistrationOptions(AdminOptions):
    """The KBS in which keys are registered."""

    allow_alias: bool

    options: ClassVar[tuple[Option, ...]] = (
        *AdminOptions.options,
        click.option(
            "--allow-alias",
            is_flag=True,
            help="Allow that a registered key gets a second key ID, whose readers then have it.",
        ),
    )

    def registrar(self) -> Registrar | None:
        """Return what registers keys, or None without ``--kbs``. Raises ``CocoKpError``."""
        admin = self.admin()
        if admin is None:
            return None
        from coco_kp.kbs.record import Record, default_folder
        from coco_kp.keys.register import Registrar

        return Registrar(admin, Record(default_folder()), allow_alias=self.allow_alias)
