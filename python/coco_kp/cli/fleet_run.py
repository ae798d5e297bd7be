"""``coco-kp fleet run``: do what a plan says, and say what came of each image."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from coco_kp.cli.errors import UsageError
from coco_kp.cli.headings import DESTINATION, SOURCE, HeadedCommand
from coco_kp.cli.image_options import CopyAccess
from coco_kp.cli.options import FILE, with_options
from coco_kp.cli.output import notice, say, warn
from coco_kp.cli.output_options import verbosity
from coco_kp.errors import (
    CocoKpError,
    DeniedError,
    InputError,
    IntegrityError,
    KekError,
    RefusedError,
    RemoteError,
)
from coco_kp.redact import shown

if TYPE_CHECKING:
    from coco_kp.fleet.halt import Halt
    from coco_kp.fleet.keys import KeyRing
    from coco_kp.fleet.lines import ResultLine
    from coco_kp.fleet.run import Engine, Shard
    from coco_kp.fleet.work import Reach

_GRAVEST_FIRST: Final = (7, 5, 4, 8, 3, 2)
_ERRORS: Final[dict[int, type[CocoKpError]]] = {
    1: CocoKpError,
    2: UsageError,
    3: InputError,
    4: KekError,
    5: IntegrityError,
    6: RemoteError,
    7: RefusedError,
    8: DeniedError,
}


_HEADINGS: Final = {
    "Most used": ("--jobs", "--results", "--failed-to", "--shard", "--dask", "--help"),
    "Source": (*SOURCE, "--max-unpacked"),
    "Destination": DESTINATION,
    "Source and destination": ("--authfile", "--retries"),
    "Output": ("--quiet", "--verbose"),
}


@click.command("run", short_help="Do what a plan says.", cls=HeadedCommand, headings=_HEADINGS)
@click.argument("plan", type=FILE)
@click.option(
    "--shard",
    metavar="I/N",
    help="Do part I of N alone, from 0: Kubernetes' JOB_COMPLETION_INDEX and completions.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Work on N images at once; by default one a processor.",
)
@click.option(
    "--results",
    type=FILE,
    metavar="FILE",
    help="Append results to FILE, a line of JSON an image; without it they go to stdout.",
)
@click.option(
    "--failed-to",
    type=FILE,
    metavar="FILE",
    help="Write the lines that are not done to FILE, which is a plan again.",
)
@click.option(
    "--dask",
    metavar="ADDRESS",
    help="Have the workers of this Dask scheduler do the images, tcp://HOST:PORT or tls://…; they "
    "need coco-kp, keys and logins of their own.",
)
@with_options(access=CopyAccess)
@verbosity
def run(
    plan: Path,
    shard: str | None,
    jobs: int | None,
    results: Path | None,
    failed_to: Path | None,
    dask: str | None,
    access: CopyAccess,
) -> None:
    """Do what the lines of PLAN say: look at each image, do what is left to do, give it its name.

    An image that is as it should be is left alone, so that a plan may be run again at any time,
    also after the process was killed, and by several at once. Keys are asked for once, before the
    first image. The exit code is 0 only if all is done.

    For example: coco-kp fleet run plan.jsonl --results results.jsonl --failed-to failed.jsonl
    """
    from coco_kp.cli.interrupt import interruptible
    from coco_kp.files import check_replaceable, write_file
    from coco_kp.fleet.halt import Halt
    from coco_kp.fleet.keys import KeyRing
    from coco_kp.fleet.run import Shard, open_plan, run_plan
    from coco_kp.fleet.work import Reach
    from coco_kp.transport.registry.session import Session

    if dask and jobs:
        raise UsageError("--jobs is about this machine: a cluster does what its workers can")
    part = parse_shard(shard) if shard else Shard()
    if failed_to:
        check_replaceable(failed_to)
    halt, account = Halt(), _Account(_writer(results))
    with (
        open_plan(plan) as lines,
        closing(KeyRing(warn)) as ring,
        Session(sleep=halt.sleep) as session,
    ):
        account.left = set(part.of(len(lines)))
        reach = Reach(session, access.source(), access.destination())
        try:
            engine = _engine(dask, jobs, reach, halt, ring)
            with interruptible():
                run_plan(lines, part, ring, reach, engine, account.tell)
        finally:
            if failed_to:
                text = b"".join(map(lines.text, sorted(account.left)))
                write_file(failed_to, text, replace=True, mode=0o644)
    account.conclude()


def _engine(dask: str | None, jobs: int | None, reach: Reach, halt: Halt, ring: KeyRing) -> Engine:
    if dask:
        from coco_kp.fleet.dask import DaskEngine

        if reach.source.credentials or reach.destination.credentials:
            raise UsageError(
                "credentials on the command line do not reach the workers of a cluster",
                "have each worker log in: --authfile names a file there",
            )
        return DaskEngine(dask, reach.source, reach.destination, ring)
    from coco_kp.fleet.run import Threads
    from coco_kp.fleet.work import Worker
    from coco_kp.processors import processors

    at_once = jobs or processors()
    return Threads(Worker(reach, halt, max(1, processors() // at_once), notice), ring, at_once)


def parse_shard(text: str) -> Shard:
    """Read ``I/N``. Raises ``UsageError``."""
    from coco_kp.fleet.run import Shard

    found = re.fullmatch(r"([0-9]{1,9})/([1-9][0-9]{0,8})", text)
    if not found or int(found[1]) >= int(found[2]):
        raise UsageError(f"invalid shard {shown(text)}", "write I/N, such as 0/4 to 3/4 for four")
    return Shard(int(found[1]), int(found[2]))


class _Account:
    """What came of all images. ``left`` are the numbers of lines that are not done."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._outcomes = Counter[str]()
        self._codes = Counter[int]()
        self.left: set[int] = set()

    def tell(self, number: int, result: ResultLine) -> None:
        """Write a result, and remember what is needed at the end."""
        self._write(result.to_json())
        self._outcomes[result.outcome] += 1
        if result.error:
            self._codes[result.exit_code] += 1
            notice(f"{result.line.source}: {result.outcome}: {result.error.message}")
        else:
            self.left.discard(number)

    def conclude(self) -> None:
        """Say what came of all, and raise what the command ends with if not all is done.

        A repeat may help as long as one image failed for a reason that passes: that goes first,
        whatever the reason was, but for a bug.
        """
        total = self._outcomes.total()
        counts = ", ".join(f"{count} {what}" for what, count in sorted(self._outcomes.items()))
        if not self._codes:
            say(f"all of {total} images are done: {counts or 'there is none'}", err=True)
            return
        first = (1,) if self._outcomes["failed"] else _GRAVEST_FIRST
        code = next((code for code in first if self._codes[code]), RemoteError.exit_code)
        raise _ERRORS[code](
            f"{self._codes.total()} of {total} images are not done: {counts}",
            "the results say why; --failed-to FILE writes the lines to run again",
        )


def _writer(path: Path | None) -> Callable[[str], None]:
    """Return what writes a line of results, whole or not at all."""
    if path is None:
        return lambda line: click.echo(line, nl=False)
    from coco_kp.files import reason, unwritten

    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o644)
    except OSError as failure:
        raise unwritten(path, failure) from None

    def append(line: str) -> None:
        data = line.encode()
        try:
            written = os.write(descriptor, data)
        except OSError as failure:
            raise InputError(f"cannot write {shown(str(path))}: {reason(failure)}") from None
        if written != len(data):
            raise InputError(f"cannot write {shown(str(path))}: the disk is full")

    return append
