"""The whole sweep: ``python -m tests.faults [SCENARIO…]``."""

from __future__ import annotations

from collections import Counter, defaultdict

import click

from coco_kp.processors import processors
from tests.faults.injector import check_available
from tests.faults.scenarios import SCENARIOS
from tests.faults.sweep import Outcome, enumerate_faults, outcomes, pool, sample


@click.command()
@click.argument("names", nargs=-1, metavar="[SCENARIO]...")
@click.option("--call", "calls", multiple=True, help="Let only this call fail (write tmp/*).")
@click.option("--error", "errors", multiple=True, help="Let it fail only with this error.")
@click.option("--sample", "count", type=int, help="Try only so many faults, always the same.")
@click.option("--processes", type=int, default=processors(), show_default=True)
@click.option("--verbose", "-v", is_flag=True, help="Show all that is wrong, not one of a kind.")
@click.pass_context
def main(
    context: click.Context,
    names: tuple[str, ...],
    calls: tuple[str, ...],
    errors: tuple[str, ...],
    count: int | None,
    processes: int,
    *,
    verbose: bool,
) -> None:
    """Let system calls fail, one in each run, in the scenarios whose names begin so; or in all.

    Exit 0 only if every run was right.
    """
    check_available()
    chosen = [
        index
        for index, scenario in enumerate(SCENARIOS)
        if not names or scenario.name.startswith(names)
    ]
    rows: dict[int, Counter[str]] = defaultdict(Counter)
    wrong: dict[str, list[Outcome]] = defaultdict(list)
    with pool(processes) as executor:
        found = [
            fault
            for fault in enumerate_faults(executor, chosen)
            if (not calls or fault.call in calls) and (not errors or fault.error in errors)
        ]
        if count is not None:
            found = sample(found, count)
        click.echo(f"{len(found)} faults", err=True)
        for done, outcome in enumerate(outcomes(executor, found), 1):
            if done % 500 == 0:
                click.echo(f"{done} tried", err=True)
            rows[outcome.fault.scenario].update(_columns(outcome))
            for text in outcome.wrong:
                wrong[text].append(outcome)
    _print_table(rows)
    for text, those in sorted(wrong.items(), key=lambda item: -len(item[1])):
        click.echo(f"\n{len(those)} x {text}")
        for outcome in those if verbose else those[:3]:
            click.echo(f"  {outcome.fault}")
            click.echo(f"    exit {outcome.run.code}: {outcome.run.err.strip()}")
    context.exit(1 if wrong else 0)


def _columns(outcome: Outcome) -> list[str]:
    if not outcome.call:
        return ["runs", "not reached"]
    kind = "wrong" if outcome.wrong else "fine" if outcome.ok else "clean error"
    return ["runs", kind, *(["left for next"] if outcome.left else [])]


def _print_table(rows: dict[int, Counter[str]]) -> None:
    columns = ("runs", "clean error", "fine", "wrong", "not reached", "left for next")
    width = max(len(SCENARIOS[index].name) for index in rows)
    click.echo(" " * width + "".join(f"{column:>15}" for column in columns))
    for name, counts in (
        *((SCENARIOS[index].name, rows[index]) for index in sorted(rows)),
        ("all", sum(rows.values(), Counter())),
    ):
        click.echo(f"{name:{width}}" + "".join(f"{counts[column]:15}" for column in columns))


if __name__ == "__main__":
    main()
