"""The help of a command with many options, by what they are about."""

from __future__ import annotations

import click
from click.testing import CliRunner

from coco_kp.cli.commands import root
from coco_kp.cli.encrypt import command
from coco_kp.cli.headings import HeadedCommand


def test_each_option_of_encrypt_stands_under_one_heading() -> None:
    assert isinstance(command, HeadedCommand)
    context = click.Context(command, help_option_names=["-h", "--help"])
    options = [p for p in command.get_params(context) if isinstance(p, click.Option)]
    placed = [name for names in command.headings.values() for name in names]
    assert len(placed) == len(set(placed)) == len(options)
    for option in options:
        assert len(set(option.opts) & set(placed)) == 1, option.opts


def test_encrypt_help_shows_ten_common_options_first() -> None:
    text = CliRunner().invoke(root, ["encrypt", "--help"]).output
    first = text[text.index("Most used:") : text.index("For whom:")]
    assert first.count("\n  -") == 10
    headings = ["For whom:", "The KBS:", "Source:", "Destination:", "Output:"]
    assert sorted(headings, key=text.index) == headings
