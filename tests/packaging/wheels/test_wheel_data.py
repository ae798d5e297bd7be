"""Man pages made from click's help."""

from __future__ import annotations

import click
import pytest
from tools.command_tree import all_contexts, summary
from tools.wheel_data import bold_flags, escaped, man_page, page_name

from coco_kp.cli.commands import root

PAGES = {page_name(context): man_page(context) for context in all_contexts()}


def test_man_page_exists_for_each_command_and_is_named_by_its_group() -> None:
    for name in root.list_commands(click.Context(root)):
        page = f"coco-kp-{name}"
        assert PAGES[page].startswith(f".TH {page.upper()} 1 ")
        assert f"\\fB{escaped(page)}\\fR(1)" in PAGES["coco-kp"]
    assert "\\fBcoco\\-kp\\-keys\\-list\\fR(1)" in PAGES["coco-kp-keys"]


def test_man_page_lists_every_option_with_its_help() -> None:
    for context in all_contexts():
        for option in context.command.get_params(context):
            if isinstance(option, click.Option) and (record := option.get_help_record(context)):
                flags, text = record
                lines = f".TP\n{bold_flags(escaped(flags))}\n{escaped(text)}\n"
                assert lines in PAGES[page_name(context)]


def test_man_page_lists_both_help_options() -> None:
    assert "\n\\fB\\-h\\fR, \\fB\\-\\-help\\fR\n" in PAGES["coco-kp-keys-list"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("--all", "\\-\\-all"),
        (".so /etc/passwd", "\\&.so /etc/passwd"),
        ("'quoted'", "\\&'quoted'"),
        ("a\\b", "a\\eb"),
    ],
)
def test_escaped_text_has_nothing_that_roff_interprets(text: str, expected: str) -> None:
    assert escaped(text) == expected


def test_bold_flags_leaves_values_plain() -> None:
    assert bold_flags(escaped("-o, --output FILE")) == "\\fB\\-o\\fR, \\fB\\-\\-output\\fR FILE"


def test_summary_is_one_line_however_the_help_is_wrapped() -> None:
    words = "word " * 30
    command = click.Command("x", help=f"{words}\nend.\n\nMore.")
    assert summary(command) == f"{words}end"
