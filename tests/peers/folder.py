"""Peers that are built by hand: programs in the folder that ``COCO_KP_PEERS`` names."""

from __future__ import annotations

import os
from pathlib import Path

from .cache import PeerUnavailableError

VARIABLE = "COCO_KP_PEERS"
FOLDER_PEERS = (
    *("coco_keyprovider", "attestation-agent-0.6"),
    *("kbs", "kbs-client", "start-kbs", "simple-kbs", "start-simple-kbs", "verdictd"),
)


def folder_peer(name: str) -> Path:
    """Return the program ``name``. Raises `PeerUnavailableError` where it is not there."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        raise PeerUnavailableError(
            f"{name} is looked for in the folder {VARIABLE}, which is not set"
        )
    program = Path(folder, name).absolute()
    if not os.access(program, os.X_OK):
        raise PeerUnavailableError(f"{VARIABLE} names {folder}, where there is no program {name}")
    return program
