"""What a user waits for the key provider: a call, an image of many layers, a start in cmd mode.

Ours stands beside an empty handler in grpcio's Python server, and beside upstream's program where
``COCO_KP_PEERS`` has it, in interleaved rounds of the same run.

``python -m benches.latency [--calls N] [--rounds N] [--layers N]`` prints tables; nothing else
should run meanwhile (the load is printed, too).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc
from tests.peers.cache import PeerUnavailableError
from tests.peers.daemon import daemon
from tests.peers.skopeo import Skopeo, find_skopeo
from tests.peers.upstream import upstream_provider
from tests.support import ocicrypt
from tests.support.image import write_image
from tests.support.key import make_key
from tests.support.ocicrypt import WRAP_KEY
from tests.support.provider import COCO_KP, grpc_config, served_address, serving

from benches.machine import machine, tmpfs
from benches.series import in_turn, verdict
from coco_kp.keyprovider.call import Call
from coco_kp.provider import Provider
from coco_kp.service.calls import answer

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_OVER_EMPTY: Final = 0.1
"""Milliseconds that a call of ours may take more than one of the empty handler."""

MOST_IMAGE: Final = 1.05
"""How many times as long an image may take through ours."""

MOST_START: Final = 60.0
"""Milliseconds that the command may take from its start to its answer."""

LOCAL = [("grpc.use_local_subchannel_pool", 1)]
"""Or the client library would keep a closed channel's connection for the next."""


def servers(folder: Path, stack: ExitStack) -> dict[str, str]:
    """Start those that are there, and give their addresses."""
    empty = stack.enter_context(
        daemon([sys.executable, "-m", "benches.empty_provider"], folder / "empty.log")
    )
    found = {
        "ours": served_address(stack.enter_context(serving(folder))),
        "empty": served_address(empty),
    }
    try:
        found["upstream"] = stack.enter_context(upstream_provider(folder)).address()
    except PeerUnavailableError as missing:
        print(f"without upstream's: {missing}")
    return found


def wrap_over(channel: grpc.Channel, message: bytes) -> None:
    channel.unary_unary(WRAP_KEY, bytes, bytes)(message, timeout=ocicrypt.TIMEOUT)


def dial_and_wrap(address: str, message: bytes) -> None:
    """Call as ocicrypt does, which dials for each."""
    with grpc.insecure_channel(address, LOCAL) as channel:
        wrap_over(channel, message)


def calls(addresses: Mapping[str, str], request: bytes, rounds: int, stack: ExitStack) -> None:
    """Measure a WrapKey call, over a fresh channel and a kept one."""
    message = ocicrypt.encode_message(request)
    fresh = {name: partial(dial_and_wrap, at, message) for name, at in addresses.items()}
    kept = {
        name: partial(
            wrap_over, stack.enter_context(closing(grpc.insecure_channel(at, LOCAL))), message
        )
        for name, at in addresses.items()
    }
    print("\n| A WrapKey call, ms | median | best | over empty | target |\n|---|---|---|---|---|")
    for title, cases in (("fresh channel", fresh), ("kept channel", kept)):
        measured = in_turn(cases, rounds)
        empty = measured["empty"].median
        for name, series in measured.items():
            over = 1000 * (series.median - empty)
            target = (
                f"{MOST_OVER_EMPTY} {verdict(over <= MOST_OVER_EMPTY)}" if name == "ours" else ""
            )
            print(
                f"| {title}, {name} | {1000 * series.median:.3f} | {1000 * series.best:.3f} "
                f"| {over:+.3f} | {target} |"
            )
    alone = in_turn({"": partial(answer, Provider(), Call(request, "keywrap"))}, rounds)[""]
    print(f"| ours without gRPC | {1000 * alone.median:.3f} | {1000 * alone.best:.3f} | | |")


def images(
    addresses: Mapping[str, str], parameters: str, folder: Path, layers: int, rounds: int
) -> None:
    """Measure a skopeo that copies an image of many layers through each provider."""
    home = folder / "skopeo"
    home.mkdir()
    skopeo = Skopeo(find_skopeo(), home)
    image = write_image(folder / "image", [os.urandom(1024) for _ in range(layers)])

    def copy(name: str) -> None:
        target = folder / "copied"
        config = grpc_config(folder / f"{name}.json", addresses[name])
        skopeo.encrypt(image.reference, f"oci:{target}", parameters, config)
        shutil.rmtree(target)

    measured = in_turn({name: partial(copy, name) for name in addresses}, rounds)
    print(
        f"\n| skopeo copies an image of {layers} layers, s | median | best | of empty | target |\n"
        "|---|---|---|---|---|"
    )
    for name, series in measured.items():
        times = series.median / measured["empty"].median
        target = f"{MOST_IMAGE} {verdict(times <= MOST_IMAGE)}" if name == "ours" else ""
        print(f"| {name} | {series.median:.3f} | {series.best:.3f} | {times:.3f} | {target} |")


def starts(request: Path, rounds: int) -> None:
    """Measure the command from its start to its answer, beside an interpreter that does nothing."""
    # As an installed one, whose modules are compiled.
    env = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def run(*command: str | Path) -> None:
        with request.open("rb") as source:
            subprocess.run(
                command,
                env=env,
                stdin=source,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=True,
            )

    measured = in_turn(
        {
            "coco-kp keyprovider": partial(run, COCO_KP, "keyprovider"),
            "python3 -c pass": partial(run, sys.executable, "-c", "pass"),
        },
        rounds,
    )
    print(
        "\n| From start to answer, ms | median | best | of processors | target |\n"
        "|---|---|---|---|---|"
    )
    for name, series in measured.items():
        ours = name.startswith("coco-kp")
        median, best = 1000 * series.median, 1000 * series.best
        target = f"{MOST_START:.0f} {verdict(median <= MOST_START)}" if ours else ""
        processor = 1000 * series.processor_median
        print(f"| {name} | {median:.0f} | {best:.0f} | {processor:.0f} | {target} |")


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description="what a user waits for the key provider")
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--layers", type=int, default=100)
    chosen = parser.parse_args()
    print(machine())
    with tmpfs() as folder, ExitStack() as stack:
        parameters = make_key(folder / "key").parameters()
        request = folder / "request.json"
        request.write_bytes(ocicrypt.wrap_request(parameters, ocicrypt.new_private_options()))
        addresses = servers(folder, stack)
        calls(addresses, request.read_bytes(), chosen.calls, stack)
        starts(request, 4 * chosen.rounds)
        images(addresses, parameters, folder, chosen.layers, chosen.rounds)


if __name__ == "__main__":
    main()
