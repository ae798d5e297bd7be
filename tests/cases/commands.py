"""What a command of a case did, and what a case may expect of it."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.cases.differs import CaseDiffersError

# Unicode: controls, lone surrogates (bytes that are not UTF-8), line and paragraph separators
UNPRINTABLE: Final = {"Cc", "Cs", "Zl", "Zp"}
# Unicode bidirectional classes of the characters that change the order of what follows
REORDERING: Final = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a command did, and printed; the folder of its case is left out of the text."""

    argv: Sequence[str]
    code: int | None
    """None if it was killed at its time limit."""
    out: str
    err: str
    cpu: float
    """Processor time, in seconds."""
    limit: float
    """In seconds."""

    @property
    def text(self) -> str:
        return self.out + self.err

    @property
    def summary(self) -> str:
        """The beginning of what it printed, in one line."""
        return " ".join((self.err or self.out).split())[:160]


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """At most ``factor`` times the processor time of command ``of``, and ``plus`` seconds."""

    of: int
    factor: float
    plus: float

    def limit(self, results: Sequence[Result]) -> float:
        return self.factor * results[self.of].cpu + self.plus


@dataclass(frozen=True, kw_only=True)
class CommandCheck:
    """What a case expects of a command: the members of an item of ``commands``."""

    exit: list[int]
    out_has: list[list[str]] = field(default_factory=list)
    err_has: list[list[str]] = field(default_factory=list)
    text_has: list[list[str]] = field(default_factory=list)
    """Of each list one word, in any case of letters."""
    out_lacks: list[str] = field(default_factory=list)
    err_lacks: list[str] = field(default_factory=list)
    text_lacks: list[str] = field(default_factory=list)
    printable: bool = False
    cpu: Cpu | None = None

    def check(self, result: Result, results: Sequence[Result]) -> None:
        """Raise CaseDiffersError if the command did anything else."""
        if result.code is None:
            raise CaseDiffersError(f"took longer than {result.limit:g} s")
        if result.code not in self.exit:
            raise CaseDiffersError(f"exit {result.code}, not {_or(self.exit)}: {result.summary}")
        for text, has, lacks in (
            (result.out, self.out_has, self.out_lacks),
            (result.err, self.err_has, self.err_lacks),
            (result.text, self.text_has, self.text_lacks),
        ):
            self._words(text.casefold(), has, lacks, result.summary)
        if self.printable and (found := sorted(filter(_unprintable, set(result.text)))):
            names = ", ".join(f"U+{ord(character):04X}" for character in found)
            raise CaseDiffersError(f"control characters in its output: {names}")
        if self.cpu is not None and result.cpu > (limit := self.cpu.limit(results)):
            raise CaseDiffersError(f"{result.cpu:.1f} s of processor time, more than {limit:.1f} s")

    @staticmethod
    def _words(text: str, has: list[list[str]], lacks: list[str], summary: str) -> None:
        for words in has:
            if not any(word.casefold() in text for word in words):
                raise CaseDiffersError(f"'{_or(words)}' is not in its output: {summary}")
        for word in lacks:
            if word.casefold() in text:
                raise CaseDiffersError(f"'{word}' is in its output")


def read_command_check(document: dict[str, Any]) -> CommandCheck:
    """Read an item of ``commands``; raises KeyError or TypeError for what the format has not."""
    members = dict(document)
    if isinstance(members["exit"], int):
        members["exit"] = [members["exit"]]
    for name in ("out_has", "err_has", "text_has"):
        if name in members:
            members[name] = [[w] if isinstance(w, str) else w for w in members[name]]
    if "cpu" in members:
        members["cpu"] = Cpu(**members["cpu"])
    return CommandCheck(**members)


def _or(alternatives: Sequence[object]) -> str:
    return " or ".join(map(str, alternatives))


def _unprintable(character: str) -> bool:
    return character not in "\n\t" and (
        unicodedata.category(character) in UNPRINTABLE
        or unicodedata.bidirectional(character) in REORDERING
    )
