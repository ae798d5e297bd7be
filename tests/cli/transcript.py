"""Reads transcripts: files to begin with, and commands with all that may be seen of them.

Each line begins with a mark:

    #           a remark
    @ NAME MODE     a file to begin with; its lines follow, behind '|'
    @ NAME MODE base64      the same, and the lines are base64 of what the file has
    @ NAME image    an image to begin with, a layout of one layer
    @ NAME registry     a registry, empty; {NAME} stands for its host and port from here on
    @ NAME registry login   the same, for one who logs in as user with the password secret
    @ NAME registry lossy   the same, whose answers are lost to requests that move a tag
    @ NAME registry dead    the same, and from then on it answers nothing about that tag
    @ NAME registry tls     the same, with a certificate that nobody trusts
    $ coco-kp …     a command
    < wrap PARAMETERS       its input: a request to wrap a layer's key
    < unwrap PACKET KBC     its input: a request to unwrap a packet of tests/vectors/packets.json
    < TEXT      its input, otherwise
    > …         a line of its stdout
    ! …         a line of its stderr
    = N         its exit code, if not 0
    - NAME      a file that is not there afterwards
    + NAME MODE     a file that is there afterwards, and its mode
    + NAME MODE = OTHER     the same, and it has the content of another

``[..]`` in a line of output stands for any text within the line. A command that fails must leave
all files as they are, but those behind a ``+``.
"""

from __future__ import annotations

import re
import shlex
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.support import ocicrypt
from tests.vectors import load_vectors

PACKETS = {vector["name"]: vector for vector in load_vectors("packets")["good"]}
PRIVATE_OPTIONS = PACKETS["gcm"]["optsdata"].encode()


@dataclass
class Step:
    """One command and what is expected of it."""

    command: str
    stdin: bytes = b""
    stdout: list[str] = field(default_factory=list)
    stderr: list[str] = field(default_factory=list)
    exit_code: int = 0
    absent: list[str] = field(default_factory=list)
    present: list[list[str]] = field(default_factory=list)

    def add(self, mark: str, text: str) -> None:
        """Take another line of the step."""
        match mark:
            case "<":
                self.stdin = _request(text)
            case ">":
                self.stdout.append(text)
            case "!":
                self.stderr.append(text)
            case "=":
                self.exit_code = int(text)
            case "-":
                self.absent.append(text)
            case "+":
                self.present.append(text.split())
            case _:
                raise ValueError(f"no such mark: {mark}")

    def naming(self, addresses: Mapping[str, str]) -> Step:
        """Return the step with the registries under their addresses."""

        def named(text: str) -> str:
            for name, address in addresses.items():
                text = text.replace(f"{{{name}}}", address)
            return text

        stdout, stderr = list(map(named, self.stdout)), list(map(named, self.stderr))
        return replace(self, command=named(self.command), stdout=stdout, stderr=stderr)

    @property
    def arguments(self) -> list[str]:
        """What the command is called with."""
        program, *arguments = shlex.split(self.command)
        assert program == "coco-kp", self.command
        return arguments


@dataclass
class Transcript:
    """Files, each with its content and mode, images, registries and how they are, and steps."""

    files: dict[str, tuple[bytes, int]]
    images: list[str]
    registries: dict[str, list[str]]
    steps: list[Step]


def read_transcript(path: Path) -> Transcript:
    """Read a transcript; what is none fails."""
    files: dict[str, tuple[list[str], list[str]]] = {}
    images: list[str] = []
    registries: dict[str, list[str]] = {}
    steps: list[Step] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        mark, text = line[:1], line[2:]
        match mark:
            case "" | "#":
                continue
            case "@":
                name, *how = text.split()
                if how == ["image"]:
                    images.append(name)
                elif how[0] == "registry":
                    registries[name] = how[1:]
                else:
                    files[name] = (how, [])
            case "|":
                files[next(reversed(files))][1].append(text)
            case "$":
                steps.append(Step(text))
            case _:
                steps[-1].add(mark, text)
    contents = {name: _file(*parts) for name, parts in files.items()}
    return Transcript(contents, images, registries, steps)


def matches(expected: list[str], text: str) -> bool:
    """Return whether a text has exactly the expected lines."""
    lines = text.splitlines()
    patterns = [re.escape(line).replace(re.escape("[..]"), ".*") for line in expected]
    return len(lines) == len(patterns) and all(map(re.fullmatch, patterns, lines))


def _file(how: list[str], lines: list[str]) -> tuple[bytes, int]:
    mode, *encoding = how
    text = "".join(f"{line}\n" for line in lines)
    return (b64decode(text) if encoding else text.encode(), int(mode, 8))


def _request(text: str) -> bytes:
    match text.split():
        case ["wrap", parameters]:
            return ocicrypt.wrap_request(parameters, PRIVATE_OPTIONS)
        case ["unwrap", name, kbc]:
            return ocicrypt.unwrap_request(kbc, PACKETS[name]["packet"].encode())
    return text.encode()
