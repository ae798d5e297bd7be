"""``coco-kp completion``: completion of commands and options for a shell."""

from __future__ import annotations

import click

from coco_kp.cli.output_options import verbosity

_VARIABLE = "_COCO_KP_COMPLETE"  # by which the script asks coco-kp what fits, as click has it


@click.command("completion", short_help="Print a shell's completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@verbosity
def command(shell: str) -> None:
    """Print the script that lets SHELL complete coco-kp's commands and options.

    For bash: source <(coco-kp completion bash); zsh alike; for fish: coco-kp completion fish |
    source.
    """
    from click.shell_completion import get_completion_class

    root = click.get_current_context().find_root()
    completion = get_completion_class(shell)
    assert completion is not None  # noqa: S101 (the choices are click's own)
    click.echo(completion(root.command, {}, "coco-kp", _VARIABLE).source())
