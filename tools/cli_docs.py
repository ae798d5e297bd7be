"""The last part of docs/cli.md: each command with its usage, and each of its options.

``python -m tools.cli_docs`` writes it anew from the commands themselves; a test holds the file to
it (tests/docs/test_cli_contract.py). What stands above the marker is written by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
from tools.command_tree import all_contexts, options, summary, usage

from coco_kp.cli.headings import HeadedCommand

DOCUMENT = Path(__file__).parents[1] / "docs" / "cli.md"
MARKER = "<!-- From here on `python -m tools.cli_docs` writes this page. -->\n"


def main() -> None:
    """Write the part below the marker."""
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(with_reference(text), encoding="utf-8")


def with_reference(text: str) -> str:
    """Return the document with the part below its marker made anew."""
    above, marker, _ = text.partition(MARKER)
    return above + marker + reference()


def reference() -> str:
    """Return the part below the marker."""
    lines = ["## Every option", "", "As `coco-kp COMMAND --help` shows them, too."]
    for context in all_contexts():
        lines += ["", *section(context)]
    return "\n".join(lines) + "\n"


def section(context: click.Context) -> Iterator[str]:
    """Yield the lines about one command or group."""
    yield f"### `{context.command_path}`"
    yield ""
    yield f"{escaped(summary(context.command))}."
    yield ""
    yield f"`{context.command_path} {usage(context)}`"
    for heading, entries in under_headings(context).items():
        yield ""
        if heading:
            yield f"{heading}:"
            yield ""
        for flags, text in entries:
            yield f"- `{flags}`: {escaped(text)}"


def under_headings(context: click.Context) -> dict[str, list[tuple[str, str]]]:
    """Return flags and help of each option, under the headings of the help or under none."""
    found = list(options(context))
    if not isinstance(context.command, HeadedCommand):
        return {"": [record for _, record in found]}
    records = {name: record for option, record in found for name in option.opts}
    headings = context.command.headings
    return {heading: [records[name] for name in names] for heading, names in headings.items()}


def escaped(text: str) -> str:
    """Return a line of single blanks in which Markdown finds no emphasis and no element."""
    return " ".join(text.split()).replace("*", r"\*").replace("<", r"\<")


if __name__ == "__main__":
    main()
