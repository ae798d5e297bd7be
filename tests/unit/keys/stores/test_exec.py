from __future__ import annotations

import os
import signal
import sys
import threading
from base64 import b64encode
from pathlib import Path

import pytest

from coco_kp.deadline import Caller, within
from coco_kp.errors import InputError, KekError
from coco_kp.keys.kek import kek_of
from coco_kp.keys.reference import ExecReference, parse_kek_reference
from coco_kp.keys.stores.exec import ExecStore
from coco_kp.keys.stores.interface import Store
from coco_kp.keys.stores.opening import open_store
from tests.support.patience import PATIENCE, ends, wait_until
from tests.support.refusals import refusals

KEK = bytes(range(100, 132))


def python(program: str) -> Store:
    return open_store(ExecReference((sys.executable, "-c", program)))


def refusal(store: Store) -> KekError:
    with pytest.raises(KekError) as error:
        store.fetch()
    return error.value


def test_output_of_program_is_the_key(tmp_path: Path) -> None:
    (tmp_path / "kek").write_bytes(KEK)
    store = open_store(parse_kek_reference(f"exec:cat {tmp_path}/kek"))
    assert store.fetch() == KEK
    assert store.check() == f"a key, {kek_of(KEK, 'it').fingerprint}"


def test_no_shell_reads_the_command_line() -> None:
    assert (
        open_store(parse_kek_reference("exec:printf %s '$HOME;' '`id`'")).fetch() == b"$HOME;`id`"
    )


def test_program_has_no_input_and_no_terminal() -> None:
    store = python(
        "import os, sys; print(repr(sys.stdin.read()), os.getsid(0) == os.getpid(), end='')"
    )
    assert store.fetch() == b"'' True"


@pytest.mark.parametrize(
    ("output", "found", "hint"),
    [
        (b64encode(KEK), "44 bytes", "it looks like base64: decode it first"),
        (KEK + b"\n", "33 bytes", "a line break follows the key"),
        (b"", "nothing", ""),
    ],
)
def test_check_says_what_was_printed_instead(output: bytes, found: str, hint: str) -> None:
    with pytest.raises(KekError) as error:
        python(f"import os; os.write(1, {output!r})").check()
    assert error.value.message.endswith(f"found {found}")
    assert error.value.hint == hint


# Programs are named without their arguments, which may hold what unlocks the key.
test_program_that_yields_no_key_is_named_without_its_arguments = refusals(
    lambda words: open_store(ExecReference(words)).fetch(),
    {
        "cannot run the program '/absent/program': no such file": [("/absent/program", "--x")],
        "cannot run the program 'a?b': its name cannot be used": [("a\0b",)],
        "the program 'yes' printed more than 4096 bytes": [("yes",)],
        "the program 'false' failed (exit code 1): ''": [("false", "--password", "hunter2")],
        f"the program '{sys.executable}' failed (signal 15): ''": [
            (sys.executable, "-c", "import os; os.kill(os.getpid(), 15)")
        ],
    },
    raises=KekError,
    exact=True,
    secret="hunter2",
)


def test_failed_program_is_quoted_without_keys_and_control_characters() -> None:
    error = refusal(
        python(
            "import sys, base64; print('no', '\x1b[31m', 'access', base64.b64encode(bytes(range("
            "100, 132))).decode(), bytes(range(100, 132)).hex(), file=sys.stderr); sys.exit(3)"
        )
    )
    assert error.message == (
        f"the program '{sys.executable}' failed (exit code 3): "
        "'no ?[31m access (what looks like a key) (what looks like a key)'"
    )
    assert error.hint == "run it by itself to see"


def test_end_of_long_complaint_is_kept_in_bounds() -> None:
    error = refusal(python("import sys; sys.stderr.write('x ' * 500_000 + 'because'); sys.exit(1)"))
    assert len(error.message) < 300


@pytest.mark.parametrize("then", ["print(flush=True)", "os.close(1); os.close(2)"])
def test_program_that_hangs_is_killed_with_all_it_started(tmp_path: Path, then: str) -> None:
    pid_file, caller = tmp_path / "pid", Caller()
    store = python(
        "import os, signal, subprocess, pathlib, time; "
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "child = subprocess.Popen(['sleep', '1000'], stdout=-3, stderr=-3); "
        f"pathlib.Path('{pid_file}.part').write_text(str(child.pid)); "
        f"os.rename('{pid_file}.part', '{pid_file}'); {then}; time.sleep(1000)"
    )

    def leave_once_the_child_runs() -> None:
        wait_until(pid_file.exists)
        caller.leave()

    leaving = threading.Thread(target=leave_once_the_child_runs)
    leaving.start()
    with within(PATIENCE, caller):
        error = refusal(store)
    leaving.join()
    assert error.message == f"the program '{sys.executable}' did not end in time"
    child = int(pid_file.read_text())
    wait_until(lambda: not is_running(child))


def test_program_has_no_longer_than_its_seconds() -> None:
    store = ExecStore(ExecReference(("sleep", "1000")), seconds=0.1)
    with ends(after=0.1):
        assert refusal(store).message == "the program 'sleep' did not end in time"


def is_running(pid: int) -> bool:
    """Return whether the process does anything; a zombie waits for init alone."""
    try:
        os.kill(pid, signal.SIG_DFL)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_key_is_never_written_to_a_program() -> None:
    with pytest.raises(InputError) as error:
        python("").keep(KEK)
    assert error.value.message == "a key cannot be written to exec:"
    assert error.value.hint == "write it to file:, vault: or aws-sm:"
