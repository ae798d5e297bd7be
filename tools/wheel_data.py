"""What a wheel installs beside the package: man pages and shell completions.

``python -m tools.wheel_data SHARE`` writes them below the folder SHARE, where ``man`` and the
shells look for them. Both are made from the commands themselves, anew for each wheel; no copy
is kept that could go stale. (click-man 0.6 finds no commands that are imported when they are asked
for, cuts the NAME line at 45 characters and escapes neither backslashes nor leading dots.)
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from inspect import cleandoc
from pathlib import Path

import click
from tools.command_tree import PROGRAM, all_contexts, options, subcommands, summary, usage

COMPLETIONS = {
    "bash": "bash-completion/completions/coco-kp",
    "zsh": "zsh/site-functions/_coco-kp",
    "fish": "fish/vendor_completions.d/coco-kp.fish",
}


def main() -> None:
    """Write all files below the folder that the command line names."""
    share = Path(sys.argv[1])
    for context in all_contexts():
        write(share / "man/man1" / f"{page_name(context)}.1", man_page(context))
    for shell, name in COMPLETIONS.items():
        write(share / name, completion(shell))


def man_page(context: click.Context) -> str:
    """Return the page of a command in the macros of man(7)."""
    command = context.command
    name = page_name(context)
    lines = [
        f'.TH {name.upper()} 1 "" "{PROGRAM} {version(PROGRAM)}" "{PROGRAM}"',
        ".SH NAME",
        f"{escaped(name)} \\- {escaped(summary(command))}",
        ".SH SYNOPSIS",
        f"\\fB{escaped(context.command_path)}\\fR",
        escaped(usage(context)),
        ".SH DESCRIPTION",
        *paragraphs(cleandoc(command.help or "")),
    ]
    if commands := subcommands(context):
        lines.append(".SH COMMANDS")
        for child, described in commands:
            lines += [".TP", reference(f"{name}-{child}"), escaped(summary(described))]
    lines.append(".SH OPTIONS")
    for _, (flags, text) in options(context):
        lines += [".TP", bold_flags(escaped(flags)), escaped(text)]
    if context.parent:
        lines += [".SH SEE ALSO", reference(page_name(context.parent))]
    return "\n".join(lines) + "\n"


def page_name(context: click.Context) -> str:
    """Return the name of a command's page, such as ``coco-kp-keys-list``."""
    return context.command_path.replace(" ", "-")


def paragraphs(text: str) -> Iterator[str]:
    """Yield the lines of a help text, with a macro before each further paragraph."""
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text)):
        if number:
            yield ".PP"
        yield escaped(" ".join(paragraph.split()))


def reference(name: str) -> str:
    """Return a line that names another page."""
    return f"\\fB{escaped(name)}\\fR(1)"


def bold_flags(escaped_text: str) -> str:
    """Return an option's line with its flags in bold, and its values not."""
    return re.sub(r"(?<!\S)(\\-[\w\\-]+)", r"\\fB\1\\fR", escaped_text)


def escaped(text: str) -> str:
    """Return a line in which roff finds nothing to interpret, and a hyphen stays the option's."""
    line = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{line}" if line.startswith((".", "'")) else line


def completion(shell: str) -> str:
    """Return what ``coco-kp completion SHELL`` prints."""
    command = [sys.executable, "-m", "coco_kp", "completion", shell]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def write(path: Path, text: str) -> None:
    """Write a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
