from __future__ import annotations

import threading

import pytest

from coco_kp.errors import KekError, UnreachableError
from coco_kp.keys.stores.deadline import in_time


def test_call_in_time_returns_its_result_or_raises_its_error() -> None:
    assert in_time(lambda: 5, "it") == 5

    def fails() -> None:
        raise KekError("no")

    with pytest.raises(KekError, match="no"):
        in_time(fails, "it")


def test_timeout_of_call_itself_passes() -> None:
    def fails() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        in_time(fails, "it")


@pytest.mark.usefixtures("impatient")
def test_call_that_hangs_is_given_up() -> None:
    over = threading.Event()
    with pytest.raises(UnreachableError) as error:
        in_time(over.wait, "the HSM did not answer")
    over.set()
    assert error.value.message == "the HSM did not answer: no answer in time"
