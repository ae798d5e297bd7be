"""Results of a fleet's run, made up."""

from __future__ import annotations

from typing import Final

from coco_kp.fleet.lines import Failure, LayerCounts, Options, Outcome, PlanLine, ResultLine
from coco_kp.model.digest import Digest
from coco_kp.model.reference import RegistryReference

KID: Final = "kbs:///default/key/app"
KEY: Final = f"keyid={KID},keypath=/run/keys/app"
SKIPPED_BASE: Final = Options(skip_base="docker://registry.example/base:1")


def plan_line(name: str = "team/app", tag: str = "1", options: Options = Options()) -> PlanLine:  # noqa: B008 (frozen)
    """Return the line of an image to be encrypted."""
    return PlanLine(
        "encrypt",
        RegistryReference("registry.example", name, tag),
        Digest.of(f"{name}:{tag}".encode()),
        RegistryReference("new.example", name, tag),
        (KEY,),
        options=options,
    )


def look_line(name: str = "team/app", tag: str = "1") -> PlanLine:
    """Return the line of the same image, to be verified."""
    place = RegistryReference("new.example", name, tag)
    return PlanLine("verify", place, Digest.of(f"new {name}:{tag}".encode()))


def done(
    line: PlanLine,
    *,
    layers: LayerCounts = LayerCounts(2, 1),  # noqa: B008 (frozen)
    recipients: tuple[str, ...] = (KID,),
    findings: tuple[Failure, ...] = (),
    finished: str = "2026-11-20T12:00:00Z",
    size: int = 4096,
) -> ResultLine:
    """Return the result of a line that was done."""
    return ResultLine(
        line,
        "done",
        line.action,
        line.digest,
        finished,
        1.5,
        recipients,
        layers,
        findings,
        bytes_read=size,
        bytes_written=size,
    )


def failed(line: PlanLine, error: Failure, *, finished: str = "2026-11-20T12:00:00Z") -> ResultLine:
    """Return the result of a line that failed before anything was known."""
    outcome: Outcome = "failed" if error.exit_code == 6 else "refused"
    return ResultLine(line, outcome, line.action, None, finished, 0.5, error=error)
