"""Reads the blocks of a Markdown file that its reader is told to run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]


def blocks(document: str, language: str) -> list[str]:
    """Return the fenced blocks of this language, in order; ``document`` starts at the root."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert found, f"{document} has no {language} block"
    return found
