"""How fast layers are sealed and opened here, as ``coco-kp bench`` measures it, beside targets.

Files lie on tmpfs, a layer of 1 GiB each.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import Final

from tests.support.provider import COCO_KP

from benches.machine import GIB, MIB, machine, tmpfs, warm
from benches.series import verdict

SIZE: Final = GIB

TARGETS: Final = {
    "encrypt, file to file, one core": 0.40,
    "decrypt, file to file, one core": 0.40,
    "encrypt one layer on two cores": 0.62,
    "decrypt one layer on two cores": 0.62,
    "encrypt two layers, a core each": 0.76,
}
"""Times the speed of SHA-256 on one core."""


def main() -> None:
    """Measure, and print the table."""
    print(f"{machine()}; {SIZE // MIB} MiB\n")
    with tmpfs() as folder:
        warm(folder, 5 * SIZE)
        done = subprocess.run(
            [COCO_KP, "bench", "--size", str(SIZE // MIB), "--format", "json"],
            env={**os.environ, "TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            check=True,
        )
    measured = json.loads(done.stdout)
    print(f"kernel {measured['kernel']}\n\n| case | of SHA-256 | target | |\n|---|---|---|---|")
    for case in measured["cases"]:
        name, ratio = case["case"], case["ratio"]
        target = TARGETS[name]
        print(f"| {name} | {ratio:.2f} | {target:.2f} | {verdict(ratio >= target)} |")


if __name__ == "__main__":
    main()
