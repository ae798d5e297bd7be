"""Progress on a terminal of 50 columns."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

from tests.support.patience import PATIENCE

SCRIPT = """
import sys
from coco_kp.cli.progress import ProgressBars

with ProgressBars(wanted=True) as progress:
    sys.stdin.readline()  # a slow registry: nothing moves yet
    progress.expect(900 << 20, "encrypting", {"sha256:0": "linux/arm64/v8 9/12"})
    progress.begin("sha256:0", 900 << 20)
    progress.begin("sha256:" + "1" * 64, 1 << 20)
    for name in ("sha256:0", "sha256:" + "1" * 64):
        progress.advance(name, 700_000)
    sys.stdin.readline()
    progress.expect(0, "encrypting", {}, "uploading")
    progress.end("sha256:" + "1" * 64)
    progress.advance("sha256:0", 700_000)
    sys.stdin.readline()
    progress.end("sha256:0")
    sys.stdin.readline()
"""


def read_until(terminal: int, *words: str) -> str:
    """Return what is shown, without control sequences, from now until all words were."""
    output, text, deadline = b"", "", time.monotonic() + PATIENCE
    while missing := [word for word in words if word not in text]:
        ready, _, _ = select.select([terminal], [], [], deadline - time.monotonic())
        assert ready, f"{missing} not in {text}"
        output += os.read(terminal, 4096)
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.decode(errors="replace"))
    return text


def test_progress_says_what_is_done_of_which_layer_in_50_columns() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 50, 0, 0))
    environment = {"TERM": "xterm", "PATH": os.environ["PATH"]}
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    ) as process:
        os.close(theirs)
        assert process.stdin is not None
        shown = []
        for words in (
            ["reading"],
            ["encrypting", "linux/arm64/v8 9/12 ━━━━ 0.7/900.0 MiB", "111111111111"],
            ["linux/arm64/v8 9/12 ━━━━ 1.3/900.0 MiB"],
            ["uploading"],
        ):
            shown.append(read_until(ours, *words))
            process.stdin.write(b"\n")
            process.stdin.flush()
    os.close(ours)
    assert process.returncode == 0
    assert "uploading" not in "".join(shown[:3])
    lines = [line for line in re.split(r"[\r\n]+", "".join(shown)) if line]
    assert max(map(len, lines)) <= 50, lines
