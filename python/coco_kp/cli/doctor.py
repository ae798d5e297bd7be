"""``coco-kp doctor``: what is wrong with this machine's set-up."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from coco_kp.cli.errors import UsageError
from coco_kp.cli.hints import advice
from coco_kp.cli.options import AdminOptions, with_options
from coco_kp.cli.output import print_json, say
from coco_kp.cli.output_options import FORMAT, verbosity
from coco_kp.errors import CocoKpError, InputError, KekError, RemoteError
from coco_kp.keyprovider.client import check_health
from coco_kp.keyprovider.config import CmdProvider, GrpcProvider, read_ocicrypt_config
from coco_kp.keys.kek_file import read_kek
from coco_kp.model.layer_encryption import DEFAULT_PROVIDER_NAME
from coco_kp.model.params import FileParams, SampleParams, parse_params
from coco_kp.redact import shown
from coco_kp.skopeo import PROGRAMS, Program, find_program
from coco_kp.values import dataclass

if TYPE_CHECKING:
    from coco_kp.kbs.admin import Admin
    from coco_kp.kbs.client import Answer
    from coco_kp.keys.stores.interface import Store, WrappingKey

T = TypeVar("T")


@click.command("doctor", short_help="Find what is wrong with this machine's set-up.")
@click.option(
    "--name",
    default=DEFAULT_PROVIDER_NAME,
    show_default=True,
    help="Provider that --encryption-key provider:NAME:… names.",
)
@click.option(
    "--parameters",
    metavar="K=V::K=V",
    help="Check these encryption parameters as the provider would, key file included.",
)
@click.option("--kek-from", metavar="URI", help="See whether this key can be fetched.")
@click.option(
    "--wrap-with", metavar="URI", help="See whether this key of a KMS or HSM can be used."
)
@with_options(registration=AdminOptions)
@FORMAT
@verbosity
def command(
    name: str,
    parameters: str | None,
    kek_from: str | None,
    wrap_with: str | None,
    registration: AdminOptions,
    form: str,
) -> None:
    """Check what encrypts, its key-provider configuration, the provider and, on request, a key.

    Prints a line for each check. Those of skopeo, buildah and podman that are on PATH are checked;
    one of them must be. With --kbs a KBS is, too. The exit code is that of the first check that
    failed. Nothing is changed anywhere.
    """
    checks = _examine(name, parameters)
    _examine_key(checks, kek_from, wrap_with)
    _examine_kbs(checks, registration)
    findings = checks.findings
    if form == "json":
        print_json([finding.to_json() for finding in findings])
    else:
        for finding in findings:
            say(f"{'FAIL' if finding.failure else 'ok  '}  {finding.check}: {finding.text}")
            if finding.failure and (hint := advice(finding.failure)):
                say(f"      hint: {hint}")
    failures = [finding.failure for finding in findings if finding.failure]
    if failures:
        click.get_current_context().exit(failures[0].exit_code)


@dataclass(frozen=True, slots=True)
class _Finding:
    """A check's outcome: what was found, or why it failed."""

    check: str
    text: str
    failure: CocoKpError | None = None

    def to_json(self) -> dict[str, object]:
        failure = self.failure
        return {
            "check": self.check,
            "ok": not failure,
            "code": failure.code if failure else None,
            "found": self.text,
            "hint": advice(failure) if failure else "",
        }


@dataclasses.dataclass(slots=True)
class _Checklist:
    """The checks so far. A check returns what it found, in words and as a value for later ones."""

    findings: list[_Finding] = dataclasses.field(default_factory=list)

    def run(self, check: str, examine: Callable[[], tuple[str, T]]) -> T | None:
        try:
            text, value = examine()
        except CocoKpError as failure:
            self.findings.append(_Finding(check, failure.message, failure))
            return None
        self.findings.append(_Finding(check, text))
        return value


def _examine(name: str, parameters: str | None) -> _Checklist:
    checks = _Checklist()
    there = [name for name in PROGRAMS if shutil.which(name)] or PROGRAMS[:1]
    programs = [checks.run(program, partial(_program, program)) for program in there]
    providers = checks.run("configuration file", read_ocicrypt_config)
    if providers:
        provider = checks.run("provider name", lambda: _provider(providers, name))
        if provider:
            checks.run("provider", lambda: _reach(provider))
        if isinstance(provider, GrpcProvider) and provider.tls:
            for found in filter(None, programs):
                checks.run(f"TLS of {found.path.name}", partial(_knows_grpc_tls, found))
    if parameters is not None:
        checks.run("encryption parameters", lambda: _key(parameters))
    return checks


def _examine_key(checks: _Checklist, kek_from: str | None, wrap_with: str | None) -> None:
    from coco_kp.keys.reference import parse_kek_reference, parse_wrapping_reference
    from coco_kp.keys.stores.opening import open_store, open_wrapping_key

    if kek_from is not None:
        store = parse_kek_reference(kek_from)
        checks.run(f"key of {store}", lambda: _checked(open_store(store)))
    if wrap_with is not None:
        key = parse_wrapping_reference(wrap_with)
        checks.run(f"wrapping key {key}", lambda: _checked(open_wrapping_key(key)))


def _checked(key: Store | WrappingKey) -> tuple[str, None]:
    with closing(key):
        return key.check(), None


def _examine_kbs(checks: _Checklist, registration: AdminOptions) -> None:
    if registration.kbs is None:
        return
    from coco_kp.kbs import checkup  # urllib3 and cryptography are slow to load

    found = checks.run("KBS", lambda: _reach_kbs(registration))
    if found:
        admin, answer = found
        checks.run("KBS protocol", lambda: (checkup.check_protocol(admin.kbs), None))
        checks.run("KBS clock", lambda: (checkup.check_clock(answer), None))
        checks.run("KBS admin token", lambda: (checkup.check_admin(admin), None))


def _reach_kbs(registration: AdminOptions) -> tuple[str, tuple[Admin, Answer]]:
    from coco_kp.kbs import checkup

    admin = registration.admin()
    if admin is None:
        raise UsageError("no KBS to check", "name it with --kbs URL")
    return f"{admin.kbs.url} answers", (admin, checkup.reach(admin.kbs))


def _program(name: str) -> tuple[str, Program]:
    program = find_program(name)
    if program is None:
        raise RemoteError(
            f"none of {', '.join(PROGRAMS)} is on PATH",
            "install one built with key providers, or use coco-kp encrypt, which needs none",
        )
    if not program.knows_key_providers:
        raise RemoteError(
            f"{program.path} {program.version} is built without key providers",
            "Debian 12's is; take a newer one, or use coco-kp encrypt, which needs none",
        )
    return f"{program.path} {program.version}, built with key providers", program


def _knows_grpc_tls(program: Program) -> tuple[str, None]:
    known = program.knows_grpc_tls()
    if known:
        return f"{program.path} reads grpc-tls", None
    says = "does not know" if known is False else "is a script, which does not say whether it knows"
    raise RemoteError(
        f"{program.path} {program.version} {says} grpc-tls: without it, it sends layer keys in "
        "clear to whatever answers",
        "take one with ocicrypt 1.3 or newer, call the provider over a Unix socket, or use coco-kp "
        "encrypt --provider, which speaks TLS",
    )


def _provider(
    providers: dict[str, CmdProvider | GrpcProvider], name: str
) -> tuple[str, CmdProvider | GrpcProvider]:
    if name not in providers:
        raise InputError(
            f"the file names {', '.join(map(shown, providers))}, not {shown(name)}",
            "the name in --encryption-key provider:NAME:… must be one of the file's; "
            "a provider that is not named is passed over",
        )
    return f"{name} is {providers[name]}", providers[name]


def _reach(provider: CmdProvider | GrpcProvider) -> tuple[str, None]:
    if isinstance(provider, CmdProvider):
        if shutil.which(provider.path) is None:
            raise InputError(
                f"{shown(provider.path)} is not an executable program",
                "coco-kp config --cmd writes the right path",
            )
        return f"{provider.path} can be run", None
    if provider.tls and bool(provider.tls.cert_file) != bool(provider.tls.key_file):
        raise InputError(
            f"grpc-tls of {provider} has one of cert-file and key-file alone",
            "ocicrypt then shows no client certificate: name both",
        )
    return f"{provider.address} {check_health(provider)}", None


def _key(parameters: str) -> tuple[str, None]:
    params = parse_params(parameters)
    if isinstance(params, SampleParams):
        return f"the sample key, {params.algorithm}: for trials only", None
    if not isinstance(params, FileParams):
        raise KekError("keypath is missing", "name the file with the key: keypath=FILE")
    file = read_kek(Path(params.key_path))
    for warning in file.warnings:
        raise KekError(warning)
    return f"{params.key_id} with key {file.kek.fingerprint}, {params.algorithm}", None
