"""Run cases by hand: ``python -m tests.cases [NAME…]``."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import click

from tests.cases.case import DATA, names
from tests.cases.commands import Result
from tests.cases.differs import CaseDiffersError
from tests.cases.runner import run_case
from tests.support.provider import COCO_KP


@click.command()
@click.argument("chosen", metavar="[NAME]...", nargs=-1, type=click.Choice(names()))
@click.option("--verbose", "-v", is_flag=True, help="Show commands, exit codes and output.")
@click.option("--keep", is_flag=True, help="Keep the temporary folders, and name them.")
@click.pass_context
def main(context: click.Context, chosen: tuple[str, ...], *, verbose: bool, keep: bool) -> None:
    """Print whether each case holds, and if not, what differs; exit 0 only if all hold."""
    chosen = chosen or tuple(names())
    held = sum(_holds(name, verbose=verbose, keep=keep) for name in chosen)
    click.echo(f"{held} of {len(chosen)} ok")
    context.exit(held != len(chosen))


def _holds(name: str, *, verbose: bool, keep: bool) -> bool:
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    try:
        run = run_case(DATA / name, folder, COCO_KP)
        if verbose:
            for result in run.results:
                _show(result)
        run.check()
    except CaseDiffersError as error:
        click.echo(f"differs  {name}: {_escaped(str(error))}")
        return False
    finally:
        if keep:
            click.echo(f"  kept: {folder}")
        else:
            shutil.rmtree(folder)
    click.echo(f"ok       {name}")
    return True


def _show(result: Result) -> None:
    click.echo(f"  $ {_escaped(' '.join(result.argv))}")
    ended = "killed at the time limit" if result.code is None else f"exit {result.code}"
    click.echo(f"    {ended}, {result.cpu:.1f} s of processor time")
    for line in (result.out + result.err).splitlines():
        click.echo(f"    | {_escaped(line)}")


def _escaped(text: str) -> str:
    """Escape what could do anything to a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


if __name__ == "__main__":
    main()
