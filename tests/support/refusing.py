"""An operating system that refuses a call about chosen files, once or for good."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest


def refuse(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    chosen: Callable[[str], bool],
    error: int = errno.EIO,
) -> None:
    """Let ``os.<name>`` fail for the paths, among its arguments, that are ``chosen``."""
    call = getattr(os, name)

    def refusing(*arguments: Any, **options: Any) -> Any:
        for argument in arguments:
            if isinstance(argument, str | os.PathLike) and chosen(os.fspath(argument)):
                raise OSError(error, os.strerror(error), argument)
        return call(*arguments, **options)

    monkeypatch.setattr(os, name, refusing)
