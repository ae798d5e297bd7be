"""What a case says when something is not as it expects."""

from __future__ import annotations


class CaseDiffersError(Exception):
    """coco-kp does not do what a case expects; says what it does instead.

    Anything else that a case raises is a fault of the case or of the runner.
    """
