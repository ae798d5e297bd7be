"""Whole commands beside those of others: the same images, the same keys, in the same rounds.

The others are skopeo 1.18 and a client of the newest go.podman.io/image. They call upstream's key
provider where ``COCO_KP_PEERS`` has it, else ours. Encrypting and decrypting stand beside ``openssl
dgst -sha256`` of all the layers' bytes, for no tool can name a blob faster; verifying, which they
cannot, beside reading, inflating and hashing the layers' content alone, which nobody can save.
Rounds are interleaved, so that what else the machine does falls on all alike. Images, results and
temporary files lie on tmpfs; a registry runs on loopback and keeps its blobs there, too.

``python -m benches.peers [--rounds N] [--scale PERCENT] [--quick] [--output FOLDER]`` prints a
table and writes ``peers.json`` and ``peers.svg``. It needs three times the largest image in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.peers.cache import PeerUnavailableError
from tests.peers.debian import debian_bin
from tests.peers.golang import CIMAGE_CLIENT
from tests.peers.registry import registry_daemon
from tests.peers.skopeo import PROVIDER, Skopeo, find_skopeo
from tests.peers.upstream import attestation_agent, upstream_provider
from tests.support.image import Image
from tests.support.key import Key, make_key
from tests.support.provider import COCO_KP, grpc_config, served_address, serving

from benches.chart import bar_chart
from benches.layers import random, random_image, real
from benches.machine import machine, tmpfs, warm
from benches.series import Series, figures, verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.peers.daemon import Daemon

    from benches.layers import Kind

OURS, SKOPEO, CIMAGE = "coco-kp", "skopeo 1.18", f"c/image {CIMAGE_CLIENT.version}"
OTHERS: Final = (SKOPEO, CIMAGE)

ALONE: Final = """
import sys
from coco_kp.unpacking import ContentCheck, Unpacking
for name in sys.argv[2:]:
    check = ContentCheck(sys.argv[1], "sha256", Unpacking())
    with open(name, "rb") as file:
        while piece := file.read(1 << 18):
            check.update(piece)
    check.finish()
"""
"""Reads layers, inflates those in gzip, and hashes what comes out, on one thread."""

Way = tuple[str, str]

LAYOUTS: Final[Way] = ("oci", "oci")
PUSH: Final[Way] = ("oci", "registry")
PULL: Final[Way] = ("registry", "oci")
READ: Final[Way] = ("oci", "")


@dataclass(frozen=True)
class Target:
    """What is asked of a row: ``of`` names a measure in `Row.measures`."""

    of: str
    figure: float
    at_most: bool = False

    def met(self, row: Row) -> bool:
        """Return whether a row reaches it."""
        measured = row.measures[self.of]
        return measured <= self.figure if self.at_most else measured >= self.figure

    def report(self, row: Row) -> str:
        """Say what was reached, what was asked, and whether that is enough."""
        sign = "≤" if self.at_most else "≥"
        reached = f"{row.measures[self.of]:.2f} {self.of}"
        return f"{reached} ({sign} {self.figure:g} {verdict(self.met(row))})"


DECRYPT: Final = (Target("of openssl", 0.75), Target("x skopeo", 3.3))

TARGETS: Final[dict[tuple[str, Way, str], Sequence[Target]]] = {
    ("encrypt", LAYOUTS, "1 random"): (Target("x skopeo", 3.0),),
    ("encrypt", LAYOUTS, "4 random"): (Target("x skopeo", 3.4),),
    ("decrypt", LAYOUTS, "1 random"): DECRYPT,
    ("decrypt", LAYOUTS, "4 random"): DECRYPT,
    ("decrypt", LAYOUTS, "libraries, gzip"): DECRYPT,
    ("encrypt", PUSH, "1 random"): (Target("x skopeo", 2.5),),
    ("encrypt", PUSH, "4 random"): (Target("x skopeo", 2.5),),
    ("encrypt", PUSH, "40 random"): (Target("x skopeo", 2.0),),
    ("decrypt", PULL, "1 random"): (Target("x skopeo", 2.5),),
    ("decrypt", PULL, "4 random"): (Target("x skopeo", 2.5),),
    ("decrypt", PULL, "40 random"): (Target("x skopeo", 2.0),),
    ("verify", READ, "libraries, gzip"): (Target("x processor alone", 1.1, at_most=True),),
}
"""What each operation must reach, on which way, on an image of which group."""


@dataclass(frozen=True)
class Row:
    """One operation on one image, on one way, by every tool that can."""

    operation: str
    kind: Kind
    way: Way
    yardstick: Series = field(default_factory=Series)
    tools: dict[str, Series] = field(default_factory=dict)
    registry: dict[str, list[float]] = field(default_factory=dict)
    """Seconds of the registry's processors, by tool."""

    @property
    def measures(self) -> dict[str, float]:
        """What targets are about, in times."""
        ours = self.tools[OURS]
        found = {
            f"x {name.split()[0]}": self.tools[name].median / ours.median
            for name in OTHERS
            if name in self.tools
        }
        if self.operation.startswith("verify"):
            processor = ours.processor_median / self.yardstick.processor_median
            return found | {"x processor alone": processor}
        return found | {"of openssl": self.yardstick.median / ours.median}

    @property
    def targets(self) -> Sequence[Target]:
        return TARGETS.get((self.operation, self.way, self.kind.group), ())

    def to_json(self) -> dict[str, object]:
        """Return all figures."""
        return {
            "operation": self.operation,
            "image": self.kind.name,
            "from": self.way[0],
            "to": self.way[1],
            "yardstick": self.yardstick.to_json(),
            "tools": {name: series.to_json() for name, series in self.tools.items()},
            "registry_processor": self.registry,
            "measures": self.measures,
            "targets": {target.of: target.figure for target in self.targets},
            "met": all(target.met(self) for target in self.targets),
        }

    def line(self) -> str:
        """Return the row of the table."""
        cells = [f"{self.operation} {self.kind.name}", " to ".join(filter(None, self.way))]
        cells += [figures(series) for series in (self.yardstick, *map(self.tools.get, TOOLS))]
        cells.append(
            " / ".join(f"{statistics.median(used):.2f}" for used in self.registry.values())
        )
        told = [target.report(self) for target in self.targets]
        asked = {target.of for target in self.targets}
        told += [f"{figure:.2f} {of}" for of, figure in self.measures.items() if of not in asked]
        return f"| {' | '.join([*cells, '; '.join(told)])} |"


TOOLS: Final = (OURS, *OTHERS)

HEADER: Final = (
    f"| | way | yardstick | {' | '.join(TOOLS)} | registry | coco-kp is |\n"
    f"|{'---|' * (5 + len(TOOLS))}"
)

LEGEND: Final = (
    "Medians: seconds / of processors / most MiB of memory. The yardstick is openssl dgst -sha256 "
    "of the layers, to verify reading, inflating and hashing alone; the registry's are seconds of "
    "its processors, by tool."
)


@dataclass(frozen=True)
class Setting:
    """Where things are: images, the key, the others with their two key providers, a registry."""

    folder: Path
    key: Key
    others: Mapping[str, Skopeo]
    encrypting: Path
    decrypting: Path
    registry: Daemon

    def rows(self, kind: Kind, rounds: int, *, quick: bool = False) -> Iterator[Row]:
        """Measure all operations on an image. One copy of it, or of its layers, lies at most in
        each of three places: as source, as result and in the registry."""
        plain, encrypted = Image(self.folder / "plain"), Image(self.folder / "encrypted")
        kind.make(plain.folder)
        yield self._measure(Row("encrypt", kind, LAYOUTS), plain, rounds)
        if not quick:
            yield self._measure(Row("encrypt", kind, PUSH), plain, rounds)
        keys = self._ours("encrypt")
        command = [COCO_KP, "-q", "encrypt", plain.reference, encrypted.reference, *keys]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        yield self._verify(Row("verify", kind, READ), plain, encrypted, rounds)
        if kind.group == "libraries, gzip" and not quick:
            coco = Row("verify --target coco", kind, READ)
            yield self._verify(coco, plain, encrypted, rounds)
        shutil.rmtree(plain.folder)
        yield self._measure(Row("decrypt", kind, LAYOUTS), encrypted, rounds)
        if not quick:
            self._push(encrypted)
            yield self._measure(Row("decrypt", kind, PULL), encrypted, rounds)
            self._empty_registry()
        shutil.rmtree(encrypted.folder)

    def _measure(self, row: Row, image: Image, rounds: int) -> Row:
        size = sum(file.stat().st_size for file in layer_files(image))
        for _ in range(rounds):
            row.yardstick.run(["openssl", "dgst", "-sha256", *layer_files(image)])
            for tool in self._tools(row):
                # In a fresh place: what is there already is not written again.
                warm(self.folder, size)
                command, env = self._command(tool, row, image)
                before = self._registry_processor()
                series = row.tools.setdefault(tool, Series())
                series.run(command, {**env, "TMPDIR": str(self.folder)})
                if "registry" in row.way:
                    row.registry.setdefault(tool, []).append(self._registry_processor() - before)
                if row.way == PUSH:
                    self._empty_registry()
                shutil.rmtree(self.folder / "target", ignore_errors=True)
        return row

    def _verify(self, row: Row, plain: Image, encrypted: Image, rounds: int) -> Row:
        row.tools[OURS] = Series()
        compression = "gzip" if row.kind.compressed else ""
        alone: list[str | Path] = [sys.executable, "-c", ALONE, compression, *layer_files(plain)]
        ours: list[str | Path] = [COCO_KP, "-q", *row.operation.split(), encrypted.reference]
        ours += ["--keypath", self.key.path]
        for _ in range(rounds):
            row.yardstick.run(alone)
            row.tools[OURS].run(ours)
        return row

    def _tools(self, row: Row) -> Iterator[str]:
        yield OURS
        # To a registry they would compress what is not.
        if row.kind.compressed or row.way != PUSH:
            yield from self.others

    def _command(
        self, tool: str, row: Row, image: Image
    ) -> tuple[Sequence[str | Path], Mapping[str, str]]:
        pushed = f"docker://{self.registry.address()}/bench/image:latest"
        source = pushed if row.way[0] == "registry" else image.reference
        target = pushed if row.way[1] == "registry" else f"oci:{self.folder}/target"
        if tool == OURS:
            tls = [f"--{end}-tls-verify=false" for end in ("src", "dest")]
            ours = [COCO_KP, "-q", row.operation, source, target, *tls, *self._ours(row.operation)]
            return ours, os.environ
        if row.operation == "encrypt":
            flags, config = (
                ["--encryption-key", f"{PROVIDER}:{self.key.parameters()}"],
                self.encrypting,
            )
        else:
            flags, config = (
                ["--decryption-key", f"{PROVIDER}:offline_fs_kbc::null"],
                self.decrypting,
            )
        if not row.kind.compressed:
            flags.append("--dest-oci-accept-uncompressed-layers")
        other = self.others[tool]
        return other.copy_command(source, target, *flags), other.environment(config)

    def _ours(self, operation: str) -> Sequence[str | Path]:
        if operation == "encrypt":
            return ["--keypath", self.key.path, "--keyid", "kbs:///default/key/key_id1"]
        return ["--keys", self.key.keys_file]

    def _push(self, image: Image) -> None:
        self.others[SKOPEO].copy(
            image.reference, f"docker://{self.registry.address()}/bench/image:latest"
        )

    def _empty_registry(self) -> None:
        for blobs in (self.folder / "registry/storage").glob("*"):
            shutil.rmtree(blobs)

    def _registry_processor(self) -> float:
        """Return the seconds of processors that the registry has used (proc_pid_stat(5))."""
        stat = Path(f"/proc/{self.registry.process.pid}/stat").read_text()
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def layer_files(image: Image) -> list[Path]:
    return [
        image.folder / "blobs/sha256" / layer["digest"][7:] for layer in image.manifest["layers"]
    ]


def setting(folder: Path, stack: ExitStack) -> Setting:
    """Start what the others need, and a registry."""
    key = make_key(folder / "key")
    home, storage = folder / "skopeo", folder / "registry"
    for path in (home, storage):
        path.mkdir()
    ours = folder / "ours.json"

    def or_ours(start: Callable[[], str]) -> Path:
        try:
            return grpc_config(folder / f"{start.__name__}.json", start())
        except PeerUnavailableError:
            if not ours.exists():
                running = stack.enter_context(serving(folder, "--keys", str(key.keys_file)))
                grpc_config(ours, served_address(running))
            return ours

    def upstream() -> str:
        return stack.enter_context(upstream_provider(folder)).address()

    def agent() -> str:
        keys = key.keys_file.read_text()
        return stack.enter_context(attestation_agent(folder, keys)).address()

    return Setting(
        folder,
        key,
        {SKOPEO: Skopeo(find_skopeo(), home), CIMAGE: Skopeo(CIMAGE_CLIENT.have(), home)},
        or_ours(upstream),
        or_ours(agent),
        stack.enter_context(registry_daemon(debian_bin() / "docker-registry", storage)),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, write JSON and chart."""
    parser = argparse.ArgumentParser(description="coco-kp beside others, whole commands")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=int, default=100, help="of what is random, in percent")
    parser.add_argument("--quick", action="store_true", help="between layouts, and no tar")
    parser.add_argument("--output", type=Path, default=Path("target/benches"))
    options = parser.parse_args(arguments)
    rows = []
    with tmpfs() as folder, ExitStack() as stack:
        place = setting(folder, stack)
        for _ in place.rows(random_image(1, 1), 1, quick=options.quick):
            pass  # programs are read for the first time
        print(f"{machine()}; {options.rounds} rounds. {LEGEND}\n\n{HEADER}")
        for kind in chain(real(options.scale, quick=options.quick), random(options.scale)):
            for row in place.rows(kind, options.rounds, quick=options.quick):
                rows.append(row)
                print(row.line(), flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    document = {"machine": machine(), "rows": [row.to_json() for row in rows]}
    (options.output / "peers.json").write_text(json.dumps(document, indent=2) + "\n")
    bars = [
        (
            f"{row.operation} {row.kind.name}, {' to '.join(row.way)}",
            row.tools[OURS].median,
            row.tools[SKOPEO].median,
        )
        for row in rows
        if SKOPEO in row.tools
    ]
    title = "Seconds for a whole command: coco-kp and skopeo"
    (options.output / "peers.svg").write_text(bar_chart(title, (OURS, SKOPEO), bars))
    print(f"\nwrote {options.output}/peers.json and peers.svg")


if __name__ == "__main__":
    main()
