"""A call of the library that another thread ends at a certain moment."""

from __future__ import annotations

import threading

import coco_kp


class Cancelling(coco_kp.Progress):
    """Has another thread end the call when something certain happens for the nth time."""

    def __init__(self, moment: str, nth: int = 1) -> None:
        self.cancel = coco_kp.Cancellation()
        self._moment = moment
        self._left = nth

    def _happens(self, what: str) -> None:
        if what != self._moment:
            return
        self._left -= 1
        if self._left == 0:
            canceller = threading.Thread(target=self.cancel.cancel)
            canceller.start()
            canceller.join()

    def expect(self, *_: object, **__: object) -> None:
        self._happens("expect")

    def begin(self, *_: object, **__: object) -> None:
        self._happens("begin")

    def advance(self, *_: object, **__: object) -> None:
        self._happens("advance")

    def end(self, *_: object, **__: object) -> None:
        self._happens("end")

    def naming(self) -> None:
        self._happens("naming")
