"""Fetch every peer and say where it is: ``python -m tests.peers``.

Exits 1 where one cannot be had and ``COCO_KP_REQUIRE_PEERS=1``.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from . import peers_required
from .cache import PeerUnavailableError
from .folder import FOLDER_PEERS, folder_peer
from .registry import REGISTRIES
from .skopeo import find_skopeo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PEERS: dict[str, Callable[[], Path]] = {
    "skopeo": find_skopeo,
    **REGISTRIES,
    **{name: partial(folder_peer, name) for name in FOLDER_PEERS},
}


def main() -> int:
    """Fetch all at once, print a line for each, and return the exit code."""
    with ThreadPoolExecutor(len(PEERS)) as pool:
        results = list(pool.map(_fetch, PEERS.values()))
    width = max(map(len, PEERS))
    for name, result in zip(PEERS, results, strict=True):
        missing = isinstance(result, PeerUnavailableError)
        print(f"{name:{width}}  {'missing: ' if missing else ''}{result}")  # noqa: T201
    return int(peers_required() and any(isinstance(r, PeerUnavailableError) for r in results))


def _fetch(find: Callable[[], Path]) -> Path | PeerUnavailableError:
    try:
        return find()
    except PeerUnavailableError as error:
        return error


if __name__ == "__main__":
    sys.exit(main())
