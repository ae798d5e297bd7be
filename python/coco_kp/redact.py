"""Words of others on their way to an output: they draw nothing on a terminal, and hold no key.

What an image, a registry or a KBS says, and what a user put in the wrong place, passes through here
before it is printed, logged or sent: errors and findings when they are made, results and notices in
``cli.output``, log lines in ``observe``.
"""

from __future__ import annotations

import json
import re
from typing import Final

# As text, which re compiles when a command first meets a word of others.
_KEY: Final = (
    r"[A-Za-z0-9+/_-]{43}="
    # Without padding: exactly so many, perhaps between slashes, and of each kind, as few paths are.
    r"|(?<![A-Za-z0-9+_-])(?=[a-z0-9+/_-]{0,42}[A-Z])(?=[A-Z0-9+/_-]{0,42}[a-z])"
    r"(?=[A-Za-z+/_-]{0,42}[0-9])[A-Za-z0-9+/_-]{43}(?![A-Za-z0-9+_-])"
    r"|(?<![0-9A-Fa-f])(?<!sha256[:/])[0-9A-Fa-f]{64}(?![0-9A-Fa-f])"  # digests are no secret
)
# An option's dashes, or words on both sides, may hide where a key begins: long runs go as a whole.
_MAY_HOLD_A_KEY: Final = rf"{_KEY}|[A-Za-z0-9+/=_-]{{43,}}"
_MASK: Final = "(what looks like a key)"


def printable(text: str) -> str:
    """Replace every character that is not seen as itself with a question mark.

    That is control characters of both sets (a line feed and a tab, too), marks that change the
    direction of text, line and paragraph separators, and halves of surrogate pairs.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def printable_lines(text: str) -> str:
    """Do the same line by line; line feeds stay."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(document: object, indent: int | None = None) -> str:
    """Write a document as JSON in which such characters are escapes, so that nothing is lost."""
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    # Between strings stand only ASCII characters and the line feeds of ``indent``.
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def looks_like_a_key(text: str) -> bool:
    """Return whether a text holds what could be a key: 32 bytes as base64 or hex."""
    return re.search(_KEY, text) is not None


def redacted(text: str) -> str:
    """Return a line of text made printable, and without what looks like a key."""
    return re.sub(_KEY, _MASK, printable(text))


def masked(text: str) -> str:
    """Replace all that could hold a key in a text that quotes the command line as it stands."""
    return re.sub(_MAY_HOLD_A_KEY, _MASK, text)


def shown(value: str, within: str = "") -> str:
    """Quote a value that somebody else wrote, for a message: printable, short, and never a key.

    A text that holds what could be a key (32 bytes as base64 or hex), put where a path or a name
    belongs, is described instead of quoted; so is a part that was cut from such a text, ``within``.
    """
    searched = within[:_LONGEST_SEARCHED] or value[: _SHOWN_CHARACTERS + _LONGEST_KEY]
    if looks_like_a_key(searched):
        return f"({len(value)} characters that look like a key)"
    text = printable(value[:_SHOWN_CHARACTERS])
    return f"'{text}'" if len(value) <= _SHOWN_CHARACTERS else f"'{text}…'"


_SHOWN_CHARACTERS = 120
_LONGEST_KEY = 64
_LONGEST_SEARCHED = 4096
