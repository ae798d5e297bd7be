"""Each case, once; those that coco-kp does not pass yet are strict expected failures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.cases.case import DATA, names
from tests.cases.differs import CaseDiffersError
from tests.cases.expected_failures import TABLE, read_expected_failures
from tests.cases.runner import run_case
from tests.support.provider import COCO_KP

CASES: Final = names()
EXPECTED_FAILURES: Final = read_expected_failures(TABLE.read_text("utf-8"))


def _marks(name: str) -> Iterator[pytest.MarkDecorator]:
    if (topic := EXPECTED_FAILURES.topic(name)) is not None:
        yield pytest.mark.xfail(strict=True, reason=topic, raises=CaseDiffersError)
    if name in EXPECTED_FAILURES.slow:
        yield pytest.mark.full


@pytest.mark.parametrize("name", [pytest.param(n, marks=[*_marks(n)], id=n) for n in CASES])
def test_case(name: str, tmp_path: Path) -> None:
    run_case(DATA / name, tmp_path, COCO_KP).check()


def test_expected_failures_are_cases_that_are_listed_once() -> None:
    assert EXPECTED_FAILURES.faults(CASES) == []


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ('verdict = ["a", "gone"]', "gone: no such case"),
        ('verdict = ["a", "b"]\ninputs = ["b"]', "b: listed twice"),
        ('verdict = ["a"]\n[slow]\nb = "takes a minute"', "b: slow, but must hold"),
    ],
)
def test_expected_failures_with_a_stale_name_are_faulty(table: str, fault: str) -> None:
    assert read_expected_failures(table).faults(["a", "b"]) == [fault]
