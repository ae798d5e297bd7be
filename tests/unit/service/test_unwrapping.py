"""Wrapped KEKs, unwrapped once for all who ask at the same time."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from coco_kp.deadline import Caller, within
from coco_kp.errors import KekError, UnreachableError
from coco_kp.keys.stores.interface import CiphertextError
from coco_kp.service.unwrapping import UnknownNameError, Unwrapping
from tests.support.patience import PATIENCE, wait_until
from tests.support.traces import traces

KEK = bytes(range(64, 96))


@dataclass
class SlowKey:
    """A KMS that answers when it is let, and counts its calls."""

    answer: bytes | Exception = field(default=KEK, repr=False)
    go_on: threading.Event = field(default_factory=threading.Event)
    calls: list[tuple[bytes, dict[str, str]]] = field(default_factory=list)
    most_at_once: int = 0
    at_work: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def encrypt(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        raise AssertionError((plaintext, context))

    def decrypt(self, ciphertext: bytes, context: Mapping[str, str]) -> bytes:
        with self.lock:
            self.calls.append((ciphertext, dict(context)))
            self.at_work += 1
            self.most_at_once = max(self.most_at_once, self.at_work)
        try:
            assert self.go_on.wait(PATIENCE)
        finally:
            with self.lock:
                self.at_work -= 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def check(self) -> str:
        return ""

    def close(self) -> None:
        """No-op: it has no connection."""


class FirstTooLate(SlowKey):
    """A KMS that has no answer in time for who asks first; the next one waits until it is let."""

    def decrypt(self, ciphertext: bytes, context: Mapping[str, str]) -> bytes:
        late = not self.calls
        answer = super().decrypt(ciphertext, context)
        if late:
            self.go_on.clear()
            raise UnreachableError("no answer in time")
        return answer


def ready(answer: bytes | Exception = KEK) -> SlowKey:
    key = SlowKey(answer)
    key.go_on.set()
    return key


def waiting(unwrapping: Unwrapping) -> int:
    """Return how many wait for the answer to another's call."""
    answer = unwrapping._at_work.get(("prod", b"c"))
    return len(answer._condition._waiters) if answer else 0  # type: ignore[attr-defined]


def test_unwrapping_binds_ciphertext_to_its_name() -> None:
    key = ready()
    unwrapping = Unwrapping({"prod": key, "team/prod": key})
    assert unwrapping.unwrap("prod", b"c") == KEK
    assert unwrapping.unwrap("team/prod", b"c") == KEK
    assert key.calls == [(b"c", {"coco-kp": "prod"}), (b"c", {"coco-kp": "team/prod"})]


def test_unwrapping_asks_no_key_for_an_unknown_name() -> None:
    key = ready()
    for name in ("", "pro", "prod/", "/prod", "prod/x"):
        with pytest.raises(UnknownNameError):
            Unwrapping({"prod": key}).unwrap(name, b"c")
    assert key.calls == []


def test_unwrapping_asks_once_for_a_burst_of_equal_requests() -> None:
    key = SlowKey()
    unwrapping = Unwrapping({"prod": key})
    with ThreadPoolExecutor(50) as pool:
        answers = [pool.submit(unwrapping.unwrap, "prod", b"c") for _ in range(50)]
        wait_until(lambda: key.calls)
        wait_until(lambda: all(answer.running() for answer in answers))
        key.go_on.set()
        assert {answer.result(PATIENCE) for answer in answers} == {KEK}
    assert len(key.calls) < 50  # who had not asked yet when the answer came asked anew


def test_unwrapping_waits_for_the_answer_that_is_on_its_way() -> None:
    key = SlowKey()
    unwrapping = Unwrapping({"prod": key})
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(unwrapping.unwrap, "prod", b"c")
        wait_until(lambda: key.calls)
        with pytest.raises(UnreachableError, match="still at work"):
            unwrapping.unwrap("prod", b"c", seconds=0.05)
        assert len(key.calls) == 1
        key.go_on.set()
        assert first.result(PATIENCE) == KEK


def test_unwrapping_asks_once_more_where_only_the_first_callers_time_was_over() -> None:
    """Who is first may have no time at all, and would keep the key from all who ask after him."""
    key, hurried = FirstTooLate(), Caller()
    unwrapping = Unwrapping({"prod": key})

    def ask_in_a_hurry() -> bytes:
        with within(PATIENCE, hurried):
            return unwrapping.unwrap("prod", b"c")

    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(ask_in_a_hurry)
        wait_until(lambda: key.calls)
        others = [pool.submit(unwrapping.unwrap, "prod", b"c") for _ in range(5)]
        wait_until(lambda: waiting(unwrapping) == 5)
        hurried.leave()
        key.go_on.set()
        wait_until(lambda: len(key.calls) > 1 and key.at_work + waiting(unwrapping) == 5)
        key.go_on.set()
        with pytest.raises(UnreachableError, match="no answer in time"):
            first.result(PATIENCE)
        assert [other.result(PATIENCE) for other in others] == [KEK] * 5
    assert len(key.calls) == 2


def test_unwrapping_asks_kms_that_is_down_once_for_all_who_wait() -> None:
    """Each that asked by itself would take a turn, and keep callers of other names waiting."""
    key = SlowKey(UnreachableError("gone"))
    unwrapping = Unwrapping({"prod": key})
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(unwrapping.unwrap, "prod", b"c") for _ in range(6)]
        wait_until(lambda: waiting(unwrapping) == 5)
        key.go_on.set()
        for answer in answers:
            with pytest.raises(UnreachableError, match="gone"):
                answer.result(PATIENCE)
    assert len(key.calls) == 1


def test_unwrapping_tells_names_and_ciphertexts_apart() -> None:
    key = SlowKey()
    unwrapping = Unwrapping({"prod": key, "test": key})
    with ThreadPoolExecutor(3) as pool:
        asked = [("prod", b"c"), ("test", b"c"), ("prod", b"d")]
        answers = [pool.submit(unwrapping.unwrap, *one) for one in asked]
        wait_until(lambda: len(key.calls) == 3)
        key.go_on.set()
        assert [answer.result(PATIENCE) for answer in answers] == [KEK] * 3


def test_unwrapping_keeps_no_kek() -> None:
    key = ready()
    unwrapping = Unwrapping({"prod": key})
    for _ in range(3):
        unwrapping.unwrap("prod", b"c")
    assert len(key.calls) == 3
    assert unwrapping._at_work == {}
    assert not [trace for trace in traces(KEK) if trace in repr(unwrapping).encode()]


@pytest.mark.parametrize("error", [KekError("locked"), UnreachableError("gone"), ValueError("x")])
def test_unwrapping_passes_failure_on_and_forgets_it(error: Exception) -> None:
    key = ready(error)
    unwrapping = Unwrapping({"prod": key})
    with pytest.raises(type(error)):
        unwrapping.unwrap("prod", b"c")
    key.answer = KEK
    assert unwrapping.unwrap("prod", b"c") == KEK


@pytest.mark.parametrize("size", [0, 16, 31, 33, 44])
def test_unwrapping_refuses_what_is_no_kek(size: int) -> None:
    with pytest.raises(CiphertextError, match="32-byte key"):
        Unwrapping({"prod": ready(bytes(size))}).unwrap("prod", b"c")


def test_unwrapping_bounds_calls_to_kms() -> None:
    key = SlowKey()
    unwrapping = Unwrapping({"prod": key})
    with ThreadPoolExecutor(40) as pool:
        answers = [pool.submit(unwrapping.unwrap, "prod", bytes([number])) for number in range(40)]
        wait_until(lambda: key.at_work == 32)
        with pytest.raises(UnreachableError, match="32 other calls are still at work"):
            unwrapping.unwrap("prod", b"late", seconds=0.05)
        key.go_on.set()
        assert [answer.result(PATIENCE) for answer in answers] == [KEK] * 40
    assert key.most_at_once == 32
