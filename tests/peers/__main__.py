"""Fetch the peers that package registries have: ``python -m tests.peers [NAME...]``.

Says before each what is done and how long that may take, and then what was had. What the cache has
whole is not fetched again. A NAME is of one that is not fetched unasked. Exits 1 where one cannot
be had and ``COCO_KP_REQUIRE_PEERS=1``.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from . import peers_required
from .cache import PeerUnavailableError
from .folder import FOLDER_PEERS, VARIABLE, folder_is_named, folder_peer
from .golang import GoProgram
from .sources import ON_REQUEST, SOURCES, Source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

SPEAK_EVERY = 10
"""Seconds between two lines on what is still at work."""


def main(asked_for: Sequence[str]) -> int:
    """Fetch all at once and return the exit code."""
    on_request = {source.name: source for source in ON_REQUEST}
    if unknown := set(asked_for) - on_request.keys():
        _say(f"{' '.join(unknown)}: not one of {', '.join(on_request)}")
        return 2
    wanted = [*SOURCES, *(on_request[name] for name in asked_for)]
    # apt and pip wait for the network while Go keeps every core busy, so they go side by side; two
    # builds would only take turns
    with ThreadPoolExecutor() as fetch, ThreadPoolExecutor(1) as build:
        pools = {
            source.name: build if isinstance(source, GoProgram) else fetch for source in wanted
        }
        at_work = {pools[source.name].submit(_have, source): source.name for source in wanted}
        had = _await(at_work)
    for source in ON_REQUEST:
        if not source.cached:
            _say(f"{source.name}: left out; `make peers PEERS={source.name}` would have it")
    if folder_is_named():
        had = all([had, *(_look_for(name) for name in FOLDER_PEERS)])
    else:
        _say(f"{', '.join(FOLDER_PEERS)}: left out; {VARIABLE} is not set (docs/peers.md)")
    return int(peers_required() and not had)


def _await(at_work: dict[Future[bool], str]) -> bool:
    """Wait for all, never in silence, and return whether all were had."""
    since = time.monotonic()
    pending = set(at_work)
    while pending:
        done, pending = wait(pending, SPEAK_EVERY)
        if not done:
            names = ", ".join(at_work[future] for future in at_work if future in pending)
            _say(f"{time.monotonic() - since:.0f} s: still at work on {names}")
    return all(future.result() for future in at_work)


def _have(source: Source) -> bool:
    if not source.cached:
        _say(f"{source.name}: {source.effort}")
    try:
        source.have()
    except PeerUnavailableError as error:
        _say(f"{source.name}: missing: {error}")
        return False
    _say(f"{source.name}: has {source.title}")
    return True


def _look_for(name: str) -> bool:
    try:
        _say(f"{name}: {folder_peer(name)}")
    except PeerUnavailableError as error:
        _say(f"{name}: missing: {error}")
        return False
    return True


def _say(line: str) -> None:
    # with its end in one piece: several threads speak
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
