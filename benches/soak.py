"""``python -m benches.soak [--minutes 15] [--clients 64]``: a server under load, told in figures.

What it does is in ``tests/support/soak.py``; a short one is among the tests.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.support.soak import soak

from benches.machine import machine


def main() -> None:
    """Run it, and print the report."""
    parser = argparse.ArgumentParser(description="a server under load for a while")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--clients", type=int, default=64)
    chosen = parser.parse_args()
    print(f"{machine()}; {chosen.minutes:g} minutes")
    with tempfile.TemporaryDirectory() as folder:
        for line in soak(Path(folder), chosen.minutes * 60, chosen.clients).lines():
            print(line)


if __name__ == "__main__":
    main()
