"""Progress on a terminal of 50 columns."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

SCRIPT = """
import time
from coco_kp.cli.progress import ProgressBars

with ProgressBars(wanted=True) as progress:
    time.sleep(0.9)  # a slow registry: nothing moves yet
    print("expecting", flush=True)
    progress.expect(900 << 20, "encrypting", {"sha256:0": "linux/arm64/v8 9/12"})
    progress.begin("sha256:0", 900 << 20)
    progress.begin("sha256:" + "1" * 64, 1 << 20)
    for name in ("sha256:0", "sha256:" + "1" * 64):
        progress.advance(name, 700_000)
    time.sleep(1)
    progress.expect(0, "encrypting", {}, "uploading")
    progress.end("sha256:" + "1" * 64)
    progress.advance("sha256:0", 700_000)
    time.sleep(1)
    progress.end("sha256:0")
    print("all ended", flush=True)
    time.sleep(1)
"""


def test_progress_says_what_is_done_of_which_layer_in_50_columns() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 50, 0, 0))
    environment = {"TERM": "xterm", "PATH": os.environ["PATH"]}
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        text = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # EIO: the other side is closed
                break
            if not piece:
                break
            text += piece
    os.close(ours)
    assert process.returncode == 0, text
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.decode())
    lines = [line for line in re.split(r"[\r\n]+", plain) if line]
    before, _, after = plain.partition("expecting")
    assert "reading" in before
    worked, _, sent = after.partition("all ended")
    assert "encrypting" in worked
    assert "uploading" not in worked
    assert "uploading" in sent
    assert "linux/arm64/v8 9/12" in after
    assert "111111111111" in after
    assert "MiB" in after
    assert max(map(len, lines)) <= 50, lines
