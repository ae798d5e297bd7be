"""The one error that only a command line has."""

from __future__ import annotations

from coco_kp.errors import CocoKpError


class UsageError(CocoKpError):
    """The command line is wrong."""

    exit_code = 2
    code = "usage"
