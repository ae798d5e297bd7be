"""Whole commands beside skopeo's: the same images, the same keys, in the same rounds.

skopeo calls upstream's key provider where ``COCO_KP_PEERS`` has it, else ours. Each figure is a
ratio to ``openssl dgst -sha256`` of all the layers' bytes, for no tool can name a blob faster.
Rounds are interleaved, so that what else the machine does falls on all alike. Images, results and
temporary files lie on tmpfs; a registry runs on loopback and keeps its blobs there, too.

``python -m benches.peers [--rounds N] [--scale PERCENT] [--quick] [--output FOLDER]`` prints a
table and writes ``peers.json`` and ``peers.svg``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
import zlib
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from tests.peers.cache import PeerUnavailableError
from tests.peers.debian import debian_bin
from tests.peers.registry import registry
from tests.peers.skopeo import PROVIDER, Skopeo, find_skopeo
from tests.peers.upstream import attestation_agent, upstream_provider
from tests.support.documents import TAR_GZIP, Document
from tests.support.image import Image
from tests.support.layout import LayoutWriter
from tests.support.provider import grpc_config, served_address, serving

from benches.chart import bar_chart
from benches.real import write_libraries_image
from benches.throughput import MIB, machine, tmpfs, verdict, warm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from coco_kp.model.digest import Hasher

COCO_KP: Final = Path(sys.executable).with_name("coco-kp")
KID: Final = "default/key/key_id1"

RANDOM: Final = {"1 x 1 GiB": [1024], "4 x 256 MiB": [256] * 4, "40 x 8 MiB": [8] * 40}
"""Layers of images in MiB; incompressible, so that their sizes are what they say."""

LIBRARIES: Final = {"libraries, gzip": True, "libraries, tar": False}
"""Images of the Python libraries that are here, and whether they are compressed."""

TARGETS: Final = {
    ("encrypt", "1 x 1 GiB", "oci"): 3.0,
    ("encrypt", "4 x 256 MiB", "oci"): 3.4,
    ("encrypt", "1 x 1 GiB", "registry"): 2.5,
    ("encrypt", "4 x 256 MiB", "registry"): 2.5,
    ("decrypt", "1 x 1 GiB", "oci"): 4.0,
    ("decrypt", "4 x 256 MiB", "oci"): 4.0,
}
"""How many times skopeo's speed ours must reach (docs/performance.md)."""


@dataclass
class Measured:
    """The runs of one command: seconds each, and the most memory of any, in bytes."""

    seconds: list[float] = field(default_factory=list)
    memory: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def run(self, command: Sequence[str | Path], env: dict[str, str] | None = None) -> None:
        """Run the command once more."""
        started = time.perf_counter()
        with subprocess.Popen(
            command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            # wait4's figure would contain ours: a child inherits it (getrusage(2)).
            watching = threading.Thread(target=self._watch, args=(process.pid,))
            watching.start()
            _, err = process.communicate()
            self.seconds.append(time.perf_counter() - started)
            watching.join()
        assert process.returncode == 0, err.decode()

    def _watch(self, pid: int) -> None:
        status = Path(f"/proc/{pid}/status")
        with suppress(OSError):
            while peak := re.search(r"VmHWM:\s*(\d+) kB", status.read_text()):
                self.memory = max(self.memory, int(peak[1]) * 1024)
                time.sleep(0.01)


@dataclass(frozen=True)
class Row:
    """One operation on one image, to one kind of destination, by both tools."""

    operation: str
    image: str
    destination: str
    openssl: Measured
    ours: Measured
    skopeo: Measured

    @property
    def times(self) -> float:
        """How many times faster ours is."""
        return self.skopeo.median / self.ours.median

    @property
    def target(self) -> float | None:
        return TARGETS.get((self.operation, self.image, self.destination))

    def to_json(self) -> dict[str, object]:
        def figures(measured: Measured) -> dict[str, object]:
            return {
                "seconds": measured.seconds,
                "median": measured.median,
                "best": min(measured.seconds),
                "ratio_to_openssl": self.openssl.median / measured.median,
                "peak_memory": measured.memory,
            }

        return {
            "operation": self.operation,
            "image": self.image,
            "destination": self.destination,
            "openssl_median": self.openssl.median,
            "coco_kp": figures(self.ours),
            "skopeo": figures(self.skopeo),
            "times_as_fast": self.times,
            "target": self.target,
        }


@dataclass(frozen=True)
class Setting:
    """Where things are: images, the key, skopeo with its two key providers, a registry."""

    folder: Path
    key: Path
    keys_file: Path
    skopeo: Skopeo
    encrypting: Path
    decrypting: Path
    registry: str

    def rows(
        self, name: str, write: Callable[[Path], Image], destinations: Sequence[str], rounds: int
    ) -> Iterator[Row]:
        """Measure both operations on an image that ``write`` makes, to each kind of destination."""
        source = write(self.folder / "image")
        encrypted = Image(self.folder / "encrypted")
        subprocess.run(
            [COCO_KP, "-q", "encrypt", source.reference, encrypted.reference, *self._ours()],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        for destination in destinations:
            for operation, image in (("encrypt", source), ("decrypt", encrypted)):
                row = Row(operation, name, destination, Measured(), Measured(), Measured())
                for number in range(rounds + 1):
                    kept = row if number else Row("", "", "", Measured(), Measured(), Measured())
                    kept.openssl.run(["openssl", "dgst", "-sha256", *layer_files(image)])
                    self._run(kept, operation, image, destination, number)
                yield row
        shutil.rmtree(source.folder)
        shutil.rmtree(encrypted.folder)

    def _run(self, row: Row, operation: str, image: Image, destination: str, number: int) -> None:
        # A fresh place each time: what is there already is not written again.
        size = sum(file.stat().st_size for file in layer_files(image))
        for tool, measure in (("ours", row.ours), ("skopeo", row.skopeo)):
            warm(self.folder, size if destination == "oci" else 2 * size)
            target = f"docker://{self.registry}/{operation}/{tool}{number}:latest"
            if destination == "oci":
                target = f"oci:{self.folder}/target"
            command, env = self._command(tool, operation, image.reference, target)
            measure.run(command, {**env, "TMPDIR": str(self.folder)})
            shutil.rmtree(self.folder / "target", ignore_errors=True)
            for blobs in (self.folder / "registry/storage").glob("*"):
                shutil.rmtree(blobs)

    def _ours(self) -> list[str | Path]:
        return ["--keyid", f"kbs:///{KID}", "--keypath", self.key]

    def _command(
        self, tool: str, operation: str, source: str, target: str
    ) -> tuple[Sequence[str | Path], Mapping[str, str]]:
        if tool == "ours":
            keys = self._ours() if operation == "encrypt" else ["--keys", self.keys_file]
            ours = [COCO_KP, "-q", operation, source, target, "--dest-tls-verify=false", *keys]
            return ours, os.environ
        if operation == "encrypt":
            key = f"{PROVIDER}:keypath={self.key}::keyid=kbs:///{KID}"
            flags, config = ["--encryption-key", key], self.encrypting
        else:
            flags, config = (
                ["--decryption-key", f"{PROVIDER}:offline_fs_kbc::null"],
                self.decrypting,
            )
        return self.skopeo.copy_command(source, target, *flags), self.skopeo.environment(config)


def images(percent: int) -> Iterator[tuple[str, Callable[[Path], Image]]]:
    """Give a name of each image, and what writes it; random ones have so much of their size."""
    for name, compressed in LIBRARIES.items():
        yield name, partial(write_libraries_image, compressed=compressed)
    for name, sizes in RANDOM.items():
        scaled = [max(1, size * percent // 100) for size in sizes]
        yield name, partial(write_random_image, sizes=scaled)


def write_random_image(folder: Path, sizes: Sequence[int]) -> Image:
    """Write an image with a layer for each size in MiB: gzip streams that nothing compresses."""
    layout = LayoutWriter(folder)
    layers, diff_ids = zip(*(_write_layer(layout, size * MIB) for size in sizes), strict=True)
    layout.name(layout.put_image(layers, diff_ids))
    return Image(folder)


def _write_layer(layout: LayoutWriter, size: int) -> tuple[Document, str]:
    """Write a layer; return its descriptor and the digest of its content."""
    layer, content = hashlib.sha256(), hashlib.sha256()
    stream = zlib.compressobj(0, wbits=16 + zlib.MAX_WBITS)
    unnamed = layout.folder / "layer"
    with unnamed.open("wb") as file:
        for _ in range(size // MIB):
            piece = os.urandom(MIB)
            content.update(piece)
            _append(file, layer, stream.compress(piece))
        _append(file, layer, stream.flush())
    return layout.take(TAR_GZIP, unnamed, layer.hexdigest()), f"sha256:{content.hexdigest()}"


def _append(file: BinaryIO, hasher: Hasher, data: bytes) -> None:
    hasher.update(data)
    file.write(data)


def layer_files(image: Image) -> list[Path]:
    return [
        image.folder / "blobs/sha256" / layer["digest"][7:] for layer in image.manifest["layers"]
    ]


def setting(folder: Path, stack: ExitStack) -> Setting:
    """Start what skopeo needs, and a registry."""
    key, keys_file = folder / "kek", folder / "keys.json"
    generate: list[str | Path] = [
        COCO_KP,
        "-q",
        "keys",
        "generate",
        "--count",
        "1",
        "-o",
        keys_file,
    ]
    subprocess.run(generate, check=True)
    subprocess.run([COCO_KP, "-q", "keys", "export", keys_file, KID, key], check=True)
    home, storage = folder / "skopeo", folder / "registry"
    for path in (home, storage):
        path.mkdir()
    ours = folder / "ours.json"

    def or_ours(start: Callable[[], str]) -> Path:
        try:
            return grpc_config(folder / f"{start.__name__}.json", start())
        except PeerUnavailableError:
            if not ours.exists():
                running = stack.enter_context(serving(folder, "--keys", str(keys_file)))
                grpc_config(ours, served_address(running))
            return ours

    def upstream() -> str:
        return stack.enter_context(upstream_provider(folder)).address()

    def agent() -> str:
        return stack.enter_context(attestation_agent(folder, keys_file.read_text())).address()

    return Setting(
        folder,
        key,
        keys_file,
        Skopeo(find_skopeo(), home),
        or_ours(upstream),
        or_ours(agent),
        stack.enter_context(registry(debian_bin() / "docker-registry", storage)),
    )


def main() -> None:
    """Measure, print the table, write JSON and chart."""
    parser = argparse.ArgumentParser(description="coco-kp beside skopeo, whole commands")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=int, default=100, help="size of the layers in percent")
    parser.add_argument("--quick", action="store_true", help="to a layout alone")
    parser.add_argument("--output", type=Path, default=Path("target/benches"))
    options = parser.parse_args()
    with tmpfs() as folder, ExitStack() as stack:
        place = setting(folder, stack)
        version = subprocess.run(
            [place.skopeo.program, "--version"], capture_output=True, text=True, check=True
        ).stdout.strip()
        load = os.getloadavg()[0]
        print(f"{machine()}; {version}; {options.rounds} rounds; load {load:.1f} before\n")
        print(
            "| | image | to | coco-kp s | skopeo s | ratios to openssl | MiB | times | target | |"
        )
        print("|---|---|---|---|---|---|---|---|---|---|")
        rows = []
        destinations = ("oci",) if options.quick else ("oci", "registry")
        for name, write in images(options.scale):
            for row in place.rows(name, write, destinations, options.rounds):
                rows.append(row)
                print(line(row), flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    document = {"machine": machine(), "skopeo": version, "rows": [row.to_json() for row in rows]}
    (options.output / "peers.json").write_text(json.dumps(document, indent=2) + "\n")
    bars = [
        (f"{row.operation} {row.image} to {row.destination}", row.ours.median, row.skopeo.median)
        for row in rows
    ]
    title = "Seconds for a whole command: coco-kp and skopeo"
    (options.output / "peers.svg").write_text(bar_chart(title, ("coco-kp", "skopeo"), bars))
    print(f"\nwrote {options.output}/peers.json and peers.svg")


def line(row: Row) -> str:
    """Give a row of the table."""
    ours, skopeo = row.ours, row.skopeo
    ratios = f"{row.openssl.median / ours.median:.2f} / {row.openssl.median / skopeo.median:.2f}"
    target = f"{row.target:.1f}" if row.target else ""
    met = verdict(row.times >= row.target) if row.target else ""
    return (
        f"| {row.operation} | {row.image} | {row.destination} "
        f"| {ours.median:.2f} (best {min(ours.seconds):.2f}) "
        f"| {skopeo.median:.2f} (best {min(skopeo.seconds):.2f}) | {ratios} "
        f"| {ours.memory // MIB} / {skopeo.memory // MIB} | {row.times:.1f} | {target} | {met} |"
    )


if __name__ == "__main__":
    main()
