"""The rule for asking again, as a value."""

from __future__ import annotations

import logging

import pytest

from coco_kp.http.retry import LONGEST_PAUSE, NEVER, Retry, retry_after


def test_retry_allows_so_many_repeats() -> None:
    retry = Retry(2)
    assert not retry.over
    assert not retry.after().after().over
    assert retry.after().after().after().over
    assert not retry.over, "the value changed"
    assert NEVER.after().over


def test_retry_pauses_double_with_jitter_up_to_half_a_minute() -> None:
    retry, pauses = Retry(20), []
    for _ in range(20):
        retry = retry.after()
        pauses.append(retry.pause)
    for pause, least in zip(pauses, (0.5, 1, 2, 4, 8, 16), strict=False):
        assert least <= pause <= min(2 * least, 30)
    assert pauses[6:] == [30] * 14
    assert len({Retry(1).after().pause for _ in range(50)}) > 1, "all come back together"


def test_retry_waits_as_long_as_asked_but_not_for_ever() -> None:
    assert Retry(1).after(7.0).pause == 7
    assert Retry(1).after(0.0).pause == 0
    assert not Retry(1).after(LONGEST_PAUSE).over
    assert Retry(1).after(LONGEST_PAUSE + 1).over


def test_retry_says_why_it_waits(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    pauses: list[float] = []
    Retry(4).after(3.0).wait("the link broke", pauses.append)
    assert pauses == [3]
    assert "the link broke; try 2 of 5 in 3.0 s" in caplog.text


@pytest.mark.parametrize("value", ["", "soon", "-1", "1.5", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_retry_after_takes_what_is_no_pause_for_none(value: str) -> None:
    assert retry_after({"Retry-After": value} if value else {}) is None
