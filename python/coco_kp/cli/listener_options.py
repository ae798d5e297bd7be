"""Options of what listens: TLS, who is let in, and who reaches a Unix socket."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import click

from coco_kp.cli.errors import UsageError
from coco_kp.cli.options import FILE, Option, OptionGroup, usage
from coco_kp.errors import RefusedError
from coco_kp.values import replace

if TYPE_CHECKING:
    from coco_kp.keyprovider.address import TcpAddress, UnixAddress
    from coco_kp.keyprovider.server_tls import ServerTls
    from coco_kp.model.clients import Clients
    from coco_kp.service.limits import Limits


class _Mode(click.ParamType[int]):
    """A file's permissions, in octal digits."""

    name = "mode"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if not isinstance(value, str) or not re.fullmatch("0?[0-7]{3}", value):
            self.fail(f"{value!r} is not three octal digits, such as 660", param, ctx)
        return int(value, 8)


class _Group(click.ParamType[int]):
    """A group's name or number."""

    name = "group"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if not isinstance(value, str):
            self.fail("not a group", param, ctx)
        if re.fullmatch("[0-9]{1,9}", value):
            return int(value)
        import grp

        try:
            return grp.getgrnam(value).gr_gid
        except (KeyError, ValueError):
            self.fail(f"there is no group {value!r}", param, ctx)


class TlsOptions(OptionGroup):
    """A listener's certificate."""

    tls_cert: Path | None
    tls_key: Path | None

    options: ClassVar[tuple[Option, ...]] = (
        click.option(
            "--tls-cert",
            type=FILE,
            metavar="PEM",
            help="Speak TLS with this certificate chain; a renewed one is used without a restart.",
        ),
        click.option("--tls-key", type=FILE, metavar="PEM", help="The certificate's private key."),
    )

    def check(self) -> None:
        """Raise ``UsageError`` for a certificate without its key, or a key alone."""
        if bool(self.tls_cert) != bool(self.tls_key):
            raise UsageError("--tls-cert and --tls-key go together")

    def server_tls(self, client_ca: Path | None = None) -> ServerTls | None:
        """Read the certificate; None without one. Raises ``UsageError``, ``InputError``."""
        self.check()
        if not self.tls_cert or not self.tls_key:
            return None
        from coco_kp.keyprovider.server_tls import ServerTls

        return ServerTls(self.tls_cert, self.tls_key, client_ca)


class ClientOptions(OptionGroup):
    """Who may call over TLS, and do what."""

    tls_client_ca: Path | None
    clients: Path | None

    options: ClassVar[tuple[Option, ...]] = (
        click.option(
            "--tls-client-ca",
            type=FILE,
            metavar="PEM",
            help="Let only clients in that have a certificate of one of these CAs.",
        ),
        click.option(
            "--clients",
            type=FILE,
            metavar="FILE",
            help="What clients may do, by the names in their certificates; without it they wrap, "
            "and do not unwrap.",
        ),
    )

    def read(self, tls: TlsOptions) -> Clients | None:
        """Read what clients may do; None without a file. Raises ``UsageError``, ``InputError``."""
        if self.tls_client_ca and not tls.tls_cert:
            raise UsageError("--tls-client-ca needs --tls-cert and --tls-key")
        if self.clients is None:
            return None
        if not self.tls_client_ca:
            raise UsageError("--clients needs --tls-client-ca: nothing else tells who a client is")
        from coco_kp.service.clients_file import read_clients

        return read_clients(self.clients)


class SocketOptions(OptionGroup):
    """Who reaches a listener without TLS."""

    insecure_listen: bool
    socket_mode: int | None
    socket_group: int | None

    options: ClassVar[tuple[Option, ...]] = (
        click.option(
            "--insecure-listen",
            is_flag=True,
            help="Allow an address beyond loopback without TLS: layers' keys pass in clear, and "
            "whoever reaches it may wrap and unwrap.",
        ),
        click.option(
            "--socket-mode",
            type=_Mode(),
            metavar="MODE",
            help="Mode of a Unix socket; who may write to it may call.  [default: 600]",
        ),
        click.option(
            "--socket-group", type=_Group(), metavar="GROUP", help="Group of a Unix socket."
        ),
    )

    def address(self, text: str, tls: TlsOptions) -> TcpAddress | UnixAddress:
        """Read where to listen. Raises ``UsageError``, ``RefusedError`` where keys would leak."""
        from coco_kp.keyprovider.address import UnixAddress, parse_address

        with usage():
            address = parse_address(text)
        if isinstance(address, UnixAddress):
            mode = address.mode if self.socket_mode is None else self.socket_mode
            return replace(address, mode=mode, group=self.socket_group)
        if self.socket_mode is not None or self.socket_group is not None:
            raise UsageError("--socket-mode and --socket-group are for unix:///PATH")
        if address.beyond_loopback and not tls.tls_cert and not self.insecure_listen:
            raise RefusedError(
                f"{address} is open to other machines, and layers' keys would pass in clear",
                "give --tls-cert, --tls-key and --tls-client-ca, or listen on loopback or a Unix "
                "socket; on a network that only clients reach, --insecure-listen",
            )
        return address


class LimitOptions(OptionGroup):
    """How much of the server one client gets."""

    client_rate: int
    client_keks: int

    options: ClassVar[tuple[Option, ...]] = (
        click.option(
            "--client-rate",
            type=click.IntRange(min=1),
            metavar="CALLS",
            default=100,
            show_default=True,
            help="Calls a second that one client may make, and ten seconds' worth at once. Clients "
            "of this machine without a certificate cannot be told apart, and have no such limit.",
        ),
        click.option(
            "--client-keks",
            type=click.IntRange(min=1),
            metavar="KEYS",
            default=10_000,
            show_default=True,
            help="Keys that are made for one client, and as many again each hour.",
        ),
    )

    def limits(self) -> Limits:
        """Return the limits."""
        from coco_kp.service.limits import Limits

        return Limits(self.client_rate, self.client_keks)
