"""What a registry says when it does not do as asked (distribution-spec, error codes)."""

from __future__ import annotations

import contextlib
from typing import Final

from coco_kp.errors import InputError, RemoteError
from coco_kp.http import Response
from coco_kp.http.response import SAID_LIMIT
from coco_kp.model.encoding import parse_json_object

ATTEMPTS: Final = 5
"""Tries of a request that may be repeated."""

_HINTS: Final = {
    401: "log in with docker, podman or skopeo, or pass --creds or --authfile",
    403: "ask for the right to do this, or log in as somebody who has it",
    404: "check the name; some registries say this too where the right to read is missing",
    429: "the registry limits how often it may be asked: try again later",
}


def refused(response: Response, what: str = "") -> RemoteError:
    """Make the error for an answer of the wrong status, with what the registry said; close it."""
    said = codes(response)
    fact = f"{what}: " if what else ""
    return RemoteError(
        f"{fact}{response.request}: {response.outcome}" + (f": {said}" if said else ""),
        _HINTS.get(response.status, ""),
    )


def codes(response: Response) -> str:
    """Give the registry's own words, its error codes first; other text as it is."""
    text = response.said(SAID_LIMIT)
    errors = None
    with contextlib.suppress(InputError):
        errors = parse_json_object(text, "the answer").get("errors")
    if isinstance(errors, list):
        found = [error for error in errors if isinstance(error, dict)]
        text = "; ".join(f"{e.get('code')}: {e.get('message')}" for e in found) or text
    return response.quote(text)  # again: JSON can spell out what was not there before
