"""A hook of MkDocs: public names in docstrings link to where the reference has them.

Docstrings write them as ``encrypt_image``, which `help` shows as it stands.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.structure.pages import Page

_PAGES = Path(__file__).parents[1] / "docs" / "api"
_NAMES = {
    name
    for page in _PAGES.glob("*.md")
    for name in re.findall(r"^::: coco_kp\.(\w+)$", page.read_text("utf-8"), re.MULTILINE)
}


def on_page_content(html: str, *, page: Page, **_others: object) -> str:
    """Return a page of the reference with its names linked, by the markers of mkdocs-autorefs."""
    if not page.file.src_uri.startswith("api/"):
        return html
    return re.sub(r"<code>(\w+)</code>", _linked, html)


def _linked(code: re.Match[str]) -> str:
    if code[1] not in _NAMES:
        return code[0]
    return f'<autoref identifier="coco_kp.{code[1]}">{code[0]}</autoref>'
