"""How cost grows with an image: seconds, seconds of processors, and the most memory.

Layers of one image from 1 to 16 GiB, images of 1 to 500 layers, 1 and 8 platforms, 1 and 64
recipients: each is encrypted, verified and decrypted, once. Each measure should grow as a straight
line, and memory not at all. Sources are sparse files, which need no room; results are not. They lie
on disk, where 16 GiB fit that memory has no room for, so that wall seconds are the disk's, too:
the processors' tell the line.

``python -m benches.growth [--largest GIB] [--folder FOLDER] [--output FOLDER]`` prints a table and
writes ``growth.json``; it needs twice the largest layer in ``FOLDER``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.support.documents import TAR
from tests.support.image import Image
from tests.support.key import make_key
from tests.support.layout import LayoutWriter
from tests.support.provider import COCO_KP

from benches.machine import GIB, MIB, machine
from benches.series import Series, figures, verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MOST_MEMORY: Final = 48 * MIB
"""Of any command, whatever the image."""

OPERATIONS: Final = ("encrypt", "verify", "decrypt")


@dataclass(frozen=True)
class Case:
    """An image: so many platforms, of so many layers each, for so many recipients."""

    row: str
    """What grows, and how large it is here."""
    sizes: Sequence[int]
    """Of the layers of one platform, in bytes."""
    platforms: int = 1
    recipients: int = 1


def cases(largest: int) -> Iterator[Case]:
    """Yield all images; the largest layer has so many GiB."""
    for size in (1, 4, 16):
        if size <= largest:
            yield Case(f"1 x {size} GiB", [size * GIB])
    for count in (1, 10, 100, 500):
        yield Case(f"{count} x 1 MiB", [MIB] * count)
    for platforms in (1, 8):
        yield Case(f"10 x 1 MiB, platforms: {platforms}", [MIB] * 10, platforms=platforms)
    for recipients in (1, 64):
        yield Case(f"10 x 1 MiB, recipients: {recipients}", [MIB] * 10, 1, recipients)
    # More would make a larger manifest than registries take.
    yield Case("100 x 1 MiB, recipients: 64", [MIB] * 100, 1, 64)


def write_image(folder: Path, case: Case) -> Image:
    """Write an image of layers that all differ: a number, and zeros that take no room."""
    layout = LayoutWriter(folder)
    entries, number = [], 0
    for platform in range(case.platforms):
        layers, diff_ids = [], []
        for size in case.sizes:
            digest = _write_sparse(layout.folder / "layer", number, size)
            layers.append(layout.take(TAR, layout.folder / "layer", digest))
            diff_ids.append(f"sha256:{digest}")
            number += 1
        entry = layout.put_manifest(layers, diff_ids)
        entries.append(entry | {"platform": {"os": "linux", "architecture": f"bench{platform}"}})
    layout.name(entries[0] if case.platforms == 1 else layout.put_index(entries))
    return Image(folder)


def _write_sparse(path: Path, number: int, size: int) -> str:
    """Write a file of a number and zeros; return its digest."""
    head, zeros = number.to_bytes(MIB, "big"), bytes(MIB)
    sha256 = hashlib.sha256(head)
    for _ in range(size // MIB - 1):
        sha256.update(zeros)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)
    return sha256.hexdigest()


class Place:
    """A folder with a key for each recipient, where one image after another is measured."""

    def __init__(self, folder: Path, recipients: int) -> None:
        self.folder = folder
        self.keys = [make_key(folder / f"key{number}").path for number in range(recipients)]

    def measure(self, case: Case) -> dict[str, Series]:
        """Encrypt, verify and decrypt an image, with the last recipient's key."""
        plain = write_image(self.folder / "plain", case)
        encrypted, decrypted = (Image(self.folder / name) for name in ("encrypted", "decrypted"))
        keys = self.keys[: case.recipients]
        own: list[str | Path] = ["--keypath", keys[-1]]
        recipients = [
            f"--recipient=keyid=kbs:///default/key/{number},keypath={path}"
            for number, path in enumerate(keys)
        ]
        commands: dict[str, list[str | Path]] = {
            "encrypt": [plain.reference, encrypted.reference, *recipients],
            "verify": [encrypted.reference, *own],
            "decrypt": [encrypted.reference, decrypted.reference, *own],
        }
        taken = {}
        for operation, arguments in commands.items():
            taken[operation] = Series()
            taken[operation].run([COCO_KP, "-q", operation, *arguments])
            if operation == "encrypt":
                shutil.rmtree(plain.folder)
        for image in (encrypted, decrypted):
            shutil.rmtree(image.folder)
        return taken


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, write JSON."""
    parser = argparse.ArgumentParser(description="how cost grows with an image")
    parser.add_argument("--largest", type=int, default=16, help="layer, in GiB")
    parser.add_argument("--folder", type=Path, help="on the disk to write to")
    parser.add_argument("--output", type=Path, default=Path("target/benches"))
    options = parser.parse_args(arguments)
    rows = []
    print(f"{machine()}; seconds / of processors / most MiB of memory\n")
    print(f"| | {' | '.join(OPERATIONS)} | memory ≤ {MOST_MEMORY // MIB} MiB |")
    print(f"|{'---|' * (2 + len(OPERATIONS))}")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        place = Place(Path(folder), max(case.recipients for case in cases(options.largest)))
        for case in cases(options.largest):
            taken = place.measure(case)
            rows.append({"case": case.row} | {name: taken[name].to_json() for name in OPERATIONS})
            most = max(series.memory for series in taken.values())
            cells = [figures(taken[name]) for name in OPERATIONS]
            met = f"{verdict(most <= MOST_MEMORY)} ({most // MIB})"
            print(f"| {' | '.join([case.row, *cells, met])} |", flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    document = {"machine": machine(), "rows": rows}
    (options.output / "growth.json").write_text(json.dumps(document, indent=2) + "\n")
    print(f"\nwrote {options.output}/growth.json")


if __name__ == "__main__":
    main()
