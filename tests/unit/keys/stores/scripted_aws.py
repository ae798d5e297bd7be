"""An AWS that answers as a test says: for what the emulators do not do."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.sim.http_server import BreakOff, Reply, Request, http_server

if TYPE_CHECKING:
    from collections.abc import Iterator

UNKNOWN = Reply(400, {}, b'{"__type": "UnknownOperationException"}')


@dataclass
class ScriptedAws:
    """The answers by operation (``Encrypt``, ``GetSecretValue``)."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    answers: dict[str, Reply | BreakOff] = field(default_factory=dict)

    def on(self, operation: str, answer: Reply | BreakOff) -> None:
        self.answers[operation] = answer

    def answer(self, request: Request) -> Reply | BreakOff:
        self.requests.append(request)
        # AWS JSON protocol 1.1: the target is SERVICE.OPERATION
        return self.answers.get(request.headers["X-Amz-Target"].rpartition(".")[2], UNKNOWN)


@contextmanager
def scripted_aws() -> Iterator[ScriptedAws]:
    aws = ScriptedAws()
    with http_server(aws.answer) as url:
        aws.url = url
        yield aws


def refused(code: str, words: str = "", status: int = 400) -> Reply:
    return Reply(status, {}, json.dumps({"__type": code, "message": words}).encode())


def ok(**members: object) -> Reply:
    return Reply(200, {}, json.dumps(members).encode())
