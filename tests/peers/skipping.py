"""What becomes of a test whose peer cannot be had: hooks, for a conftest of tests to take over."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from . import peers_required
from .cache import PeerUnavailableError
from .folder import NO_FOLDER, folder_is_named

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = ["pytest_runtest_call", "pytest_runtest_setup"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Leave out, before anything is started for it, a test that needs programs of the folder."""
    if item.get_closest_marker("folder_peer") and not folder_is_named():
        # always from this line, so that pytest's summary has one line for all of them
        pytest.skip(NO_FOLDER)
    with _skipped_without_peers():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    with _skipped_without_peers():
        yield


@contextmanager
def _skipped_without_peers() -> Iterator[None]:
    """Skip a test whose peer cannot be had, unless peers are required: then it fails."""
    try:
        yield
    except PeerUnavailableError as error:
        if peers_required():
            raise
        pytest.skip(str(error))
