"""``coco-kp serve``: the gRPC key provider."""

from __future__ import annotations

from typing import Final, Literal

import click

from coco_kp.cli.headings import KBC, KBS, PROVIDER_KEYS, HeadedCommand
from coco_kp.cli.listener_options import ClientOptions, LimitOptions, SocketOptions, TlsOptions
from coco_kp.cli.operations import OperationOptions
from coco_kp.cli.options import (
    LOG_FORMAT,
    KbcOptions,
    RegistrationOptions,
    with_options,
)
from coco_kp.cli.output import announce, log_level, warn
from coco_kp.cli.output_options import verbosity
from coco_kp.cli.provider_options import ProviderOptions

_HEADINGS: Final = {
    "Most used": (
        *("--socket", "--key-dir", "--kbs", "--keys", "--kbc", "--name"),
        *("--tls-cert", "--tls-key", "--daemon", "--help"),
    ),
    "Who may call": (
        *("--tls-client-ca", "--clients", "--insecure-listen", "--socket-mode", "--socket-group"),
        *("--client-rate", "--client-keks"),
    ),
    "Which keys": PROVIDER_KEYS,
    "The KBS": KBS,
    "The KBC": KBC,
    "Operations": ("--metrics", "--health", "--audit", "--audit-required"),
    "Output": ("--log-format", "--quiet", "--verbose"),
}


@click.command(
    "serve", short_help="Run the key provider over gRPC.", cls=HeadedCommand, headings=_HEADINGS
)
@click.option(
    "-s",
    "--socket",
    "socket_address",
    metavar="ADDR",
    default="127.0.0.1:50000",
    show_default=True,
    help="Listen here: IP:PORT, [IPv6]:PORT (port 0: any) or unix:///PATH.",
)
@click.option("-d", "--daemon", is_flag=True, help="Go to the background when ready.")
@LOG_FORMAT
@with_options(
    tls=TlsOptions,
    clients=ClientOptions,
    socket=SocketOptions,
    limits=LimitOptions,
    callers=ProviderOptions,
    registration=RegistrationOptions,
    kbc=KbcOptions,
    operations=OperationOptions,
)
@verbosity
def command(
    socket_address: str,
    daemon: bool,
    log_format: Literal["text", "json"],
    tls: TlsOptions,
    clients: ClientOptions,
    socket: SocketOptions,
    limits: LimitOptions,
    callers: ProviderOptions,
    registration: RegistrationOptions,
    kbc: KbcOptions,
    operations: OperationOptions,
) -> None:
    """Serve as the key provider that skopeo, buildah, podman, nerdctl and CRI-O call.

    The client names the key in --encryption-key provider:attestation-agent:PARAMETERS, where
    PARAMETERS is keypath=FILE::keyid=kbs:///REPOSITORY/TYPE/TAG, or sample=true for a trial. With
    --kbs, keypath may be left out: the key is then made once for each keyid and registered before
    it is used. Append ::algorithm=A256CTR for guests that need it; unlike the default, A256GCM, it
    does not detect tampering.
    """
    import logging
    from functools import partial

    from coco_kp.observe import configure
    from coco_kp.service.daemon import Daemon

    tls.check()
    address = socket.address(socket_address, tls)
    operations.check(daemon=daemon)
    configure(log_format, log_level(logging.INFO))
    # Whoever has the machine's network calls over TCP, a guest on it, too.
    any_file = bool(address.others) and callers.key_dir is None
    provider = callers.provider(registration, kbc, files_untold=any_file)
    known_clients = clients.read(tls)
    process = Daemon.start() if daemon else None

    def ready(bound: str) -> None:
        if any_file and known_clients is None:
            warn(
                f"{bound} is open to {address.others}: whoever calls can name any file that this "
                "process may read, and learns whether it is a key; limit them with --key-dir DIR, "
                "or listen on a Unix socket that is yours alone"
            )
        announce(log_format, "ready", bound, f"key provider ready on {bound}")
        if process:
            process.ready()

    def scraped(bound: str) -> None:
        announce(log_format, "metrics", bound, f"metrics on http://{bound}/metrics")

    from coco_kp.keyprovider.server import serve  # loads gRPC: after the fork of a daemon
    from coco_kp.keyprovider.service import key_provider
    from coco_kp.service.calls import answer

    handler = partial(answer, provider, clients=known_clients, limits=limits.limits())
    try:
        with operations.at_work(provider, ready, scraped) as (audit, moments):
            serve(
                key_provider(partial(handler, audit=audit)),
                address,
                moments,
                tls.server_tls(clients.tls_client_ca),
                operations.health_address(),
            )
    finally:
        if process:
            process.ended()
