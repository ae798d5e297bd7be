"""``coco-kp kbs-plugin``: the plugin by which a Trustee KBS hands out wrapped KEKs."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Literal

import click

from coco_kp.cli.listener_options import TlsOptions
from coco_kp.cli.options import FILE, LOG_FORMAT, usage, with_options
from coco_kp.cli.output import announce, log_level, warn
from coco_kp.cli.output_options import verbosity
from coco_kp.errors import RefusedError


@click.command("kbs-plugin", short_help="Unwrap KEKs for a Trustee KBS, over gRPC.")
@click.option(
    "--config",
    "config_file",
    type=FILE,
    metavar="FILE",
    required=True,
    help='The names that are answered, and the key of each: [names.NAME] unwrap-with = "URI".',
)
@click.option(
    "--listen",
    "listen_address",
    metavar="ADDR",
    default="127.0.0.1:50051",
    show_default=True,
    help="Listen here: IP:PORT, [IPv6]:PORT (port 0: any) or unix:///PATH.",
)
@click.option(
    "--insecure-listen",
    is_flag=True,
    help="Allow an address beyond loopback: whoever reaches it gets every KEK that he has the "
    "ciphertext of, as callers cannot be told apart.",
)
@LOG_FORMAT
@with_options(tls=TlsOptions)
@verbosity
def command(
    config_file: Path,
    listen_address: str,
    insecure_listen: bool,
    log_format: Literal["text", "json"],
    tls: TlsOptions,
) -> None:
    """Serve as the external plugin of a Trustee KBS: it unwraps KEKs with a KMS or HSM.

    An image's key ID kbs+external:///BACKEND/NAME?ct=… holds its KEK, wrapped. An attested guest
    asks its KBS for it, the KBS asks here, and the key that FILE has for NAME unwraps it. Which
    guests may have which NAME is the KBS's policy alone.
    """
    import logging

    from coco_kp.keyprovider.address import parse_address
    from coco_kp.keys.stores.opening import open_wrapping_key
    from coco_kp.observe import configure
    from coco_kp.service.plugin_config import read_plugin_config
    from coco_kp.service.unwrapping import Unwrapping

    tls.check()
    with usage():
        address = parse_address(listen_address)
    if address.beyond_loopback and not insecure_listen:
        raise RefusedError(
            f"{address} is open to other machines, whose calls cannot be told from the KBS's",
            "listen on loopback or a Unix socket beside the KBS, or on a network that only the KBS "
            "can reach, with --insecure-listen",
        )
    references = read_plugin_config(config_file)
    keys = {
        name: click.get_current_context().with_resource(closing(open_wrapping_key(reference)))
        for name, reference in references.items()
    }
    configure(log_format, log_level(logging.INFO))
    if address.beyond_loopback and not tls.tls_cert:
        warn(f"KEKs leave {address} unencrypted: give --tls-cert and --tls-key")

    def ready(bound: str) -> None:
        names = ", ".join(sorted(keys))
        announce(log_format, "ready", bound, f"KBS plugin ready on {bound}, for {names}")

    from coco_kp.keyprovider.server import Moments, serve
    from coco_kp.service.kbs_plugin import kbs_plugin

    serve(kbs_plugin(Unwrapping(keys)), address, Moments(ready), tls.server_tls())
