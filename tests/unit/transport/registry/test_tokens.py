"""Tokens that are kept, and those that are not."""

from __future__ import annotations

import math

from coco_kp.transport.registry.tokens import _MOST_KEPT, Token, Tokens


def test_tokens_forget_the_one_that_was_needed_longest_ago() -> None:
    tokens = Tokens("the token server of h.example")
    fetched: list[int] = []

    def need(number: int) -> None:
        def fetch(_asked: str) -> Token:
            fetched.append(number)
            return Token(f"token{number}", math.inf)

        assert tokens.get((f"repository:{number}:pull",), fetch).value == f"token{number}"

    for number in (*range(_MOST_KEPT), 0, _MOST_KEPT, 0, 1):
        need(number)
    assert fetched == [*range(_MOST_KEPT + 1), 1]
