"""``coco-kp config``: the file that ``OCICRYPT_KEYPROVIDER_CONFIG`` names."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from coco_kp.cli.errors import UsageError
from coco_kp.cli.options import FILE, usage
from coco_kp.cli.output import notice, print_json, warn
from coco_kp.cli.output_options import verbosity
from coco_kp.errors import InputError
from coco_kp.model.layer_encryption import DEFAULT_PROVIDER_NAME, provider_scheme

_TLS_WARNING = (
    "clients with ocicrypt before 1.3, such as Debian's skopeo up to 1.22, ignore grpc-tls and "
    "send layer keys in clear to whatever answers: ask coco-kp doctor about this machine's"
)


@click.command("config", short_help="Print ocicrypt's key-provider configuration.")
@click.option("--grpc", "address", metavar="ADDR", help="The provider listens at ADDR.")
@click.option("--cmd", "as_command", is_flag=True, help="No server: clients run coco-kp itself.")
@click.option(
    "--tls-root-ca", type=FILE, metavar="PEM", help="Call it with TLS, and trust this CA."
)
@click.option(
    "--tls-cert",
    type=FILE,
    metavar="PEM",
    help="Call it with TLS, and show this client certificate.",
)
@click.option("--tls-key", type=FILE, metavar="PEM", help="The client certificate's private key.")
@click.option(
    "--tls-server-name",
    metavar="NAME",
    help="Call it with TLS, and expect this name in its certificate, not that of ADDR.",
)
@click.option(
    "--name",
    default=DEFAULT_PROVIDER_NAME,
    show_default=True,
    help="Name of the provider in --encryption-key provider:NAME:…",
)
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Write FILE instead of stdout.")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@click.argument("arguments", metavar="[-- KEYPROVIDER_OPTIONS]", nargs=-1)
@verbosity
def command(
    address: str | None,
    as_command: bool,
    tls_root_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_server_name: str | None,
    name: str,
    output: Path | None,
    force: bool,
    arguments: tuple[str, ...],
) -> None:
    """Print the key-provider configuration of ocicrypt, for the server at ADDR or for --cmd.

    Point skopeo at it with OCICRYPT_KEYPROVIDER_CONFIG=FILE. Options behind -- go to each call of
    `coco-kp keyprovider`, for example: coco-kp config --cmd -- --keys /etc/keys.json
    """
    from coco_kp.files import write_file
    from coco_kp.keyprovider.config import GrpcTls
    from coco_kp.model.encoding import write_json

    # Clients run in directories of their own.
    root_ca, cert, key = (
        str(path.absolute()) if path else "" for path in (tls_root_ca, tls_cert, tls_key)
    )
    tls = GrpcTls(root_ca, cert, key, tls_server_name or "").to_json()
    if tls and not address:
        raise UsageError("--tls-… options go with --grpc ADDR")
    if bool(cert) != bool(key):
        raise UsageError("--tls-cert and --tls-key go together")

    if bool(address) == as_command:
        raise UsageError("give either --grpc ADDR or --cmd")
    if arguments and not as_command:
        raise UsageError("options behind -- go with --cmd only")
    with usage():
        provider_scheme(name)
    own_name = () if name == DEFAULT_PROVIDER_NAME else ("--name", name)
    attributes: dict[str, object] = (
        {"grpc": _checked(address), **({"grpc-tls": tls} if tls else {})}
        if address
        else {"cmd": {"path": _own_path(), "args": ["keyprovider", *own_name, *arguments]}}
    )
    document = {"key-providers": {name: attributes}}
    try:
        text = write_json(document)
    except UnicodeEncodeError:
        raise UsageError("the options behind -- are not UTF-8 text, as JSON must be") from None
    if tls:
        warn(_TLS_WARNING)
    if output is None:
        print_json(document)
        return
    write_file(output, text + b"\n", replace=force, mode=0o644)
    notice(f"wrote {output}; now: export OCICRYPT_KEYPROVIDER_CONFIG={output.absolute()}")


def _checked(address: str) -> str:
    """Refuse what Go's gRPC would take for a host name, such as http://127.0.0.1:50000."""
    from coco_kp.model.host_port import HostPort

    if address.startswith("unix:///"):
        return address
    try:
        return str(HostPort.parse(address, "--grpc"))
    except InputError as error:
        raise UsageError(error.message, f"{error.hint}, or unix:///path/to.sock") from None


def _own_path() -> str:
    """Return an absolute path, since clients run it in their own working directory."""
    from coco_kp.files import is_there

    beside_python = Path(sys.executable).with_name("coco-kp")
    if is_there(beside_python):
        return str(beside_python)
    found = shutil.which("coco-kp")
    if not found:
        raise UsageError("cannot find the coco-kp command on PATH")
    return str(Path(found).absolute())
