"""Bar charts as SVG, written by hand: no library, and a text that can be read in a diff."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, LABELS, BAR, GAP = 900, 300, 14, 12
COLOURS = ("#2a6f97", "#c9ada7")


def bar_chart(title: str, legend: tuple[str, str], rows: Sequence[tuple[str, float, float]]) -> str:
    """Draw two bars for each row, a label before them and the number behind."""
    top = 70
    height = top + len(rows) * (2 * BAR + GAP) + 10
    most = max(value for _, *values in rows for value in values)
    scale = (WIDTH - LABELS - 80) / most
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}">',
        "<style>text { font: 12px sans-serif }</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="10" y="22" font-weight="bold">{escape(title)}</text>',
    ]
    for number, name in enumerate(legend):
        x = LABELS + number * 120
        parts += [
            f'<rect x="{x}" y="36" width="12" height="12" fill="{COLOURS[number]}"/>',
            f'<text x="{x + 18}" y="46">{escape(name)}</text>',
        ]
    for index, (label, *values) in enumerate(rows):
        y = top + index * (2 * BAR + GAP)
        parts.append(
            f'<text x="{LABELS - 10}" y="{y + BAR + 4}" text-anchor="end">{escape(label)}</text>'
        )
        for number, value in enumerate(values):
            at, length = y + number * BAR, max(1, round(value * scale))
            size = f'width="{length}" height="{BAR - 2}"'
            parts += [
                f'<rect x="{LABELS}" y="{at}" {size} fill="{COLOURS[number]}"/>',
                f'<text x="{LABELS + length + 6}" y="{at + BAR - 4}">{value:.2f}</text>',
            ]
    return "\n".join([*parts, "</svg>", ""])
