"""Man pages made from click's help."""

from __future__ import annotations

import click
import pytest
from tools.wheel_data import all_contexts, bold_flags, escaped, man_page, page_name, summary

from coco_kp.cli.main import _cli

PAGES = {page_name(context): man_page(context) for context in all_contexts()}


def test_each_command_has_a_page_which_its_group_names() -> None:
    for name in _cli.list_commands(click.Context(_cli)):
        page = f"coco-kp-{name}"
        assert PAGES[page].startswith(f".TH {page.upper()} 1 ")
        assert f"\\fB{escaped(page)}\\fR(1)" in PAGES["coco-kp"]
    assert "\\fBcoco\\-kp\\-keys\\-list\\fR(1)" in PAGES["coco-kp-keys"]


def test_a_page_has_every_option_and_its_help() -> None:
    for context in all_contexts():
        for option in context.command.get_params(context):
            if isinstance(option, click.Option) and (record := option.get_help_record(context)):
                flags, text = record
                lines = f".TP\n{bold_flags(escaped(flags))}\n{escaped(text)}\n"
                assert lines in PAGES[page_name(context)]


def test_a_page_has_both_names_of_help() -> None:
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
def test_roff_finds_nothing_to_interpret_in(text: str, expected: str) -> None:
    assert escaped(text) == expected


def test_flags_are_bold_and_their_values_are_not() -> None:
    assert bold_flags(escaped("-o, --output FILE")) == "\\fB\\-o\\fR, \\fB\\-\\-output\\fR FILE"


def test_a_summary_is_one_whole_line_however_the_help_is_wrapped() -> None:
    words = "word " * 30
    command = click.Command("x", help=f"{words}\nend.\n\nMore.")
    assert summary(command) == f"{words}end"
