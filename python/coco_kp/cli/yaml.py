"""YAML of plain values, for people who go on editing it; nothing here reads any."""

from __future__ import annotations

import json
from collections.abc import Iterator


def yaml_lines(value: object, indent: str = "") -> Iterator[str]:
    """Write a dictionary or a list in blocks, a line each; texts of several lines as they are.

    Texts must be printable but for line feeds, and no line of one may begin with a blank.
    """
    entries = value.items() if isinstance(value, dict) else [(None, one) for one in _list(value)]
    for name, inner in entries:
        start = f"{indent}- " if name is None else f"{indent}{name}:"
        if isinstance(inner, dict | list) and inner:
            deeper = list(yaml_lines(inner, f"{indent}  "))
            if name is None:  # the first member stands beside the dash
                yield start + deeper.pop(0).lstrip()
            else:
                yield start
            yield from deeper
        elif isinstance(inner, str) and "\n" in inner:
            sign = "|" if inner.endswith("\n") else "|-"
            yield f"{start} {sign}" if name else start + sign
            yield from (f"{indent}  {line}" for line in inner.removesuffix("\n").split("\n"))
        else:
            yield f"{start} {json.dumps(inner)}" if name else start + json.dumps(inner)


def _list(value: object) -> list[object]:
    assert isinstance(value, list)  # noqa: S101 (the caller's own values)
    return value
