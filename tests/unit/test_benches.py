"""What the benchmarks measure with."""

from __future__ import annotations

import sys

import pytest
from benches.layers import random_image
from benches.machine import MIB
from benches.peers import LAYOUTS, OURS, SKOPEO, Row, Target
from benches.series import Series


def test_memory_of_a_measured_command_is_its_own_not_its_parents() -> None:
    held, series = bytearray(200 * MIB), Series()
    held[:: 1 << 12] = bytes([1]) * len(held[:: 1 << 12])
    series.run([sys.executable, "-I", "-S", "-c", "pass"])
    assert 0 < series.memory < 100 * MIB


def test_processor_time_of_a_measured_command_is_its_own() -> None:
    idle, busy = Series(), Series()
    idle.run([sys.executable, "-c", "import time; time.sleep(0.3)"])
    busy.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.5: pass"])
    assert idle.seconds[0] > 0.3
    assert idle.processor[0] < 0.4 < busy.processor[0]


def test_measured_command_that_fails_ends_the_benchmark() -> None:
    with pytest.raises(AssertionError):
        Series().run([sys.executable, "-c", "raise SystemExit(3)"])


@pytest.mark.parametrize(
    ("target", "report"),
    [
        (Target("x skopeo", 2.0), "2.50 x skopeo (≥ 2 met)"),
        (Target("x skopeo", 3.0), "2.50 x skopeo (≥ 3 MISSED)"),
        (Target("of openssl", 0.5, at_most=True), "0.50 of openssl (≤ 0.5 met)"),
    ],
)
def test_target_says_what_was_reached_and_whether_that_is_enough(
    target: Target, report: str
) -> None:
    row = Row("decrypt", random_image(1, 1), LAYOUTS, Series([1.0, 9.0, 1.0]))
    row.tools.update({OURS: Series([2.0, 2.0, 30.0]), SKOPEO: Series([5.0, 1.0, 50.0])})
    assert target.report(row) == report
