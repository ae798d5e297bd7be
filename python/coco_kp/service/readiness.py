"""Whether the provider could serve now: what it needs from others is tried, in the background.

A KBS that is down makes it not ready, which keeps calls away; it stays alive, since a restart would
mend nothing.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from coco_kp.deadline import start, within
from coco_kp.errors import CocoKpError, InputError
from coco_kp.files import reason
from coco_kp.keys.file_reference import KekReference
from coco_kp.keys.keys_file import read_keys
from coco_kp.keys.reference import WrappingReference
from coco_kp.keys.resolve import FetchedKek, StayingKey
from coco_kp.keys.stores.opening import open_store, open_wrapping_key
from coco_kp.observe import event
from coco_kp.redact import shown

if TYPE_CHECKING:
    from coco_kp.provider import Provider

EVERY: Final = 30.0
"""Seconds between two rounds of checks."""
SOONER: Final = 5.0
"""The same while one fails, so that an end of the trouble is seen."""
PATIENCE: Final = 10.0
"""Seconds that a check may take."""

Check = Callable[[], object]
"""Uses what the provider needs, and changes nothing; raises ``CocoKpError`` where that fails."""


class Readiness:
    """The last result of a provider's checks."""

    def __init__(self, checks: Mapping[str, Check], *, patience: float = PATIENCE) -> None:
        self._checks = checks
        self._patience = patience
        self._running: dict[str, _Trial] = {}
        self._failing: dict[str, str] | None = None

    @property
    def ready(self) -> bool:
        """Whether all checks of the last round succeeded; False before there was one."""
        return self._failing == {}

    def start(self) -> None:
        """Check again and again, in a thread that ends with the process."""
        threading.Thread(target=self._run, name="readiness", daemon=True).start()

    def look(self) -> bool:
        """Make one round of checks, side by side, and return whether all succeeded.

        It is logged which fail, where that changes.
        """
        for name, check in self._checks.items():
            if name not in self._running:  # one that hangs is waited for, not started again
                self._running[name] = _Trial(check, self._patience)
        failing = {}
        for name in self._checks:
            failed = self._running[name].outcome(self._patience)
            if failed is not None:
                del self._running[name]
            if failed != "":
                failing[name] = "no answer in time" if failed is None else failed
        known, self._failing = self._failing, failing
        if known is None or known.keys() != failing.keys():
            # That all is well as it begins is what everybody expects.
            _report(failing, logging.DEBUG if known is None else logging.INFO)
        return not failing

    def _run(self) -> None:
        while True:
            time.sleep(EVERY if self.look() else SOONER)


def checks_of(provider: Provider) -> dict[str, Check]:
    """Return what is to be tried of all that a provider was configured with."""
    checks: dict[str, Check] = {}
    if provider.key_dir:
        checks["key directory"] = partial(_check_folder, provider.key_dir)
    match provider.source:
        case FetchedKek(reference):
            checks["key"] = partial(_check_store, reference)
        case StayingKey(wrapping):
            checks["key"] = partial(_check_wrapping_key, wrapping)
    if provider.keys_file:
        checks["keys file"] = partial(read_keys, provider.keys_file)
    if provider.registrar:
        from coco_kp.kbs.checkup import reach  # noqa: PLC0415 (few have a KBS)

        checks["KBS"] = partial(reach, provider.registrar.kbs)
    return checks


def _check_folder(folder: Path) -> None:
    if not os.access(folder, os.R_OK | os.X_OK):
        raise InputError(f"{shown(str(folder))} is not a readable directory")


def _check_store(reference: KekReference) -> None:
    with closing(open_store(reference)) as store:
        store.check()


def _check_wrapping_key(reference: WrappingReference) -> None:
    with closing(open_wrapping_key(reference)) as key:
        key.check()


class _Trial:
    """A check at work, in a thread of its own, which a late outcome finds abandoned."""

    def __init__(self, check: Check, patience: float) -> None:
        self._done = threading.Event()
        self._failed = ""
        thread = threading.Thread(target=self._run, args=(check, patience), daemon=True)
        try:
            start(thread)
        except OSError as failure:
            self._failed = reason(failure)
            self._done.set()

    def outcome(self, patience: float) -> str | None:
        """Return why it failed, empty where it did not, None if it still runs after all."""
        return self._failed if self._done.wait(patience) else None

    def _run(self, check: Check, patience: float) -> None:
        try:
            with within(patience):
                check()
        except CocoKpError as error:
            self._failed = str(error)
        except Exception as error:  # noqa: BLE001 (no reason to take it for ready)
            self._failed = type(error).__name__
        self._done.set()


def _report(failing: Mapping[str, str], good_news: int) -> None:
    if failing:
        said = "; ".join(f"{name}: {why}" for name, why in failing.items())
        event(logging.WARNING, "readiness", outcome="not ready", message=said)
    else:
        event(good_news, "readiness", outcome="ready")
