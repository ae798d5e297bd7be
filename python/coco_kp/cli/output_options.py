"""Options that say how much is printed, and in which form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import click

from coco_kp.cli.output import want_json, want_less, want_more

F = TypeVar("F", bound=Callable[..., object])


def ask_json(ctx: click.Context, option: click.Parameter, form: str) -> str:  # noqa: ARG001
    """Learn the form that the user wants, a callback of ``--format``."""
    want_json(wanted=form == "json")
    return form


FORMAT: Final = click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    is_eager=True,  # what is wrong with other options is reported in this form
    callback=ask_json,
    help="Form of the result on stdout.",
)


def verbosity(function: F) -> F:
    """Add the options ``-q`` and ``-v`` to a command."""
    function = click.option(
        "-v",
        "--verbose",
        count=True,
        expose_value=False,
        callback=_louder,
        help="Say more; -vv shows tracebacks.",
    )(function)
    return click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=_quieter,
        help="Say nothing but errors.",
    )(function)


def _louder(_ctx: click.Context, _option: click.Parameter, count: int) -> None:
    if count:
        want_more(count)


def _quieter(_ctx: click.Context, _option: click.Parameter, quiet: bool) -> None:
    if quiet:
        want_less()
