"""What parsers refuse, as tables; one runner for them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from coco_kp.errors import CocoKpError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


def refusals(
    parse: Callable[[Any], object],
    rows: Mapping[str, Iterable[Any]],
    *,
    raises: type[CocoKpError] = InputError,
    hint: str = "",
    hint_has: str = "",
    exact: bool = False,
    secret: str = "",
) -> Callable[[Any, str], None]:
    """Make a test of rows: an input that ``parse`` refuses, and words of the message.

    Args:
        parse: takes one input; ``lambda row: …`` where there is more to give.
        rows: inputs by words that the message has; with ``exact`` they are the whole message.
        raises: the class of the errors, and no other below it.
        hint: the whole hint of each.
        hint_has: words of each hint.
        secret: what no error shows.
    """
    table = [(given, words) for words, inputs in rows.items() for given in inputs]

    @pytest.mark.parametrize(("given", "words"), table)
    def refused(given: Any, words: str) -> None:
        with pytest.raises(raises) as caught:
            parse(given)
        error = caught.value
        assert type(error) is raises, type(error)
        assert error.message == words if exact else words in error.message, error.message
        assert not hint or error.hint == hint, error.hint
        assert hint_has in error.hint, error.hint
        assert not secret or secret not in str(error), "the error shows the secret"
        assert str(error).isprintable(), str(error)

    test: Callable[[Any, str], None] = refused
    return test
