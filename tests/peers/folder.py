"""Peers that no package registry has: programs in the folder that ``COCO_KP_PEERS`` names.

docs/peers.md says what each is, where its source lives, and what the folder looks like.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from .cache import PeerUnavailableError

VARIABLE: Final = "COCO_KP_PEERS"
FOLDER_PEERS: Final = (
    *("kbs", "kbs-client", "coco_keyprovider"),
    *("attestation-agent-0.6", "simple-kbs", "verdictd"),
)

NO_FOLDER: Final = (
    f"needs programs that no package registry has, and {VARIABLE} names no folder with them "
    "(docs/peers.md)"
)


def folder_is_named() -> bool:
    """Return whether the user says that there are such programs."""
    return bool(os.environ.get(VARIABLE))


def folder_peer(name: str) -> Path:
    """Return the program ``name``. Raises `PeerUnavailableError` where it is not there."""
    if not folder_is_named():
        raise PeerUnavailableError(f"{name}: {NO_FOLDER}")
    folder = os.environ[VARIABLE]
    program = Path(folder, name).absolute()
    if not os.access(program, os.X_OK):
        raise PeerUnavailableError(f"{VARIABLE} names {folder}, where there is no program {name}")
    return program


def peer_environment(**variables: str) -> dict[str, str]:
    """Return the environment for such a program: its error texts are to be without back-traces."""
    inherited = {name: value for name, value in os.environ.items() if name != "RUST_BACKTRACE"}
    return inherited | variables
