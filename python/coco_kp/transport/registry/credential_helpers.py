"""Credential helpers: programs that keep logins (the protocol of docker-credential-helpers)."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Final

from coco_kp.deadline import remaining
from coco_kp.errors import InputError, RemoteError
from coco_kp.files import reason
from coco_kp.model.encoding import parse_json_object
from coco_kp.redact import shown
from coco_kp.transport.access import Credentials
from coco_kp.transport.registry.turns import in_turn
from coco_kp.values import dataclass

IDENTITY_TOKEN: Final = "<token>"
"""The user name by which a helper says that the secret is an identity token."""

_SECONDS: Final = 60
_ANSWER_SECONDS: Final = 300.0
"""How long a helper's answer is used before it is asked again: logins end (ECR's after 12 hours),
and what a helper keeps it renews in time."""
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a helper said, and until when that is used (of the clock)."""

    said: Credentials | RemoteError | None
    fresh_until: float


class _Place:
    def __init__(self) -> None:
        self.answer: _Answer | None = None
        self.asking = threading.Lock()


class CredentialHelpers:
    """Helpers, each asked now and then for each server.

    Threads may share it: of those that need one answer, one asks for it, and who needs another does
    not wait for that.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._places: dict[tuple[str, str], _Place] = {}

    def ask(self, helper: object, server: str) -> Credentials | None:
        """Return what ``docker-credential-<helper>`` has for a server, None where that is nothing.

        Raises ``InputError`` for what is no name of a helper, ``RemoteError`` for one that is
        broken, or does not answer while somebody waits for it.
        """
        if not isinstance(helper, str) or not _NAME.fullmatch(helper):
            raise InputError(f"{shown(str(helper))} is not the name of a credential helper")
        with self._lock:
            place = self._places.setdefault((helper, server), _Place())
        program = f"docker-credential-{helper}"
        with in_turn(place.asking, program):
            place.answer = answer = self._answer(place.answer, program, server)
        if isinstance(answer.said, RemoteError):
            raise answer.said.again()
        return answer.said

    def _answer(self, known: _Answer | None, program: str, server: str) -> _Answer:
        if known is not None and self._clock() < known.fresh_until:
            return known
        said: Credentials | RemoteError | None
        try:
            said = _get(program, server)
        except RemoteError as error:
            if not remaining():  # it was given up, and may be none the worse
                raise
            said = known.said if known else error.at_rest()  # what it said may do for long
        return _Answer(said, self._clock() + _ANSWER_SECONDS)


def _get(program: str, server: str) -> Credentials | None:
    import subprocess  # noqa: PLC0415 (most logins need no helper)

    from coco_kp.programs import run_program  # noqa: PLC0415 (as above)

    # Its output is not quoted: a broken helper may have printed the secret.
    hint = f"see what it says: echo {server} | {program} get"
    try:
        result = run_program([program, "get"], seconds=_SECONDS, given=server.encode())
    except FileNotFoundError:
        raise RemoteError(
            f"the credential helper {program} is not installed",
            "install it, log in anew, or pass credentials explicitly",
        ) from None
    except OSError as error:
        raise RemoteError(f"{program} cannot be run: {reason(error)}") from None
    except subprocess.TimeoutExpired:
        raise RemoteError(f"{program} did not answer in time", hint) from None
    if result.returncode != 0:
        if b"credentials not found" in result.stdout:
            return None
        raise RemoteError(f"{program} failed with exit code {result.returncode}", hint)
    try:
        answer = parse_json_object(result.stdout, f"the answer of {program}")
    except InputError as error:
        raise RemoteError(error.message, hint) from None
    username, secret = answer.get("Username"), answer.get("Secret")
    if not isinstance(username, str) or not isinstance(secret, str):
        raise RemoteError(f"{program} answered without a user name and secret", hint)
    if username == IDENTITY_TOKEN:
        return Credentials(username, "", secret, origin=program)
    return Credentials(username, secret, origin=program)
