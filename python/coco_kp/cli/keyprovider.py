"""``coco-kp keyprovider``: ocicrypt's ``cmd`` mode."""

from __future__ import annotations

from typing import Final

import click

from coco_kp.cli.headings import KBC, KBS, PROVIDER_KEYS, HeadedCommand
from coco_kp.cli.one_call import answer_one
from coco_kp.cli.options import KbcOptions, RegistrationOptions, with_options
from coco_kp.cli.output_options import verbosity
from coco_kp.cli.provider_options import ProviderOptions

_HEADINGS: Final = {
    "Most used": ("--key-dir", "--kbs", "--keys", "--kbc", "--name", "--help"),
    "Which keys": PROVIDER_KEYS,
    "The KBS": KBS,
    "The KBC": KBC,
    "Output": ("--quiet", "--verbose"),
}


@click.command(
    "keyprovider",
    short_help="Answer one key-provider call on stdin and stdout.",
    cls=HeadedCommand,
    headings=_HEADINGS,
)
@with_options(callers=ProviderOptions, registration=RegistrationOptions, kbc=KbcOptions)
@verbosity
def command(callers: ProviderOptions, registration: RegistrationOptions, kbc: KbcOptions) -> None:
    """Answer one key-provider request on stdin, on stdout: no server needed.

    ocicrypt runs it where its configuration says "cmd"; `coco-kp config --cmd` writes that.
    """
    answer_one(callers.provider(registration, kbc))
