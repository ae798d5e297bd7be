"""Benchmarks that pytest-benchmark runs: ``pytest benches``. They assert nothing about time."""

from __future__ import annotations

from tests.peers.skipping import pytest_runtest_call, pytest_runtest_setup

__all__ = ["pytest_runtest_call", "pytest_runtest_setup"]
