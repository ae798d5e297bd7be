"""Benchmarks that pytest-benchmark runs: ``pytest benches``. They assert nothing about time."""

from __future__ import annotations

from tests.conftest import pytest_runtest_setup

__all__ = ["pytest_runtest_setup"]
