"""A KEK, and packets that it opens."""

from __future__ import annotations

import os

import pytest

from tests.support.wrapping import Wrapping


@pytest.fixture
def wrapping() -> Wrapping:
    return Wrapping(os.urandom(32))
