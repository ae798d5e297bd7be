"""``coco-kp keyprovider``: ocicrypt's ``cmd`` mode."""

from __future__ import annotations

import logging
import sys
from functools import partial

import click

from coco_kp.cli.options import KbcOptions, RegistrationOptions, with_options
from coco_kp.cli.output import log_level, verbosity
from coco_kp.cli.provider_options import ProviderOptions


@click.command("keyprovider", short_help="Answer one key-provider call on stdin and stdout.")
@with_options(callers=ProviderOptions, registration=RegistrationOptions, kbc=KbcOptions)
@verbosity
def command(callers: ProviderOptions, registration: RegistrationOptions, kbc: KbcOptions) -> None:
    """Answer one key-provider request on stdin, on stdout: no server needed.

    ocicrypt runs it where its configuration says "cmd"; `coco-kp config --cmd` writes that.
    """
    from coco_kp.keyprovider.stdio import answer_stdio
    from coco_kp.observe import configure
    from coco_kp.service.calls import answer

    # The client puts stderr into its own error: only warnings go there unasked.
    configure("text", log_level(logging.WARNING))
    provider = callers.provider(registration, kbc)
    answer_stdio(partial(answer, provider), sys.stdin.buffer, sys.stdout.buffer)
