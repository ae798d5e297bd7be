"""Words that callers choose from: a ``Literal`` says which, and this holds them to it."""

from __future__ import annotations

from typing import get_args


def check_word(what: str, word: object, words: object) -> None:
    """Raise ``ValueError`` unless ``word`` is one of ``words``, a ``Literal``; ``what`` names it.

    Without this a word that is misspelt would be taken for the default.
    """
    if word not in get_args(words):
        accepted = ", ".join(map(repr, get_args(words)))
        raise ValueError(f"{what}={word!r} is not one of {accepted}")
