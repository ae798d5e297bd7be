"""A Vault that answers as a test says, in the words of the real one, and notes what it was asked.

Words and codes are those of Vault's HTTP API, developer.hashicorp.com/vault/api-docs.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.sim.http_server import BreakOff, Reply, Request, http_server

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "hvs.CAESIJtokenofthetestthatmustnotshow"
NOT_FOUND = Reply(404, {"Content-Type": "application/json"}, b'{"errors":[]}')


@dataclass
class ScriptedVault:
    """The answers by ``METHOD /path``; of several, each once and the last for ever."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    _script: dict[str, list[Reply | BreakOff]] = field(default_factory=dict)

    def on(self, request: str, *answers: Reply | BreakOff) -> None:
        self._script[request] = list(answers)

    def asked(self) -> list[str]:
        return [f"{request.method} {request.path}" for request in self.requests]

    def sent(self, request: str) -> dict[str, Any]:
        """Return the document of the only such request."""
        (found,) = (one for one in self.requests if f"{one.method} {one.path}" == request)
        document: dict[str, Any] = json.loads(found.body)
        return document

    def answer(self, request: Request) -> Reply | BreakOff:
        self.requests.append(request)
        answers = self._script.get(f"{request.method} {request.path}", [NOT_FOUND])
        return answers.pop(0) if len(answers) > 1 else answers[0]


@contextmanager
def scripted_vault() -> Iterator[ScriptedVault]:
    vault = ScriptedVault()
    with http_server(vault.answer) as url:
        vault.url = url
        yield vault


def ok(data: object, **more: object) -> Reply:
    return reply(200, {"data": data, **more})


def errors(status: int, *words: str) -> Reply:
    return reply(status, {"errors": list(words)})


def reply(status: int, document: object) -> Reply:
    return Reply(status, {"Content-Type": "application/json"}, json.dumps(document).encode())
