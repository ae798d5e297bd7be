"""Importing the package changes nothing in the process that imports it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROCESS = """
import gc, json, logging, os, signal, sys, threading, warnings
FIRST

def state():
    loggers = {"": logging.root}
    loggers |= {
        name: one for name, one in logging.Logger.manager.loggerDict.items()
        if isinstance(one, logging.Logger)
    }
    changed = {
        name: [repr(one.handlers), repr(one.filters), one.level, one.propagate, one.disabled]
        for name, one in loggers.items()
        if one.handlers or one.filters or (one.level and name) or not one.propagate or one.disabled
    }
    umask = os.umask(0o077)
    os.umask(umask)
    return {
        "loggers": changed,
        "logging": repr((logging.root.level, logging.getLogRecordFactory(), logging.root.disabled)),
        "signals": {number: repr(signal.getsignal(number)) for number in signal.valid_signals()},
        "warnings": repr(warnings.filters),
        "environment": dict(os.environ),
        "threads": [thread.name for thread in threading.enumerate()],
        "files": sorted(os.listdir("/proc/self/fd")),
        "garbage": (gc.get_threshold(), gc.isenabled(), gc.get_freeze_count()),
        "umask": umask,
        "directory": os.getcwd(),
        "hooks": repr((sys.excepthook, threading.excepthook, warnings.showwarning)),
    }

before = state()
DO
after = state()
print(json.dumps({name: after[name] for name in before if before[name] != after[name]}))
"""

ALL = "[getattr(coco_kp, name) for name in coco_kp.__all__]"
IMAGES = "[getattr(coco_kp, name) for name in coco_kp.__all__ if not name.endswith('_kbc')]"


def changes(do: str, first: str = "") -> dict[str, object]:
    """Return what of a new process is different after some code ran in it."""
    code = PROCESS.replace("FIRST", first).replace("DO", do)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    changed: dict[str, object] = json.loads(done.stdout)
    return changed


@pytest.mark.parametrize("names", ["[]", IMAGES])
def test_library_import_and_use_of_names_change_nothing_in_the_process(names: str) -> None:
    assert changes(f"import coco_kp; {names}") == {}


def test_kbcs_change_nothing_in_the_process_beyond_what_their_libraries_do() -> None:
    """Loading urllib3 alone makes filters of warnings."""
    assert changes(f"import coco_kp; {ALL}", "import grpc, urllib3") == {}


@pytest.mark.parametrize(
    ("do", "what"),
    [
        ("logging.getLogger('urllib3.connectionpool').addFilter(bool)", "loggers"),
        ("logging.root.setLevel(10)", "logging"),
        ("signal.signal(signal.SIGINT, signal.SIG_DFL)", "signals"),
        ("warnings.simplefilter('ignore')", "warnings"),
        ("os.environ['COCO_KP_X'] = ''", "environment"),
        ("threading.Thread(target=threading.Event().wait, daemon=True).start()", "threads"),
        ("os.dup(0)", "files"),
        ("gc.set_threshold(10_000)", "garbage"),
        ("os.umask(0)", "umask"),
        ("os.chdir('/proc')", "directory"),
        ("sys.excepthook = print", "hooks"),
    ],
)
def test_change_of_the_process_is_seen(do: str, what: str) -> None:
    assert changes(do).keys() == {what}
