"""``python -m tests.sim.kbs_process PORT FILE PATH``: a simulated KBS that can be killed.

It prints its port (0 lets the system choose), and hands out FILE as the resource PATH.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from tests.sim.http_server import http_server
from tests.sim.kbs import SimulatedKbs


def main(port: int, file: Path, resource: str) -> None:
    """Serve until killed."""
    kbs = SimulatedKbs()
    kbs.resources[resource] = file.read_bytes()
    with http_server(kbs.answer, port=port) as url:
        sys.stdout.write(f"{url.rpartition(':')[2]}\n")
        sys.stdout.flush()
        signal.pause()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
