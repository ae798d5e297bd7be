"""``coco-kp fleet report``: what results say, for the person who answers for the registry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coco_kp.cli.options import FILE
from coco_kp.cli.output import notice, print_json
from coco_kp.cli.output_options import ask_json, verbosity

if TYPE_CHECKING:
    from coco_kp.fleet.report import Report


@click.command("report", short_help="Say of results what is readable, for whom, and what failed.")
@click.argument("results", metavar="RESULTS…", type=FILE, nargs=-1, required=True)
@click.option(
    "-o", "--output", type=FILE, metavar="FILE", help="Write FILE, for you alone, not stdout."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "html"]),
    is_eager=True,
    callback=ask_json,
    help="Form of the report; by default a table, and html with -o.",
)
@verbosity
def report(results: tuple[Path, ...], output: Path | None, form: str | None) -> None:
    """Report on what `coco-kp fleet run` wrote: the latest result of each image counts.

    The report says for whom images are encrypted, what can be read and why, since when key IDs are
    known (also from this user's own record of registrations), what was found and what failed. As
    html it is one page that loads nothing.

    For example: coco-kp fleet report results.jsonl -o report.html
    """
    from datetime import UTC, datetime

    from coco_kp.files import write_file
    from coco_kp.fleet.lines import TIME
    from coco_kp.fleet.report import read_report
    from coco_kp.kbs.record import Record, default_folder
    from coco_kp.redact import printable_json

    registered = {
        kid: {kbs: time.strftime(TIME) for kbs, time in times.items()}
        for kid, times in Record(default_folder()).times().items()
    }
    found = read_report(results, datetime.now(UTC).strftime(TIME), registered)
    form = form or ("html" if output else "table")
    if form == "json" and output is None:
        print_json(found.document())
        return
    if form == "html":
        from coco_kp.fleet.page import page

        text = page(found.document())
    elif form == "json":
        text = printable_json(found.document(), indent=2) + "\n"
    else:
        text = "".join(f"{line}\n" for line in _table(found))
    if output is None:
        click.echo(text, nl=False)
    else:
        write_file(output, text.encode(), replace=True)
        notice(f"wrote {output}")


def _table(report: Report) -> Iterator[str]:
    from coco_kp.cli.table import size_text, table_lines
    from coco_kp.fleet.report import repeat

    images = report.images
    yield f"{len(images)} images as of {report.made}, from {report.results} results"
    standings = Counter(image.standing for image in images)
    yield ", ".join(f"{count} {what}" for what, count in sorted(standings.items()))
    yield (
        f"read {size_text(report.bytes_read)}, wrote {size_text(report.bytes_written)}, "
        f"worked {report.seconds:.0f} s"
    )
    if report.keys:
        documents = [key.document(report.made) for key in report.keys]
        yield ""
        yield from table_lines(
            ["KEY ID", "IMAGES", "KNOWN FOR"],
            [
                [str(key["kid"]), str(key["images"]), f"{key['known_for_days']} days"]
                for key in documents
            ],
        )
    wrong = [image for image in images if image.standing != "encrypted" or image.latest.error]
    if wrong:
        yield ""
        yield from table_lines(
            ["IMAGE", "READABLE?", "OUTCOME", "WHY"],
            [[image.name, image.standing, image.latest.outcome, image.why()] for image in wrong],
        )
    if again := [image.latest.line for image in wrong if image.may_be_repeated]:
        yield ""
        yield "To repeat what failed:"
        yield from map(repeat, again)
