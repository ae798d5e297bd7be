"""The outcomes that a case allows: what must hold of each command, and afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.cases.commands import CommandCheck, Result, read_command_check
from tests.cases.differs import CaseDiffersError
from tests.cases.facts import Fact, read_fact
from tests.sim.http_server import Request


@dataclass(frozen=True)
class Outcome:
    """One of the outcomes that are right, by its name (empty if there is no other)."""

    way: str
    commands: Sequence[CommandCheck | None]
    facts: Sequence[Fact]

    def check(self, results: Sequence[Result], seen: Sequence[Request]) -> None:
        """Raise CaseDiffersError, with what differs first, unless this is what happened."""
        for number, (expected, result) in enumerate(zip(self.commands, results, strict=True)):
            if expected is not None:
                try:
                    expected.check(result, results)
                except CaseDiffersError as error:
                    raise CaseDiffersError(f"command {number}: {error}") from None
        for fact in self.facts:
            fact.check(seen)


def read_outcomes(document: dict[str, Any]) -> list[Outcome]:
    """Read the member ``expect``; raises KeyError or TypeError for what the format has not."""
    return [_read_outcome(**way) for way in document.get("one_of", [document])]


def check_one(
    outcomes: Sequence[Outcome], results: Sequence[Result], seen: Sequence[Request]
) -> None:
    """Raise CaseDiffersError, with what differs from each, unless one of the outcomes holds."""
    differences = []
    for outcome in outcomes:
        try:
            outcome.check(results, seen)
        except CaseDiffersError as error:
            differences.append(f"{outcome.way}: {error}" if outcome.way else str(error))
        else:
            return
    raise CaseDiffersError(" | ".join(differences))


def _read_outcome(
    commands: list[dict[str, Any] | None], facts: Sequence[dict[str, Any]] = (), way: str = ""
) -> Outcome:
    checks = [None if item is None else read_command_check(item) for item in commands]
    return Outcome(way, checks, [read_fact(fact) for fact in facts])
