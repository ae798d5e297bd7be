"""``coco-kp verify``: prove that an image is encrypted and can be decrypted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import click

from coco_kp.cli.headings import IMAGE, KBC, OUTPUT, HeadedCommand
from coco_kp.cli.hints import advice
from coco_kp.cli.image_options import JOBS, NO_PROGRESS, ImageAccess, OpeningOptions
from coco_kp.cli.options import KbcOptions, with_options
from coco_kp.cli.output import print_json, quiet, say
from coco_kp.cli.output_options import FORMAT, verbosity

if TYPE_CHECKING:
    from coco_kp.image.verdicts import RecipientVerdict, VerificationReport
    from coco_kp.keys.reference import AwsKmsReference
    from coco_kp.model.resource_uri import ResourceUri


_HEADINGS: Final = {
    "Most used": (
        *("--keypath", "--keys", "--kbc", "--kek-from", "--wrap-with", "--provider"),
        *("--expect-keyid", "--target", "--format", "--help"),
    ),
    "What is accepted": (
        *("--allow-layer", "--skip-base", "--allow-attestations", "--allow-sample", "--allow-ctr"),
    ),
    "The KBC": (*KBC, "--kbs-ca", "--kbs-insecure-http"),
    "The image": IMAGE,
    "Output": OUTPUT,
}


@click.command(
    "verify",
    short_help="Prove that an image is encrypted and can be opened.",
    cls=HeadedCommand,
    headings=_HEADINGS,
)
@click.argument("image")
@with_options(opening=OpeningOptions, kbc=KbcOptions)
@click.option(
    "--allow-layer",
    "allowed",
    type=int,
    metavar="N",
    multiple=True,
    help="Layer N may be readable, from 0, or from -1 at the end; may be repeated.",
)
@click.option("--skip-base", metavar="IMAGE", help="Layers of this base image may be readable.")
@click.option("--allow-attestations", is_flag=True, help="Attestations may be readable.")
@click.option(
    "--expect-keyid",
    "expected",
    metavar="URI",
    multiple=True,
    help="Each encrypted layer is for this key ID, and for no other that is not named so; may be "
    "repeated.",
)
@click.option(
    "--allow-sample",
    is_flag=True,
    help="For trials: the public sample key, which everybody knows, may open the image.",
)
@click.option(
    "--allow-ctr",
    is_flag=True,
    help="Packets may be wrapped with A256CTR, which does not detect tampering.",
)
@click.option(
    "--target",
    type=click.Choice(["coco", "nitro"]),
    help="Find also what a Confidential Containers guest would refuse, or an AWS Nitro sandbox, "
    "which takes no readable layer at all.",
)
@with_options(access=ImageAccess)
@JOBS
@FORMAT
@NO_PROGRESS
@verbosity
def command(
    image: str,
    opening: OpeningOptions,
    kbc: KbcOptions,
    allowed: tuple[int, ...],
    skip_base: str | None,
    expected: tuple[str, ...],
    allow_sample: bool,
    allow_ctr: bool,
    allow_attestations: bool,
    target: Literal["coco", "nitro"] | None,
    access: ImageAccess,
    jobs: int | None,
    form: str,
    no_progress: bool,
) -> None:
    """Verify that all layers of IMAGE are encrypted, and that they decrypt to what they should.

    Without a key (--keys, --kbc, --keypath or --provider) only that is checked which needs none.
    Writes nothing. The exit code is 7 where a layer is not encrypted, everybody can open it, or a
    packet or recipient is one that is not allowed; 5 where data is damaged, 4 where the key does
    not open a packet, 3 where the image is malformed. docs/verify.md says what exit code 0 means.
    """
    from coco_kp.cli.interrupt import interruptible
    from coco_kp.cli.progress import ProgressBars
    from coco_kp.image.verify import VerificationRules, verify_image

    rules = VerificationRules(
        allowed_layers=allowed,
        allow_sample=allow_sample,
        allow_ctr=allow_ctr,
        expected_keys=tuple(map(_expected_key, expected)),
        target=target,
        allow_attestations=allow_attestations,
    )
    with ProgressBars(wanted=not no_progress) as progress, interruptible():
        report = verify_image(
            image,
            opening.openers(kbc),
            rules=rules,
            base=skip_base,
            jobs=jobs,
            access=access.access(),
            progress=progress,
        )
    if form == "json":
        print_json(report.to_json(advice))
    elif not quiet():
        _print(report)
    if report.failure:
        raise report.failure


def _expected_key(text: str) -> ResourceUri | AwsKmsReference:
    """Read a key ID, or the key of a KMS packet as --wrap-with names it."""
    from coco_kp.cli.image_options import parse_kms_key
    from coco_kp.model.resource_uri import parse_key_id

    return parse_kms_key(text) if text.startswith("awskms:") else parse_key_id(text)


def _print(report: VerificationReport) -> None:
    from coco_kp.cli.table import print_table

    rows = [
        (
            verdict.image,
            str(verdict.number),
            "FAIL" if verdict.findings else verdict.verdict,
            "encrypted" if verdict.encrypted else "readable",
            ", ".join(map(_recipient, verdict.recipients)),
            ", ".join(verdict.checked),
            "; ".join((*(finding.message for finding in verdict.findings), *verdict.remarks)),
        )
        for verdict in report.layers
    ]
    print_table(("IMAGE", "LAYER", "VERDICT", "STATE", "RECIPIENTS", "CHECKED", "FINDINGS"), rows)
    for finding in report.findings:
        say(f"finding: {finding.message}")
    scope = "" if report.with_key else ", checked without a key: no packet was opened"
    verdict = "FAILED" if report.failure else "verified"
    say(f"{report.reference} {report.digest}: {verdict}{scope}")


def _recipient(recipient: RecipientVerdict) -> str:
    return f"{recipient.packet.name}{' (opened)' if recipient.opened else ''}"
