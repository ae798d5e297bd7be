"""Who waits for his turn waits no longer than somebody waits for him."""

from __future__ import annotations

import math
import threading

import pytest

import coco_kp
from coco_kp.deadline import Caller, within
from coco_kp.errors import UnreachableError
from coco_kp.transport.registry.turns import in_turn
from tests.sim.http_server import Reply, Request, http_server
from tests.sim.registry import Registry, TokenServer
from tests.support.access import PLAIN
from tests.support.patience import PATIENCE


def test_turn_ends_with_the_block() -> None:
    lock = threading.Lock()
    with in_turn(lock, "h.example"):
        assert lock.locked()
    assert not lock.locked()


def test_turn_at_a_full_registry_is_waited_for_until_the_caller_goes() -> None:
    caller, places = Caller(), threading.Semaphore(0)
    leaving = threading.Timer(0.01, caller.leave)
    leaving.start()
    words = "^h.example did not answer in time"
    with (
        within(math.inf, caller),
        pytest.raises(UnreachableError, match=words),
        in_turn(places, "h.example"),
    ):
        pytest.fail("there was no place")
    leaving.join()


@pytest.mark.parametrize("path", ["/v2/", "/token"])
def test_cancelled_call_does_not_wait_for_what_another_asks_for_both(
    registry: Registry, host: str, path: str
) -> None:
    """Who needed a token, or to find the registry, waited for the answer to who was first."""
    tokens = registry.tokens = TokenServer()
    begun, go, cancel = threading.Event(), threading.Event(), coco_kp.Cancellation()

    def hang(request: Request) -> None:
        if request.path == path and not go.is_set():
            begun.set()
            go.wait(3 * PATIENCE)

    def give(request: Request) -> Reply:
        hang(request)
        return tokens.answer(request)

    def look(cancel: coco_kp.Cancellation | None = None) -> None:
        coco_kp.inspect_image(
            f"docker://{host}/app:1", access=PLAIN, session=session, cancel=cancel
        )

    def look_in_vain() -> None:
        with pytest.raises(coco_kp.RemoteError, match="404"):
            look()

    registry.before = hang
    with http_server(give) as base, coco_kp.Session() as session:
        tokens.realm = f"{base}/token"
        other = threading.Thread(target=look_in_vain)
        other.start()
        begun.wait()
        leaving = threading.Timer(0.01, cancel.cancel)
        leaving.start()
        with pytest.raises(coco_kp.CancelledError):
            look(cancel)
        assert other.is_alive()
        go.set()
        other.join()
        leaving.join()
