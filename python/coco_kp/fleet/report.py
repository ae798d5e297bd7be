"""What results say of a registry: which image is encrypted for whom, what is readable, what failed.

Of an image only the latest result counts. A report claims no more than results say: a run that
failed leaves unknown what is there. All words of others are printable in it.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from coco_kp.errors import CocoKpError, InputError
from coco_kp.files import close, open_regular, reason
from coco_kp.fleet.lines import (
    Failure,
    LayerCounts,
    Options,
    PlanLine,
    ResultLine,
    cut,
    read_results,
)
from coco_kp.model.resource_uri import parse_key_id
from coco_kp.redact import redacted, shown
from coco_kp.values import dataclass, replace

Standing = Literal["encrypted", "doubtful", "partly readable", "readable", "unknown"]

MAX_BYTES: Final = 512 * 1024 * 1024
"""Bytes of all results together, at the most: some 500,000 images."""

_IN_DOUBT: Final = {4, 5, 7}
"""Exit codes (docs/cli.md) of what speaks against an image whose layers are all encrypted."""
_UNREAD: Final = {1, 6, 8}
"""Exit codes of what kept its layers from being looked at."""


@dataclass(frozen=True, slots=True)
class Image:
    """What is known of an image: its latest result."""

    latest: ResultLine

    @property
    def name(self) -> str:
        """Where it is: the destination, or what was looked at."""
        return str(self.latest.line.destination or self.latest.line.source)

    @property
    def standing(self) -> Standing:
        """Whether its layers can be read without a key."""
        layers = self.latest.layers or LayerCounts()
        encrypted = layers.encrypted + layers.taken_over
        if layers.readable:
            return "partly readable" if encrypted else "readable"
        if not encrypted:
            return "unknown"
        found = (*self.latest.findings, *filter(None, [self.latest.error]))
        codes = {one.exit_code for one in found}
        if codes & _IN_DOUBT:
            return "doubtful"
        return "unknown" if codes & _UNREAD else "encrypted"

    def reasons(self) -> Iterator[str]:
        """Say why it is not simply encrypted."""
        options, layers = self.latest.line.options, self.latest.layers
        match self.standing:
            case "readable" | "partly readable":
                yield from _allowed(options)
            case "unknown" if layers == LayerCounts():
                yield "it has no layers"
            case "unknown" if layers is not None:
                yield "its layers are called encrypted, and could not all be read"
            case "unknown":
                yield f"the latest {self.latest.line.action} ended before that was known"
            case _:
                pass
        yield from (one.message for one in self.latest.findings if one.exit_code in _IN_DOUBT)

    def why(self) -> str:
        """Say the same in a line, after what ended the work."""
        error = [self.latest.error.message] if self.latest.error else []
        return "; ".join(dict.fromkeys(map(_text, (*error, *self.reasons()))))

    @property
    def may_be_repeated(self) -> bool:
        """Whether its line failed, and is still what to do: one whose source moved is not."""
        return self.latest.outcome in {"failed", "refused"}

    def document(self) -> dict[str, object]:
        """Return it as JSON has it."""
        latest, line = self.latest, self.latest.line
        again = line if self.may_be_repeated else None
        return {
            "image": self.name,
            "standing": self.standing,
            "reasons": list(dict.fromkeys(map(_text, self.reasons()))),
            "action": line.action,
            "outcome": latest.outcome,
            "did": latest.did,
            "exit_code": latest.exit_code,
            "source": str(line.source),
            "planned": str(line.digest),
            "digest": str(latest.result) if latest.result else None,
            "recipients": list(map(_text, latest.recipients)),
            "layers": latest.layers.document() if latest.layers else None,
            "findings": list(map(_failure, latest.findings)),
            "error": _failure(latest.error) if latest.error else None,
            "bytes_read": latest.bytes_read,
            "bytes_written": latest.bytes_written,
            "seconds": latest.seconds,
            "finished": latest.finished,
            "plan_line": again.to_json().strip() if again else None,
            "repeat": repeat(again) if again else None,
        }


@dataclasses.dataclass(slots=True)
class Key:
    """A recipient: images that have packets for it, and since when that is known.

    ``first_seen`` is when the first result that names it ended, ``registered`` when this machine
    registered a key under this ID, by KBS. The key may be older than both.
    """

    kid: str
    images: int = 0
    first_seen: str = ""
    registered: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def document(self, now: str) -> dict[str, object]:
        """Return it as JSON has it; its age is in whole days."""
        since = min(filter(None, [self.first_seen, *self.registered.values()]), default=now)
        return {
            "kid": _text(self.kid),
            "images": self.images,
            "first_seen": self.first_seen,
            "registered": [
                {"kbs": _text(kbs), "at": at} for kbs, at in sorted(self.registered.items())
            ],
            "known_for_days": max(0, (_time(now) - _time(since)).days),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """What results say, ``made`` at a time in UTC. Images are in the order of their names."""

    made: str
    results: int
    images: tuple[Image, ...]
    keys: tuple[Key, ...]
    seconds: float
    bytes_read: int
    bytes_written: int

    def document(self) -> dict[str, object]:
        """Return it as ``coco-kp schema fleet-report`` describes it."""
        return {
            "made": self.made,
            "results": self.results,
            "replaced": self.results - len(self.images),
            "seconds": round(self.seconds, 3),
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
            "keys": [key.document(self.made) for key in self.keys],
            "images": [image.document() for image in self.images],
        }


def read_report(
    paths: Iterable[Path], made: str, registered: Mapping[str, Mapping[str, str]]
) -> Report:
    """Read results into a report, which is ``made`` now.

    ``registered`` is what this machine registered: by key ID, the time for each KBS. Raises
    ``InputError`` for an invalid file of results, or more than `MAX_BYTES`.
    """
    latest: dict[str, Image] = {}
    first_seen: dict[str, str] = {}
    results, seconds, read, written = 0, 0.0, 0, 0
    for result in _results(paths):
        image = Image(result)
        before = latest.get(image.name)
        if before is None or before.latest.finished <= result.finished:
            latest[image.name] = image
        for kid in result.recipients:
            first_seen[kid] = min(result.finished, first_seen.get(kid, result.finished))
        results += 1
        seconds += result.seconds
        read += result.bytes_read
        written += result.bytes_written
    keys = {
        kid: Key(kid, 0, seen, registered.get(_resource(kid), {}))
        for kid, seen in first_seen.items()
    }
    for image in latest.values():
        for kid in dict.fromkeys(image.latest.recipients):
            keys[kid].images += 1
    return Report(
        made,
        results,
        tuple(latest[name] for name in sorted(latest)),
        tuple(sorted(keys.values(), key=lambda key: (-key.images, key.kid))),
        seconds,
        read,
        written,
    )


def repeat(line: PlanLine) -> str:
    """Return the shell command that does a line again."""
    return (
        f"printf '%s\\n' {shlex.quote(line.to_json().strip())} > again.jsonl && "
        "coco-kp fleet run again.jsonl"
    )


def _results(paths: Iterable[Path]) -> Iterator[ResultLine]:
    left = MAX_BYTES
    for path in paths:
        left -= _size(path)
        if left < 0:
            raise InputError(
                f"the results up to {shown(str(path))} are over {MAX_BYTES} bytes",
                "make a report of each part",
            )
        yield from read_results(path)


def _size(path: Path) -> int:
    descriptor = open_regular(path)
    try:
        return os.fstat(descriptor).st_size
    except OSError as failure:
        raise InputError(f"cannot read {shown(str(path))}: {reason(failure)}") from None
    finally:
        close(descriptor)


def _allowed(options: Options) -> Iterator[str]:
    """Say which options of the plan leave layers readable."""
    if options.skip_base is not None:
        yield f"the plan leaves layers readable that {options.skip_base} has"
    if options.allow_foreign:
        yield "the plan leaves foreign layers readable"
    if options.keep_attestations or options.allow_attestations:
        yield "the plan leaves attestations readable"


def _resource(kid: str) -> str:
    """Return a key ID without the address of a KBS, as registrations are recorded."""
    try:
        return str(replace(parse_key_id(kid), address=""))
    except CocoKpError:
        return kid


def _failure(failure: Failure) -> dict[str, object]:
    printable = replace(
        failure,
        code=_text(failure.code),
        message=_text(failure.message),
        hint=_text(failure.hint),
    )
    return printable.document()


def _text(text: str) -> str:
    return redacted(cut(text))


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
