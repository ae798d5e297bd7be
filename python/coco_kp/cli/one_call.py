"""What ``coco-kp keyprovider`` does, once its options are read."""

from __future__ import annotations

import logging
import sys
from functools import partial

from coco_kp.cli.output import log_level
from coco_kp.keyprovider.stdio import answer_stdio
from coco_kp.observe import configure
from coco_kp.provider import Provider
from coco_kp.service.calls import answer


def answer_one(provider: Provider) -> None:
    """Answer one request on stdin, on stdout. Raises ``CocoKpError``."""
    # The client puts stderr into its own error: only warnings go there unasked.
    configure("text", log_level(logging.WARNING))
    answer_stdio(partial(answer, provider), sys.stdin.buffer, sys.stdout.buffer)
